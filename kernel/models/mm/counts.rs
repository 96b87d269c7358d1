//! Of `kernel::mm::counts`, the entry.

use crate::atomic;

#[path = "../../src/mm/counts/entry.rs"]
#[expect(dead_code, reason = "the list of dead tables is not modelled")]
mod entry;

pub use entry::{Count, Dropped, PINNED, Sample};

/// In the place of the kernel's proof that a flush is done. Whether it is, is for the models to say.
#[derive(Debug)]
pub struct Flushed;
