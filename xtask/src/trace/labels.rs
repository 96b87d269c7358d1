//! What labels and numbers mean: methods of the standard services, calls, errors, faults.

use cowslip_abi::{Call, FaultKind, FaultVerdict, Tag};
use libipc::service::Protocol;
use libipc::services::{
    console::ConsoleClient, files::FilesClient, init::InitClient, memstat::MemstatClient,
    names::NamesClient, procd::ProcdClient,
};

use super::story::{Message, Passed};

/// A standard service: its name, what its labels are made of, and the text of its trait, which has the methods in the
/// order of their numbers.
struct Service {
    name: &'static str,
    protocol: Protocol,
    text: &'static str,
}

/// The service of the server with this name, whose trait is in the file of that name.
macro_rules! service {
    ($name:literal, $client:ty) => {
        Service {
            name: $name,
            protocol: <$client>::PROTOCOL,
            text: include_str!(concat!("../../../libipc/src/services/", $name, ".rs")),
        }
    };
}

const SERVICES: [Service; 6] = [
    service!("console", ConsoleClient),
    service!("files", FilesClient),
    service!("init", InitClient),
    service!("memstat", MemstatClient),
    service!("names", NamesClient),
    service!("procd", ProcdClient),
];

impl Service {
    /// The method with this label.
    fn method(&self, label: u32) -> Option<String> {
        let number = label as u8;
        if number == 0 || self.protocol.label(number) != label {
            return None;
        }
        let name = self.methods().nth(usize::from(number) - 1)?;
        Some(format!("{}.{name}", self.name))
    }

    /// The names of the methods, in the order of their numbers, from 1 on.
    fn methods(&self) -> impl Iterator<Item = &'static str> {
        let mut lines = self.text.lines();
        lines
            .by_ref()
            .find(|line| line.starts_with("#[crate::service("));
        let block = lines.take_while(|line| *line != "}");
        block.filter_map(|line| line.strip_prefix("    fn ")?.split('(').next())
    }
}

/// What a message says it is about.
pub(crate) fn of_message(message: &Message) -> String {
    match message.kind {
        Passed::Fault => match FaultKind::from_label(message.tag.label()) {
            Some(FaultKind::Page) => "page fault".into(),
            Some(FaultKind::OutOfMemory) => "out of memory".into(),
            Some(FaultKind::Exception) => "exception".into(),
            None => format!("fault {}", message.tag.label()),
        },
        Passed::Verdict => match FaultVerdict::from_label(message.tag.label()) {
            Some(FaultVerdict::Resume) => "resume".into(),
            Some(FaultVerdict::Kill) => "kill".into(),
            None => format!("verdict {}", message.tag.label()),
        },
        Passed::Reply => of_reply(message.tag),
        Passed::Message => of_request(message.tag.label()),
    }
}

fn of_reply(tag: Tag) -> String {
    match tag.label() {
        0 => "ok".into(),
        label => format!("reply {label:#x}"),
    }
}

/// The method of a standard service, or for others the label as its two parts, the service's hash and the method's number.
fn of_request(label: u32) -> String {
    let known = SERVICES.iter().find_map(|service| service.method(label));
    known.unwrap_or_else(|| match label >> 8 {
        0 => format!("label {label}"),
        hash => format!("{hash:06x}.{}", label as u8),
    })
}

/// The name of a system call, as `docs/syscalls.md` has it.
pub(crate) fn of_call(number: u32) -> String {
    let Some(call) = Call::from_number(number) else {
        return format!("call {number}");
    };
    let mut name = String::new();
    for letter in format!("{call:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_the_standard_services_are_known_by_their_labels() {
        assert_eq!(of_request(ProcdClient::SPAWN), "procd.spawn");
        assert_eq!(of_request(ProcdClient::EXIT), "procd.exit");
        assert_eq!(of_request(NamesClient::FORGET), "names.forget");
        assert_eq!(of_request(MemstatClient::AUDIT), "memstat.audit");
        assert_eq!(of_request(ConsoleClient::WRITE), "console.write");
        assert_eq!(of_request(FilesClient::OPEN), "files.open");
    }

    #[test]
    fn every_service_has_methods_and_their_labels_differ() {
        let mut labels = Vec::new();
        for service in &SERVICES {
            let methods: Vec<_> = service.methods().collect();
            assert!(!methods.is_empty(), "of {}", service.name);
            for (number, method) in (1..).zip(&methods) {
                let label = service.protocol.label(number);
                assert_eq!(of_request(label), format!("{}.{method}", service.name));
                labels.push(label);
            }
            let beyond = service.protocol.label(methods.len() as u8 + 1);
            assert_eq!(service.method(beyond), None);
        }
        let count = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }

    #[test]
    fn other_labels_and_calls_are_numbers() {
        assert_eq!(of_request(7), "label 7");
        assert_eq!(of_request(0x00ab_cd02), "00abcd.2");
        assert_eq!(of_call(Call::ReplyRecv as u32), "reply_recv");
        assert_eq!(of_call(99), "call 99");
    }
}
