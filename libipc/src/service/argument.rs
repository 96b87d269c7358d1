//! What can be an argument or a result, and how much of a message it takes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Contents, Parcel};
use crate::object::{Endpoint, Interrupt, Ports, Space, System, Thread};

/// What goes along in a message: a word, a handle, a value, or several of them.
///
/// `#[derive(libipc::Argument)]` makes one of a struct of arguments, and of an enum without fields, which is a word.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot go along in a message",
    label = "not an argument of a service",
    note = "derive `libipc::Argument` for structs of words and handles and for enums without fields",
    note = "derive `Serialize` and `Deserialize`, and implement `libipc::service::Value`, for what travels as bytes"
)]
pub trait Argument: Sized {
    /// How many of the four words it takes; two of them are the handles' if there are any.
    const NR_WORDS: usize = 0;
    /// How many of the four handles it takes.
    const NR_HANDLES: usize = 0;
    /// Whether it takes bytes.
    const HAS_VALUES: bool = false;

    /// Puts it into a message.
    fn put(&self, parcel: &mut Parcel<'_>);

    /// Takes it out of a message. `None` if what is there is none.
    fn take(contents: &mut Contents<'_>) -> Option<Self>;

    /// Its handles have moved to the other side: there is nothing to close here any more.
    #[inline]
    fn gone(self) {}
}

/// A value that travels as bytes, in the form of the crate `postcard`: up to [`MAX_VALUES`](super::MAX_VALUES) bytes, all
/// of a message together.
pub trait Value: Serialize + DeserializeOwned {}

impl<T: Value> Argument for T {
    const HAS_VALUES: bool = true;

    fn put(&self, parcel: &mut Parcel<'_>) {
        parcel.value(self);
    }

    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        contents.value()
    }
}

macro_rules! integers {
    ($($type:ty),+) => {$(
        impl Argument for $type {
            const NR_WORDS: usize = 1;

            #[inline]
            fn put(&self, parcel: &mut Parcel<'_>) {
                parcel.word(*self as u64);
            }

            /// A word that is out of range is none.
            #[inline]
            fn take(contents: &mut Contents<'_>) -> Option<Self> {
                let word = contents.word();
                let value = word as $type;
                (value as u64 == word).then_some(value)
            }
        }
    )+};
}

integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

impl Argument for bool {
    const NR_WORDS: usize = 1;

    #[inline]
    fn put(&self, parcel: &mut Parcel<'_>) {
        parcel.word(u64::from(*self));
    }

    #[inline]
    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        match contents.word() {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<const N: usize> Argument for [u64; N] {
    const NR_WORDS: usize = N;

    #[inline]
    fn put(&self, parcel: &mut Parcel<'_>) {
        self.iter().for_each(|&word| parcel.word(word));
    }

    #[inline]
    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        Some(core::array::from_fn(|_| contents.word()))
    }
}

/// A word that says whether it is there, and its words, which are 0 if it is not.
impl<T: Argument> Argument for Option<T> {
    const NR_WORDS: usize = {
        assert!(
            T::NR_HANDLES == 0 && !T::HAS_VALUES,
            "only words can be an option"
        );
        1 + T::NR_WORDS
    };

    #[inline]
    fn put(&self, parcel: &mut Parcel<'_>) {
        self.is_some().put(parcel);
        match self {
            Some(some) => some.put(parcel),
            None => (0..T::NR_WORDS).for_each(|_| parcel.word(0)),
        }
    }

    #[inline]
    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        if bool::take(contents)? {
            return T::take(contents).map(Some);
        }
        for _ in 0..T::NR_WORDS {
            contents.word();
        }
        Some(None)
    }
}

macro_rules! tuples {
    ($($($name:ident)*;)+) => {$(
        #[allow(
            non_snake_case,
            unused_variables,
            reason = "what is of type `A` is named `A`; and there is a tuple of nothing"
        )]
        impl<$($name: Argument),*> Argument for ($($name,)*) {
            const NR_WORDS: usize = 0 $(+ $name::NR_WORDS)*;
            const NR_HANDLES: usize = 0 $(+ $name::NR_HANDLES)*;
            const HAS_VALUES: bool = false $(|| $name::HAS_VALUES)*;

            #[inline]
            fn put(&self, parcel: &mut Parcel<'_>) {
                let ($($name,)*) = self;
                $($name.put(parcel);)*
            }

            #[inline]
            fn take(contents: &mut Contents<'_>) -> Option<Self> {
                Some(($($name::take(contents)?,)*))
            }

            #[inline]
            fn gone(self) {
                let ($($name,)*) = self;
                $($name.gone();)*
            }
        }
    )+};
}

tuples! {
    ;
    A;
    A B;
    A B C;
    A B C D;
}

macro_rules! objects {
    ($($type:ty),+) => {$(
        /// A handle.
        impl Argument for $type {
            const NR_HANDLES: usize = 1;

            #[inline]
            fn put(&self, parcel: &mut Parcel<'_>) {
                parcel.handle(self.handle());
            }

            #[inline]
            fn take(contents: &mut Contents<'_>) -> Option<Self> {
                let handle = contents.handle();
                (!handle.is_none()).then(|| Self::from_raw(handle))
            }

            #[inline]
            fn gone(self) {
                let _ = self.into_raw();
            }
        }
    )+};
}

objects!(Endpoint, Space, Thread, System, Interrupt, Ports);
