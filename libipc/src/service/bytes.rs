//! Bytes that go along as they are, without a length of their own.

/// The bytes of a request or a reply: one of them has at most one such.
pub trait Bytes<'a>: Sized {
    /// Whether whole private pages leave who sends them.
    const MOVES: bool = false;

    /// The bytes.
    fn bytes(&self) -> &'a [u8];

    /// Back from the bytes. `None` if they are none.
    fn from_bytes(bytes: &'a [u8]) -> Option<Self>;
}

/// Whole pages are shared copy-on-write if they begin at a page in both buffers; the rest is copied.
impl<'a> Bytes<'a> for &'a [u8] {
    #[inline]
    fn bytes(&self) -> &'a [u8] {
        self
    }

    #[inline]
    fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        Some(bytes)
    }
}

/// The same with text: what is no UTF-8 is none.
impl<'a> Bytes<'a> for &'a str {
    #[inline]
    fn bytes(&self) -> &'a [u8] {
        self.as_bytes()
    }

    #[inline]
    fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        core::str::from_utf8(bytes).ok()
    }
}

/// Bytes whose pages leave who sends them: whole private pages are demand-zero there afterwards, and the other
/// side need not copy a page to write to it.
#[derive(Debug)]
pub struct Moved<'a>(&'a [u8]);

impl<'a> Moved<'a> {
    /// The bytes of a buffer, which are given away.
    #[must_use]
    pub fn out_of(buffer: &'a mut [u8]) -> Self {
        Moved(buffer)
    }
}

impl core::ops::Deref for Moved<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl<'a> Bytes<'a> for Moved<'a> {
    const MOVES: bool = true;

    #[inline]
    fn bytes(&self) -> &'a [u8] {
        self.0
    }

    #[inline]
    fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        Some(Moved(bytes))
    }
}
