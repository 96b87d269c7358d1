//! The derives.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Error, Fields, Ident, Member, Result};

/// `#[derive(Argument)]`.
pub(crate) fn argument(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    without_parameters(input)?;
    let (consts, put, take, gone) = match &input.data {
        Data::Struct(data) => {
            let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
            let members: Vec<Member> = data.fields.members().collect();
            let argument: Vec<_> = types
                .iter()
                .map(|ty| quote_spanned!(ty.span()=> <#ty as ::libipc::service::Argument>))
                .collect();
            (
                quote! {
                    const NR_WORDS: usize = 0 #(+ #argument::NR_WORDS)*;
                    const NR_HANDLES: usize = 0 #(+ #argument::NR_HANDLES)*;
                    const HAS_VALUES: bool = false #(|| #argument::HAS_VALUES)*;
                },
                quote!(#(#argument::put(&self.#members, parcel);)*),
                quote!(::core::option::Option::Some(#name { #(#members: #argument::take(contents)?),* })),
                quote!(#(#argument::gone(self.#members);)*),
            )
        }
        Data::Enum(data) => {
            let variants = unit_variants(data)?;
            (
                quote!(
                    const NR_WORDS: usize = 1;
                ),
                quote!(parcel.word(match self { #(#name::#variants => #name::#variants as u64),* });),
                quote! {
                    match contents.word() {
                        #(word if word == #name::#variants as u64 => ::core::option::Option::Some(#name::#variants),)*
                        _ => ::core::option::Option::None,
                    }
                },
                quote!(),
            )
        }
        Data::Union(_) => return Err(Error::new(name.span(), "a union cannot go along")),
    };
    Ok(quote! {
        #[automatically_derived]
        impl ::libipc::service::Argument for #name {
            #consts

            #[inline]
            fn put(&self, parcel: &mut ::libipc::service::Parcel<'_>) {
                #put
            }

            #[inline]
            fn take(
                contents: &mut ::libipc::service::Contents<'_>,
            ) -> ::core::option::Option<Self> {
                #take
            }

            #[inline]
            fn gone(self) {
                #gone
            }
        }
    })
}

/// `#[derive(ErrorCode)]`.
pub(crate) fn error_code(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    without_parameters(input)?;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(
            name.span(),
            "the errors of a service are an enum",
        ));
    };
    let variants = unit_variants(data)?;
    let labels: Vec<_> = (1u32..).take(variants.len()).collect();
    Ok(quote! {
        #[automatically_derived]
        impl ::libipc::service::ErrorCode for #name {
            #[inline]
            fn to_label(&self) -> u32 {
                match *self { #(#name::#variants => #labels),* }
            }

            fn from_label(label: u32) -> ::core::option::Option<Self> {
                match label {
                    #(#labels => ::core::option::Option::Some(#name::#variants),)*
                    _ => ::core::option::Option::None,
                }
            }
        }
    })
}

fn without_parameters(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    let why = "what goes along in a message has no parameters";
    Err(Error::new(input.generics.span(), why))
}

fn unit_variants(data: &DataEnum) -> Result<Vec<&Ident>> {
    data.variants
        .iter()
        .map(|variant| match &variant.fields {
            Fields::Unit => Ok(&variant.ident),
            fields => Err(Error::new(
                fields.span(),
                "a word has no room for fields: implement `libipc::service::Value` for this enum",
            )),
        })
        .collect()
}
