//! Makes the pages of the book, with mdBook as a library: `cowslip-book ROOT FOLDER`.
//!
//! A program of its own, so that only who wants the book builds mdBook: `cargo xtask book` and `cargo xtask check` start it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use mdbook_driver::MDBook;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (root, folder) = args
        .next()
        .zip(args.next())
        .context("usage: cowslip-book ROOT FOLDER")?;
    let mut book = MDBook::load(root)?;
    book.config.build.build_dir = folder;
    book.build()
}
