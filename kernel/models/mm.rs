//! What models need of `kernel::mm`.

pub mod counts;
