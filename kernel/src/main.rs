//! The kernel's executable.
fn main() {}
