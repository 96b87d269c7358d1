//! The client's side: a type around an endpoint, whose methods are calls.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use crate::define::{Argument, Kind, Method, Output, Service};

/// The client's type with its methods.
pub(crate) fn client(service: &Service) -> TokenStream {
    let (client, vis) = (&service.client, &service.item.vis);
    let (version, fingerprint) = (service.version, service.fingerprint);
    let doc = format!("A client of [`{}`].", service.item.ident);
    let protocol_doc = format!("What a server has to speak: version {version}.");
    let labels = service.methods.iter().map(|method| label(service, method));
    let methods = service.methods.iter().map(method);
    quote! {
        #[doc = #doc]
        #[derive(Debug)]
        #vis struct #client(::libipc::Endpoint);

        #[allow(clippy::too_many_arguments, reason = "as many as the trait's")]
        impl #client {
            #[doc = #protocol_doc]
            pub const PROTOCOL: ::libipc::service::Protocol = ::libipc::service::Protocol {
                version: #version,
                fingerprint: #fingerprint,
            };

            #(#labels)*

            /// A client of the server that is registered under `name`.
            ///
            /// # Errors
            /// When there is none, or it speaks another protocol.
            pub fn connect(
                name: &str,
            ) -> ::core::result::Result<Self, ::libipc::service::ConnectError> {
                ::libipc::service::connect(name, Self::PROTOCOL).map(Self)
            }

            /// A client of the server behind an endpoint. Whether it speaks the same protocol is not
            /// asked: calls fail if it does not.
            #[must_use]
            pub const fn new(endpoint: ::libipc::Endpoint) -> Self {
                Self(endpoint)
            }

            /// A client by a handle that somebody else owns.
            #[inline]
            #[must_use]
            pub fn borrow<'a>(handle: ::libipc::Handle) -> ::libipc::Borrowed<'a, Self> {
                ::libipc::Borrowed::new(Self(::libipc::Endpoint::from_raw(handle)))
            }

            /// The server's endpoint.
            #[must_use]
            pub const fn endpoint(&self) -> &::libipc::Endpoint {
                &self.0
            }

            #(#methods)*
        }

        /// A handle: who gets it is a client as well.
        impl ::libipc::service::Argument for #client {
            const NR_HANDLES: usize = 1;

            #[inline]
            fn put(&self, parcel: &mut ::libipc::service::Parcel<'_>) {
                ::libipc::service::Argument::put(&self.0, parcel);
            }

            #[inline]
            fn take(
                contents: &mut ::libipc::service::Contents<'_>,
            ) -> ::core::option::Option<Self> {
                ::libipc::service::Argument::take(contents).map(Self)
            }

            #[inline]
            fn gone(self) {
                ::libipc::service::Argument::gone(self.0);
            }
        }
    }
}

fn label(service: &Service, method: &Method) -> TokenStream {
    let (label, number) = (&method.label, method.number);
    let doc = format!("The label of [`{}`](Self::{0}).", method.name);
    let trait_doc = format!("The method number {number} of [`{}`].", service.item.ident);
    quote! {
        #[doc = #doc]
        #[doc = #trait_doc]
        pub const #label: u32 = Self::PROTOCOL.label(#number);
    }
}

fn method(method: &Method) -> TokenStream {
    let (name, label, error) = (&method.name, &method.label, &method.error);
    let docs = method
        .item
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"));
    let parameters = method.arguments.iter().filter_map(|argument| {
        let name = &argument.name;
        match &argument.kind {
            Kind::Caller | Kind::Reply => None,
            Kind::Given(ty) | Kind::Bytes(ty) => Some(quote!(#name: #ty)),
            Kind::Lent(ty) => Some(quote!(#name: &#ty)),
        }
    });
    let puts = method.arguments.iter().filter_map(|argument| {
        let name = &argument.name;
        match &argument.kind {
            Kind::Given(ty) => {
                Some(quote_spanned!(argument.span=> <#ty as ::libipc::service::Argument>::put(&#name, &mut parcel);))
            }
            Kind::Lent(ty) => {
                Some(quote_spanned!(argument.span=> <#ty as ::libipc::service::Argument>::put(#name, &mut parcel);))
            }
            _ => None,
        }
    });
    let given: Vec<_> = method
        .arguments
        .iter()
        .filter_map(|argument| match &argument.kind {
            Kind::Given(ty) => Some((&argument.name, ty)),
            _ => None,
        })
        .collect();
    let given_names = given.iter().map(|(name, _)| name);
    let given_types = given.iter().map(|(_, ty)| ty);
    let room = room(method.arguments.iter().filter_map(Argument::parcelled));
    let bytes = method
        .arguments
        .iter()
        .find_map(|argument| match &argument.kind {
            Kind::Bytes(ty) => Some((&argument.name, ty)),
            _ => None,
        });
    let data = match bytes {
        None => quote!(values),
        Some((name, _)) => quote!(::libipc::service::Bytes::bytes(&#name)),
    };
    let move_pages = bytes.map(|(_, ty)| {
        quote! {
            if <#ty as ::libipc::service::Bytes>::MOVES {
                message = message.moving_pages();
            }
        }
    });
    let Answer {
        into,
        ty,
        reply_room,
        reply_buffer,
        result,
    } = answer(&method.output);
    quote! {
        #(#docs)*
        #[inline]
        pub fn #name(
            &self, #(#parameters,)* #into
        ) -> ::core::result::Result<#ty, ::libipc::service::Error<#error>> {
            let mut room = [0; #room];
            #[allow(unused_mut, reason = "a method may have no arguments")]
            let mut parcel = ::libipc::service::Parcel::new(&mut room);
            #(#puts)*
            #[allow(unused_variables, unused_mut, reason = "a method may have no values, and nothing that moves")]
            let (mut message, values) = parcel.close(Self::#label)?;
            if 0 #(+ <#given_types as ::libipc::service::Argument>::NR_HANDLES)* > 0 {
                message = message.moving_handles();
            }
            #move_pages
            #reply_room
            let sent = ::libipc::service::ask::<#error>(&self.0, message, #data, #reply_buffer)?;
            #(::libipc::service::Argument::gone(#given_names);)*
            #result
        }
    }
}

impl Argument {
    /// The type that is put into the parcel.
    pub(crate) fn parcelled(&self) -> Option<&syn::Type> {
        match &self.kind {
            Kind::Given(ty) | Kind::Lent(ty) => Some(ty),
            Kind::Caller | Kind::Reply | Kind::Bytes(_) => None,
        }
    }
}

/// How much room values take, at most.
pub(crate) fn room<'a>(types: impl Iterator<Item = &'a syn::Type>) -> TokenStream {
    quote! {
        {
            if false #(|| <#types as ::libipc::service::Argument>::HAS_VALUES)* {
                ::libipc::service::MAX_VALUES
            } else {
                0
            }
        }
    }
}

/// How a client gets a result.
struct Answer {
    /// A further parameter.
    into: Option<TokenStream>,
    /// The result's type.
    ty: TokenStream,
    /// Where values go.
    reply_room: Option<TokenStream>,
    /// Where bytes go.
    reply_buffer: TokenStream,
    /// The result out of the reply.
    result: TokenStream,
}

fn answer(output: &Output) -> Answer {
    match output {
        Output::Given(ty) | Output::Lent(ty) => {
            let room = room(std::iter::once(ty));
            Answer {
                into: None,
                ty: quote!(#ty),
                reply_room: Some(quote!(let mut reply_room = [0; #room];)),
                reply_buffer: quote!(&mut reply_room),
                result: quote! {
                    let values = reply_room.get(..sent.reply_len);
                    ::core::result::Result::Ok(
                        ::libipc::service::take_reply::<#ty>(&sent.reply, values)?,
                    )
                },
            }
        }
        Output::Bytes(ty, _) => {
            let take = quote! {
                ::libipc::service::take_reply::<#ty>(&sent.reply, ::core::option::Option::Some(&[]))?
            };
            let len = quote!(::core::cmp::min(sent.reply_len, into.len()));
            let (ty, result) = if is_unit(ty) {
                (
                    quote!(usize),
                    quote!(#take; ::core::result::Result::Ok(#len)),
                )
            } else {
                (
                    quote!((#ty, usize)),
                    quote!(::core::result::Result::Ok((#take, #len))),
                )
            };
            Answer {
                into: Some(quote!(into: &mut [u8])),
                ty,
                reply_room: None,
                reply_buffer: quote!(into),
                result,
            }
        }
    }
}

/// Whether it is `()`.
pub(crate) fn is_unit(ty: &syn::Type) -> bool {
    matches!(ty, syn::Type::Tuple(tuple) if tuple.elems.is_empty())
}
