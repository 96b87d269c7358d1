//! The server's side: the trait, and what finds a request's method and answers with its result.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};

use crate::client::{is_unit, local, nr_handles, room_for};
use crate::define::{Argument, Kind, Method, Output, Service};

/// The trait, with the methods that every server may have; and what must hold of its messages.
pub(crate) fn interface(service: &Service) -> TokenStream {
    let mut item = service.item.clone();
    let receiver = if service.is_shared() {
        quote!(&self)
    } else {
        quote!(&mut self)
    };
    item.items.push(syn::parse_quote! {
        /// Bits that were raised at the server's endpoint.
        fn notification(#receiver, bits: u64) {
            let _ = bits;
        }
    });
    item.items.push(syn::parse_quote! {
        /// A fault of a thread that the server's endpoint supervises: the thread is killed.
        fn fault(#receiver, fault: ::libipc::Fault) {
            let _ = fault.decide(::libipc::abi::FaultVerdict::Kill);
        }
    });
    item.items.push(syn::parse_quote! {
        /// Whether the server has done what it is there for: asked after each event, it ends the loop.
        #[inline]
        fn is_done(&self) -> bool {
            false
        }
    });
    let limits = service.methods.iter().map(limits);
    let by_reference = service.is_shared().then(|| by_reference(service));
    quote!(#item #(#limits)* #by_reference)
}

/// Several threads serve one state by references.
fn by_reference(service: &Service) -> TokenStream {
    let interface = &service.item.ident;
    let methods = service.methods.iter().map(|method| {
        let (signature, name) = (&method.item.sig, &method.name);
        let arguments = method.arguments.iter().map(|argument| &argument.name);
        quote! {
            #[inline]
            #signature {
                (**self).#name(#(#arguments),*)
            }
        }
    });
    quote! {
        impl<S: #interface> #interface for &S {
            #(#methods)*

            fn notification(&self, bits: u64) {
                (**self).notification(bits);
            }

            fn fault(&self, fault: ::libipc::Fault) {
                (**self).fault(fault);
            }

            #[inline]
            fn is_done(&self) -> bool {
                (**self).is_done()
            }
        }
    }
}

impl Service {
    /// Whether several threads may serve it at a time.
    fn is_shared(&self) -> bool {
        self.methods.iter().all(|method| !method.is_mut)
    }
}

/// Says at compile time, and at the argument that is one too many, that a message has no room.
fn limits(method: &Method) -> TokenStream {
    let parcelled: Vec<_> = method
        .arguments
        .iter()
        .filter_map(|argument| Some((argument, argument.parcelled()?)))
        .collect();
    let types: Vec<_> = parcelled.iter().map(|&(_, ty)| ty).collect();
    let is_given = |argument: &Argument| matches!(argument.kind, Kind::Given(_));
    let given = parcelled.iter().filter(|(argument, _)| is_given(argument));
    let nr_given = nr_handles(given.map(|&(_, ty)| ty));
    let nr_all = nr_handles(types.iter().copied());
    let has_bytes = method
        .arguments
        .iter()
        .any(|argument| argument.kind.is_bytes());
    let arguments = parcelled.iter().enumerate().map(|(i, &(argument, ty))| {
        let span = argument.span;
        let before = &types[..=i];
        let ty = quote_spanned!(span=> <#ty as ::libipc::service::Argument>);
        let bytes = has_bytes.then(|| {
            quote_spanned! {span=>
                ::core::assert!(!#ty::HAS_VALUES, "a request has bytes, or values");
            }
        });
        let lent = (!is_given(argument)).then(|| {
            quote_spanned! {span=>
                ::core::assert!(
                    #ty::NR_HANDLES == 0 || #nr_given == 0,
                    "the handles of a request are all given, or all lent"
                );
            }
        });
        quote_spanned! {span=>
            ::core::assert!(
                ::libipc::service::fits(
                    ::libipc::service::sum(
                        &[#(<#before as ::libipc::service::Argument>::NR_WORDS),*]
                    ),
                    #nr_all
                ),
                "a request has four words, or two and four handles"
            );
            #bytes
            #lent
        }
    });
    let ty = method.output.parcelled();
    let span = syn::spanned::Spanned::span(&ty);
    let ty = quote_spanned!(span=> <#ty as ::libipc::service::Argument>);
    quote_spanned! {span=>
        const _: () = {
            #(#arguments)*
            ::core::assert!(
                ::libipc::service::fits(#ty::NR_WORDS, #ty::NR_HANDLES),
                "a result has four words, or two and four handles"
            );
        };
    }
}

/// The server's type, which dispatches.
pub(crate) fn server(service: &Service) -> TokenStream {
    let (interface, client, server) = (&service.item.ident, &service.client, &service.server);
    let vis = &service.item.vis;
    let doc = format!("Serves an [`{interface}`]: what `libipc::serve` takes.");
    let results = service
        .methods
        .iter()
        .filter(|method| !method.is_deferred());
    let results = results.filter_map(|method| match &method.output {
        Output::Given(ty) | Output::Lent(ty) => Some(ty),
        Output::Bytes(..) | Output::Pages => None,
    });
    let room_of_results = room_for(results);
    let gives_pages = service
        .methods
        .iter()
        .any(|method| matches!(method.output, Output::Pages) && !method.is_deferred());
    let (pages_field, pages_none) = if gives_pages {
        (
            quote! {
                /// The buffer of the last result, whose pages have left.
                pages: ::core::option::Option<::libipc::PageBuffer>,
            },
            quote!(pages: ::core::option::Option::None,),
        )
    } else {
        (quote!(), quote!())
    };
    let parcelled = service.methods.iter().flat_map(|method| &method.arguments);
    let room_of_requests = room_for(parcelled.filter_map(Argument::parcelled));
    let max_bytes = match &service.max_bytes {
        Some(max_bytes) => quote!(::core::cmp::Ord::max(#max_bytes, #room_of_requests)),
        None => room_of_requests,
    };
    let [incoming, data] = ["incoming", "data"].map(local);
    let selectors = service
        .methods
        .iter()
        .map(|method| selector(client, method));
    let arms = service.methods.iter().map(|method| arm(service, method));
    let nr_methods = service.methods.last().map_or(0, |method| method.number);
    quote! {
        #[doc = #doc]
        #[derive(Debug)]
        #vis struct #server<S> {
            /// What is served.
            pub state: S,
            /// Where the values of a result are until they are sent.
            room: [u8; #room_of_results],
            #pages_field
        }

        impl<S: #interface> #server<S> {
            /// A server of this.
            pub const fn new(state: S) -> Self {
                Self {
                    state,
                    room: [0; #room_of_results],
                    #pages_none
                }
            }
        }

        impl<S: #interface> ::libipc::server::Service for #server<S> {
            /// Each request says what it takes.
            fn takes_handles(&self) -> bool {
                true
            }

            fn max_bytes(&self) -> usize {
                #max_bytes
            }

            #[inline]
            fn message(
                &mut self,
                #incoming: ::libipc::Incoming,
                #data: &[u8],
            ) -> ::core::option::Option<::libipc::server::Answer<'_>> {
                #(#selectors)*
                match #incoming.message.tag.selects().0 {
                    #(#arms)*
                    _ => ::libipc::service::unknown(#incoming, #client::PROTOCOL, #nr_methods),
                }
            }

            fn notification(&mut self, bits: u64) {
                #interface::notification(&mut self.state, bits);
            }

            fn fault(&mut self, fault: ::libipc::Fault) {
                #interface::fault(&mut self.state, fault);
            }

            #[inline]
            fn is_done(&self) -> bool {
                #interface::is_done(&self.state)
            }
        }
    }
}

/// Defines the constant that requests of the method are told by: their label, and how many handles they have.
fn selector(client: &Ident, method: &Method) -> TokenStream {
    let label = &method.label;
    let nr_handles = nr_handles(method.arguments.iter().filter_map(Argument::parcelled));
    quote! {
        const #label: u64 =
            ::libipc::abi::Tag::new(#client::#label).with_handles(#nr_handles).0;
    }
}

/// What happens to a request of the method.
fn arm(service: &Service, method: &Method) -> TokenStream {
    let interface = &service.item.ident;
    let (name, label, error) = (&method.name, &method.label, &method.error);
    let [incoming, data, contents] = ["incoming", "data", "contents"].map(local);
    let sent: Vec<_> = method
        .arguments
        .iter()
        .filter(|argument| !matches!(argument.kind, Kind::Caller | Kind::Reply))
        .collect();
    let names = sent.iter().map(|argument| &argument.name);
    let takes = sent.iter().map(|argument| match &argument.kind {
        Kind::Bytes(ty) => {
            quote!(<#ty as ::libipc::service::Bytes<'_>>::from_bytes(#contents.bytes())?)
        }
        Kind::Pages => quote!(#contents.bytes()),
        _ => {
            let ty = argument.parcelled();
            quote!(<#ty as ::libipc::service::Argument>::take(#contents)?)
        }
    });
    let passed = method.arguments.iter().map(|argument| {
        let name = &argument.name;
        match &argument.kind {
            Kind::Caller => quote!(::libipc::service::Caller {
                badge: #incoming.badge
            }),
            Kind::Reply => quote!(::libipc::service::Reply::new(#incoming.token)),
            Kind::Given(_) | Kind::Bytes(_) | Kind::Pages => quote!(#name),
            Kind::Lent(_) => quote!(&#name),
        }
    });
    let receiver = if method.is_mut {
        quote!(&mut self.state)
    } else {
        quote!(&self.state)
    };
    let call = quote!(#interface::#name(#receiver, #(#passed),*));
    let answer = if method.is_deferred() {
        call
    } else {
        let result = if method.is_result {
            call
        } else {
            quote!(::core::result::Result::<_, #error>::Ok(#call))
        };
        match &method.output {
            Output::Given(_) => {
                quote!(::libipc::service::answer(#incoming.token, #result, &mut self.room))
            }
            Output::Lent(_) => {
                quote!(::libipc::service::answer_lent(#incoming.token, #result, &mut self.room))
            }
            Output::Pages => quote! {
                ::libipc::service::answer_pages(#incoming.token, #result, &mut self.pages)
            },
            Output::Bytes(ty, _) if is_unit(ty) => {
                let result = quote!(#result.map(|bytes| ((), bytes)));
                quote!(::libipc::service::answer_with(#incoming.token, #result))
            }
            Output::Bytes(..) => {
                quote!(::libipc::service::answer_with(#incoming.token, #result))
            }
        }
    };
    // Keeping them beyond the loop's buffer can fail for want of memory, of which the client hears.
    let pages = method.arguments.iter().filter_map(|argument| {
        let name = &argument.name;
        matches!(argument.kind, Kind::Pages).then(|| {
            quote! {
                let #name = match ::libipc::PageBuffer::copy_of(#name) {
                    ::core::result::Result::Ok(pages) => pages,
                    ::core::result::Result::Err(error) => {
                        return ::libipc::service::failed(#incoming.token, error);
                    }
                };
            }
        })
    });
    quote! {
        #label => {
            let ::core::option::Option::Some((#(#names,)*)) = ::libipc::service::open(
                &#incoming,
                #data,
                #[allow(unused_variables, reason = "a method may have no arguments")]
                |#contents| ::core::option::Option::Some((#(#takes,)*)),
            ) else {
                return ::libipc::service::malformed(#incoming.token);
            };
            #(#pages)*
            #answer
        }
    }
}
