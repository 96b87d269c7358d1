//! A service's definition, read from the trait.

use proc_macro2::{Ident, Span};
use quote::format_ident;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Error, Expr, FnArg, GenericArgument, ItemTrait, LitInt, Pat, PathArguments, PathSegment,
    Receiver, ReceiverKind, Result, ReturnType, Token, TraitItem, TraitItemFn, Type, TypeReference,
    parse_quote,
};

/// The labels have a byte for the method, and 0 is no method.
const MAX_METHODS: usize = 255;

/// What clients and servers have of their own.
const RESERVED: [&str; 7] = [
    "connect",
    "new",
    "borrow",
    "as_endpoint",
    "notification",
    "fault",
    "is_done",
];

/// What stands in the attribute's parentheses.
pub(crate) struct Options {
    version: u32,
    max_bytes: Option<Expr>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut version, mut max_bytes) = (None, None);
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            if name == "version" {
                version = Some(input.parse::<LitInt>()?.base10_parse()?);
            } else if name == "max_bytes" {
                max_bytes = Some(input.parse()?);
            } else {
                return Err(Error::new(
                    name.span(),
                    "the options of a service are `version` and `max_bytes`",
                ));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = || {
            Error::new(
                Span::call_site(),
                "a service has a version: `#[libipc::service(version = 1)]`",
            )
        };
        Ok(Options {
            version: version.ok_or_else(missing)?,
            max_bytes,
        })
    }
}

/// A service.
pub(crate) struct Service {
    /// The trait as it was written.
    pub(crate) item: ItemTrait,
    pub(crate) client: Ident,
    pub(crate) server: Ident,
    pub(crate) version: u32,
    pub(crate) fingerprint: u64,
    /// The most bytes of a request, its values left out.
    pub(crate) max_bytes: Option<Expr>,
    pub(crate) methods: Vec<Method>,
}

/// A method.
pub(crate) struct Method {
    pub(crate) item: TraitItemFn,
    pub(crate) name: Ident,
    /// The name of the constant with its label.
    pub(crate) label: Ident,
    /// From 1 on.
    pub(crate) number: u8,
    pub(crate) is_mut: bool,
    pub(crate) arguments: Vec<Argument>,
    /// Whether the output is in a `Result` in the trait.
    pub(crate) is_result: bool,
    pub(crate) output: Output,
    pub(crate) error: Type,
}

/// An argument.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// What an argument is.
pub(crate) enum Kind {
    /// Who asks.
    Caller,
    /// The right to answer later.
    Reply,
    /// Goes to the server.
    Given(Type),
    /// Stays with the client: the type behind the reference.
    Lent(Type),
    /// Goes as it is: the whole type.
    Bytes(Type),
    /// A buffer whose pages move.
    Pages,
}

/// What a method results in, errors left out.
pub(crate) enum Output {
    /// Goes to the client.
    Given(Type),
    /// Stays with the server: the type behind the reference.
    Lent(Type),
    /// Something, and bytes: the client says where they go.
    Bytes(Type, Box<Type>),
    /// A buffer whose pages move.
    Pages,
}

impl Service {
    pub(crate) fn new(options: Options, item: ItemTrait) -> Result<Self> {
        if !item.generics.params.is_empty() {
            return Err(Error::new(
                item.generics.span(),
                "a service has no parameters: its messages are the same for everybody",
            ));
        }
        let methods = (1..).zip(&item.items).map(|(number, item)| match item {
            TraitItem::Fn(method) => Method::new(number, method),
            other => Err(Error::new(other.span(), "a service consists of methods")),
        });
        let methods = methods.collect::<Result<Vec<_>>>()?;
        if let (Some(span), None) = (
            methods.iter().find_map(Method::unbounded),
            &options.max_bytes,
        ) {
            return Err(Error::new(
                span,
                "how many bytes may that be? `#[libipc::service(version = .., max_bytes = ..)]` \
                 says how much room there is",
            ));
        }
        Ok(Service {
            client: format_ident!("{}Client", item.ident),
            server: format_ident!("{}Server", item.ident),
            version: options.version,
            fingerprint: crate::hash::fingerprint(
                &item.ident.to_string(),
                options.version,
                &methods,
            ),
            max_bytes: options.max_bytes,
            methods,
            item,
        })
    }
}

impl Method {
    fn new(number: usize, item: &TraitItemFn) -> Result<Self> {
        let signature = &item.sig;
        let name = signature.ident.clone();
        if let Some(modifier) = &signature.asyncness {
            return Err(Error::new(
                modifier.span(),
                "a call waits for its reply; to answer later, take a `Reply`",
            ));
        }
        if !signature.generics.params.is_empty() {
            return Err(Error::new(
                signature.generics.span(),
                "a method of a service has no parameters: its message is the same for everybody",
            ));
        }
        if let Some(body) = &item.default {
            return Err(Error::new(
                body.span(),
                "a method of a service has no body here: the server has it",
            ));
        }
        let number = u8::try_from(number)
            .ok()
            .filter(|&number| usize::from(number) <= MAX_METHODS)
            .ok_or_else(|| Error::new(name.span(), "a service has at most 255 methods"))?;
        if RESERVED.iter().any(|reserved| name == reserved) {
            return Err(Error::new(
                name.span(),
                "every client or server has something of this name already",
            ));
        }
        let mut inputs = signature.inputs.iter();
        let is_mut = match inputs.next() {
            Some(FnArg::Receiver(Receiver {
                kind: ReceiverKind::Reference(_, _, mutability),
                ..
            })) => mutability.is_some(),
            _ => {
                return Err(Error::new(
                    name.span(),
                    "a method of a service takes `&self` or `&mut self`",
                ));
            }
        };
        let mut arguments = Vec::new();
        let mut deferred = None;
        for input in inputs {
            let FnArg::Typed(input) = input else {
                continue;
            };
            let Pat::Ident(pattern) = &*input.pat else {
                return Err(Error::new(input.pat.span(), "an argument has a name here"));
            };
            let kind = Kind::of(&input.ty)?;
            if matches!(kind, Kind::Reply) {
                deferred = Some(reply_of(&input.ty)?);
            }
            arguments.push(Argument {
                name: pattern.ident.clone(),
                kind,
                span: input.ty.span(),
            });
        }
        at_most_one(&arguments, "a request has bytes once", |kind| {
            kind.is_bytes()
        })?;
        at_most_one(&arguments, "a request is answered once", |kind| {
            matches!(kind, Kind::Reply)
        })?;
        let (is_result, output, error) = match deferred {
            Some((output, error)) => (true, output, error),
            None => output_of(&signature.output)?,
        };
        Ok(Method {
            item: item.clone(),
            label: format_ident!("{}", name.to_string().to_uppercase(), span = name.span()),
            name,
            number,
            is_mut,
            arguments,
            is_result,
            output,
            error,
        })
    }

    /// Where bytes are named whose most the service has to say: those of a request, and pages that come back.
    fn unbounded(&self) -> Option<Span> {
        let mut arguments = self.arguments.iter();
        let request = arguments.find(|argument| argument.kind.is_bytes());
        let result = matches!(self.output, Output::Pages).then(|| self.item.sig.span());
        request.map(|argument| argument.span).or(result)
    }

    /// Whether the method may answer later.
    pub(crate) fn is_deferred(&self) -> bool {
        let mut kinds = self.arguments.iter().map(|argument| &argument.kind);
        kinds.any(|kind| matches!(kind, Kind::Reply))
    }
}

fn at_most_one(arguments: &[Argument], why: &str, is: fn(&Kind) -> bool) -> Result<()> {
    match arguments
        .iter()
        .filter(|argument| is(&argument.kind))
        .nth(1)
    {
        None => Ok(()),
        Some(second) => Err(Error::new(second.span, why)),
    }
}

/// The type of a buffer whose pages move.
const PAGES: &str = "PageBuffer";

impl Kind {
    /// Whether it is the bytes of the request.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self, Kind::Bytes(_) | Kind::Pages)
    }

    fn of(ty: &Type) -> Result<Self> {
        if is_bytes(ty) {
            return Ok(Kind::Bytes(ty.clone()));
        }
        match ty {
            Type::Reference(TypeReference {
                mutability: Some(_),
                ..
            }) => Err(Error::new(
                ty.span(),
                "what the server writes is a result: return `&[u8]`, and the client says where it goes",
            )),
            Type::Reference(reference) => Ok(Kind::Lent((*reference.elem).clone())),
            _ => Ok(match last_segment(ty).map(|segment| &segment.ident) {
                Some(name) if name == "Caller" => Kind::Caller,
                Some(name) if name == "Reply" => Kind::Reply,
                Some(name) if name == PAGES => Kind::Pages,
                _ => Kind::Given(ty.clone()),
            }),
        }
    }
}

/// Whether it is `&[u8]`, `&str` or `Moved`.
fn is_bytes(ty: &Type) -> bool {
    match ty {
        Type::Reference(TypeReference {
            mutability: None,
            elem,
            ..
        }) => match &**elem {
            Type::Slice(slice) => is_named(&slice.elem, "u8"),
            other => is_named(other, "str"),
        },
        other => is_named(other, "Moved"),
    }
}

fn is_named(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name)
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

/// The types in `Name<A, B>`, if that is what it is.
fn parameters<'a>(ty: &'a Type, name: &str) -> Option<Vec<&'a Type>> {
    let segment = last_segment(ty).filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(parameters) = &segment.arguments else {
        return None;
    };
    let types = parameters
        .args
        .iter()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        });
    Some(types.collect())
}

fn output_of(output: &ReturnType) -> Result<(bool, Output, Type)> {
    let infallible = || parse_quote!(::core::convert::Infallible);
    match output {
        ReturnType::Default => Ok((false, Output::Given(parse_quote!(())), infallible())),
        ReturnType::Type(_, ty) => match parameters(ty, "Result").as_deref() {
            Some([output, error]) => Ok((true, Output::of(output)?, (*error).clone())),
            Some(_) => Err(Error::new(
                ty.span(),
                "a service's method says which errors it has: `Result<T, E>`",
            )),
            None => Ok((false, Output::of(ty)?, infallible())),
        },
    }
}

/// What a `Reply<T, E>` or `Reply<T, E, WithBytes>` is the right to answer.
fn reply_of(ty: &Type) -> Result<(Output, Type)> {
    match parameters(ty, "Reply").as_deref() {
        Some([output, error]) if is_named(output, PAGES) => Ok((Output::Pages, (*error).clone())),
        Some([output, error]) => Ok((Output::Given((*output).clone()), (*error).clone())),
        Some([output, error, _]) => {
            let output = Output::Bytes((*output).clone(), Box::new(parse_quote!(&[u8])));
            Ok((output, (*error).clone()))
        }
        _ => Err(Error::new(
            ty.span(),
            "a reply has a type: `Reply<T, E>`, or `Reply<T, E, WithBytes>`",
        )),
    }
}

impl Output {
    fn of(ty: &Type) -> Result<Self> {
        if is_bytes(ty) {
            return Ok(Output::Bytes(parse_quote!(()), Box::new(ty.clone())));
        }
        if is_named(ty, PAGES) {
            return Ok(Output::Pages);
        }
        match ty {
            Type::Reference(reference) => Ok(Output::Lent((*reference.elem).clone())),
            Type::Tuple(tuple) if tuple.elems.last().is_some_and(is_bytes) => {
                let mut elems: Vec<_> = tuple.elems.iter().cloned().collect();
                let bytes = elems.pop();
                match (&elems[..], bytes) {
                    ([one], Some(bytes)) => Ok(Output::Bytes(one.clone(), Box::new(bytes))),
                    _ => Err(Error::new(
                        ty.span(),
                        "bytes come alone or with one other result, which may be a tuple: `((A, B), &[u8])`",
                    )),
                }
            }
            _ => Ok(Output::Given(ty.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a trait with this version.
    fn wrong(options: &str, item: &str) -> String {
        let defined = syn::parse_str::<Options>(options)
            .and_then(|options| Service::new(options, syn::parse_str(item)?));
        match defined {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    fn wrong_method(method: &str) -> String {
        wrong("version = 1", &format!("trait T {{ {method} }}"))
    }

    #[test]
    fn options_are_checked() {
        let item = "trait T {}";
        assert_eq!(wrong("version = 1", item), "");
        assert_eq!(wrong("version = 1, max_bytes = 2 * 8,", item), "");
        assert!(wrong("", item).starts_with("a service has a version"));
        assert!(wrong("version = 1, size = 2", item).starts_with("the options of a service"));
    }

    #[test]
    fn a_service_is_the_same_for_everybody() {
        assert!(wrong("version = 1", "trait T<A> {}").starts_with("a service has no parameters"));
        assert!(wrong_method("const C: u8;").starts_with("a service consists of methods"));
        assert!(wrong_method("fn f<A>(&self);").contains("has no parameters"));
        assert!(wrong_method("async fn f(&self);").contains("to answer later"));
        assert!(wrong_method("fn f(&self) {}").contains("has no body here"));
        assert!(wrong_method("fn f(self);").contains("takes `&self` or `&mut self`"));
        assert!(wrong_method("fn f();").contains("takes `&self` or `&mut self`"));
        assert!(wrong_method("fn connect(&self);").contains("of this name already"));
    }

    #[test]
    fn arguments_are_checked() {
        assert!(wrong_method("fn f(&self, (a, b): (u8, u8));").contains("has a name"));
        assert!(wrong_method("fn f(&self, b: &mut [u8]);").contains("is a result"));
        for bytes in ["&[u8]", "PageBuffer"] {
            let method = format!("fn f(&self, b: {bytes});");
            assert!(wrong_method(&method).contains("how many bytes"));
        }
        let two = "trait T { fn f(&self, a: &[u8], b: PageBuffer); }";
        assert!(wrong("version = 1, max_bytes = 9", two).contains("bytes once"));
        let replies = "fn f(&self, a: Reply<u8, E>, b: Reply<u8, E>) -> A;";
        assert!(wrong_method(replies).contains("answered once"));
        assert!(wrong_method("fn f(&self, a: Reply) -> A;").contains("a reply has a type"));
    }

    #[test]
    fn results_are_checked() {
        assert!(wrong_method("fn f(&self) -> Result<u8>;").contains("which errors it has"));
        assert!(wrong_method("fn f(&self) -> (u8, u8, &[u8]);").contains("bytes come alone"));
        assert_eq!(wrong_method("fn f(&self) -> Result<(u8, &[u8]), E>;"), "");
        assert!(wrong_method("fn f(&self) -> PageBuffer;").contains("how many bytes"));
    }

    #[test]
    fn a_label_has_room_for_255_methods() {
        let methods =
            |count: usize| -> String { (0..count).map(|i| format!("fn f{i}(&self);")).collect() };
        assert_eq!(wrong_method(&methods(255)), "");
        assert!(wrong_method(&methods(256)).contains("at most 255"));
    }
}
