//! The attribute `service` and the derives `Argument` and `ErrorCode` of `libipc`, which re-exports them.
//!
//! `define` reads a trait, `hash` makes its fingerprint, `client` and `server` write the two sides, `derive` the rest.

mod client;
mod define;
mod derive;
mod hash;
mod server;

use proc_macro::TokenStream;
use quote::quote;
use syn::parse_macro_input;

use define::{Options, Service};

/// Makes a service of a trait: its client, its server, and the labels of its messages.
///
/// ```ignore
/// #[libipc::service(version = 1)]
/// pub trait Adder {
///     /// The sum.
///     fn add(&self, a: u64, b: u64) -> Result<u64, AddError>;
/// }
/// ```
///
/// | generated | is |
/// | --- | --- |
/// | `Adder` | the trait, which the server's state implements; with two further methods that have bodies, `notification` and `fault`, and a third, `is_done`, that ends the loop |
/// | `AdderClient` | the methods as a client calls them: `add(&self, a: u64, b: u64) -> Result<u64, Error<AddError>>`; and `AdderClient::ADD`, the label. `until(deadline)` is the same client for calls that give up then |
/// | `AdderServer` | `AdderServer::new(state)` is what `libipc::serve` serves |
///
/// | option | means |
/// | --- | --- |
/// | `version = N` | which version of the service this is; needed |
/// | `max_bytes = N` | the most bytes of a request; needed if an argument is `&[u8]`, `&str` or `Moved` |
///
/// Methods take `&self` or `&mut self`, which is the server's business: a client always calls with `&self`. A trait
/// whose methods all take `&self` is implemented by references as well, so that several threads can serve it.
/// What arguments and results may be, the module `libipc::service` says.
#[proc_macro_attribute]
pub fn service(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as Options);
    let item = parse_macro_input!(item as syn::ItemTrait);
    match Service::new(options, item) {
        Ok(service) => {
            let interface = server::interface(&service);
            let client = client::client(&service);
            let server = server::server(&service);
            quote!(#interface #client #server).into()
        }
        Err(error) => error.into_compile_error().into(),
    }
}

/// Makes an argument of a service of a struct of arguments, or of an enum without fields.
///
/// A struct takes what its fields take, one after the other. An enum is a word: the variant's discriminant.
#[proc_macro_derive(Argument)]
pub fn argument(item: TokenStream) -> TokenStream {
    derive::argument(&parse_macro_input!(item as syn::DeriveInput))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an error of a service of an enum without fields: its variants are numbered from 1 on.
#[proc_macro_derive(ErrorCode)]
pub fn error_code(item: TokenStream) -> TokenStream {
    derive::error_code(&parse_macro_input!(item as syn::DeriveInput))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
