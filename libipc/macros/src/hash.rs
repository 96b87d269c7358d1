//! A service's fingerprint: FNV-1a of 64 bits, over what client and server have to agree on.

use quote::ToTokens;

use crate::define::{Kind, Method, Output};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of a service's name, its version, and of all methods in their order. The names of arguments,
/// comments, and what the client does not see make no difference.
pub(crate) fn fingerprint(name: &str, version: u32, methods: &[Method]) -> u64 {
    let mut text = format!("{name} {version}");
    for method in methods {
        text += &format!(";{}(", method.name);
        for argument in &method.arguments {
            match &argument.kind {
                Kind::Caller | Kind::Reply => {}
                Kind::Given(ty) => text += &format!("{},", compact(ty)),
                Kind::Lent(ty) => text += &format!("&{},", compact(ty)),
                Kind::Bytes(ty) => text += &format!("{},", compact(ty)),
                Kind::Pages => text += "PageBuffer,",
            }
        }
        text += &match &method.output {
            Output::Given(ty) => format!(")->{}", compact(ty)),
            Output::Lent(ty) => format!(")->&{}", compact(ty)),
            Output::Pages => ")->PageBuffer".to_owned(),
            Output::Bytes(ty, bytes) => format!(")->{}+{}", compact(ty), compact(bytes)),
        };
        text += &format!("!{}", compact(&method.error));
    }
    fnv(text.as_bytes())
}

/// Tokens without the spaces between them, which are the compiler's choice.
fn compact(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    text.split_whitespace().collect()
}

fn fnv(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(OFFSET, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    // Labels have the upper 24 bits, and 0 is nobody's.
    if hash >> 40 == 0 {
        hash | 1 << 40
    } else {
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_fnv_1a() {
        assert_eq!(fnv(b""), OFFSET);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
