//! The client's side: a type around an endpoint, whose methods are calls.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Type;

use crate::define::{Argument, Kind, Method, Output, Service};

/// The client's type with its methods.
pub(crate) fn client(service: &Service) -> TokenStream {
    let (client, vis) = (&service.client, &service.item.vis);
    let (version, fingerprint) = (service.version, service.fingerprint);
    let doc = format!("A client of [`{}`].", service.item.ident);
    let protocol_doc = format!("What a server has to speak: version {version}.");
    let labels = service.methods.iter().map(|method| label(service, method));
    let methods = service.methods.iter().map(|one| method(service, one));
    quote! {
        #[doc = #doc]
        #[derive(Debug)]
        #vis struct #client<L = ::libipc::Endpoint>(L);

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
            pub const fn as_endpoint(&self) -> &::libipc::Endpoint {
                &self.0
            }

            /// The same client, for calls that give up at a deadline: they fail with `TimedOut`, and whether the server has
            /// done what they asked for, or will, is open.
            #[inline]
            #[must_use]
            pub const fn until(
                &self, deadline: ::libipc::time::Instant,
            ) -> #client<::libipc::service::Until<'_>> {
                #client(::libipc::service::Until::new(&self.0, deadline))
            }
        }

        #[allow(clippy::too_many_arguments, reason = "as many as the trait's")]
        impl<L: ::libipc::service::Link> #client<L> {
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

fn method(service: &Service, method: &Method) -> TokenStream {
    let (name, error) = (&method.name, &method.error);
    let [message, data, sent] = ["message", "data", "sent"].map(local);
    let attributes = method.item.attrs.iter();
    let docs = attributes.filter(|attribute| attribute.path().is_ident("doc"));
    let parameters = method.arguments.iter().filter_map(|argument| {
        let name = &argument.name;
        match &argument.kind {
            Kind::Caller | Kind::Reply => None,
            Kind::Given(ty) | Kind::Bytes(ty) => Some(quote!(#name: #ty)),
            Kind::Pages => Some(quote!(#name: ::libipc::PageBuffer)),
            Kind::Lent(ty) => Some(quote!(#name: &#ty)),
        }
    });
    let request = request(service, method);
    let gone = given(method).map(|(name, _)| name);
    let output = method.output.parcelled();
    let Answer {
        into,
        ty,
        reply_room,
        reply_buffer,
        result,
    } = answer(service, &method.output);
    quote! {
        #(#docs)*
        #[inline]
        pub fn #name(
            &self, #(#parameters,)* #into
        ) -> ::core::result::Result<#ty, ::libipc::service::Error<#error>> {
            #request
            #reply_room
            let #sent = ::libipc::service::ask::<#error>(
                &self.0,
                #message,
                #data,
                #reply_buffer,
                <#output as ::libipc::service::Argument>::NR_HANDLES,
            )?;
            #(::libipc::service::Argument::gone(#gone);)*
            #result
        }
    }
}

/// What makes the request: defines `message` and `data`.
fn request(service: &Service, method: &Method) -> TokenStream {
    let (client, label) = (&service.client, &method.label);
    let [room, parcel, message, values, data] =
        ["room", "parcel", "message", "values", "data"].map(local);
    let puts = method.arguments.iter().filter_map(|argument| {
        let (name, ty) = (&argument.name, argument.parcelled()?);
        let borrow = matches!(argument.kind, Kind::Given(_)).then(|| quote!(&));
        Some(quote_spanned! {argument.span=>
            <#ty as ::libipc::service::Argument>::put(#borrow #name, &mut #parcel);
        })
    });
    let room_len = room_for(method.arguments.iter().filter_map(Argument::parcelled));
    let nr_given = nr_handles(given(method).map(|(_, ty)| ty));
    let bytes = method.arguments.iter().find_map(|argument| {
        let name = &argument.name;
        match &argument.kind {
            Kind::Bytes(ty) => {
                let ty = quote!(<#ty as ::libipc::service::Bytes>);
                Some((quote!(#ty::bytes(&#name)), quote!(#ty::MOVES)))
            }
            Kind::Pages => Some((quote!(#name.as_slice()), quote!(true))),
            _ => None,
        }
    });
    let (bytes, moves_pages) = bytes.unwrap_or((quote!(#values), quote!(false)));
    quote! {
        let mut #room = [0; #room_len];
        #[allow(unused_mut, reason = "a method may have no arguments")]
        let mut #parcel = ::libipc::service::Parcel::new(&mut #room);
        #(#puts)*
        #[allow(unused_variables, reason = "a method may have bytes instead of values")]
        let (mut #message, #values) = #parcel.close(<#client>::#label)?;
        if const { #nr_given > 0 } {
            #message = #message.moving_handles();
        }
        if #moves_pages {
            #message = #message.moving_pages();
        }
        let #data: &[u8] = #bytes;
    }
}

/// The arguments that go to the server for good.
fn given(method: &Method) -> impl Iterator<Item = (&Ident, &Type)> {
    let arguments = method.arguments.iter();
    arguments.filter_map(|argument| match &argument.kind {
        Kind::Given(ty) => Some((&argument.name, ty)),
        _ => None,
    })
}

impl Argument {
    /// The type that is put into the parcel.
    pub(crate) fn parcelled(&self) -> Option<&Type> {
        match &self.kind {
            Kind::Given(ty) | Kind::Lent(ty) => Some(ty),
            Kind::Caller | Kind::Reply | Kind::Bytes(_) | Kind::Pages => None,
        }
    }
}

impl Output {
    /// The type that is put into the parcel.
    pub(crate) fn parcelled(&self) -> Type {
        match self {
            Output::Given(ty) | Output::Lent(ty) | Output::Bytes(ty, _) => ty.clone(),
            Output::Pages => syn::parse_quote!(()),
        }
    }
}

/// How much room values take, at most.
pub(crate) fn room_for<'a>(types: impl Iterator<Item = &'a Type>) -> TokenStream {
    quote!(::libipc::service::room(&[#(<#types as ::libipc::service::Argument>::HAS_VALUES),*]))
}

/// How many handles they have together.
pub(crate) fn nr_handles<'a>(types: impl Iterator<Item = &'a Type>) -> TokenStream {
    quote!(::libipc::service::sum(&[#(<#types as ::libipc::service::Argument>::NR_HANDLES),*]))
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

fn answer(service: &Service, output: &Output) -> Answer {
    let [values, sent, reply_room, into] = ["values", "sent", "reply_room", "into"].map(local);
    match output {
        Output::Given(ty) | Output::Lent(ty) => {
            let room_len = room_for(std::iter::once(ty));
            Answer {
                into: None,
                ty: quote!(#ty),
                reply_room: Some(quote!(let mut #reply_room = [0; #room_len];)),
                reply_buffer: quote!(&mut #reply_room),
                result: quote! {
                    let #values = #reply_room.get(..#sent.reply_len);
                    ::core::result::Result::Ok(
                        ::libipc::service::take_reply::<#ty>(#sent.reply, #values)?,
                    )
                },
            }
        }
        Output::Pages => {
            let max_bytes = &service.max_bytes;
            Answer {
                into: None,
                ty: quote!(::libipc::PageBuffer),
                reply_room: Some(quote!(let mut #into = ::libipc::PageBuffer::new(#max_bytes)?;)),
                reply_buffer: quote!(&mut #into),
                result: quote! {
                    ::libipc::service::take_reply::<()>(#sent.reply, ::core::option::Option::Some(&[]))?;
                    ::core::result::Result::Ok(::libipc::service::take_pages(#into, #sent.reply_len)?)
                },
            }
        }
        Output::Bytes(ty, _) => {
            let take = quote! {
                ::libipc::service::take_reply::<#ty>(#sent.reply, ::core::option::Option::Some(&[]))?
            };
            let len = quote!(::core::cmp::min(#sent.reply_len, #into.len()));
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
                into: Some(quote!(#into: &mut [u8])),
                ty,
                reply_room: None,
                reply_buffer: quote!(#into),
                result,
            }
        }
    }
}

/// A name that the arguments of a method can have as well.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Whether it is `()`.
pub(crate) fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}
