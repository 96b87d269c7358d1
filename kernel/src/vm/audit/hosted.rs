//! Audits of tests on the host, which have a heap and stop at a flaw.

extern crate std;

use std::collections::BTreeMap;

use super::{Audit, Flaw, Ledger, Note, Stopped};
use crate::{
    mm::{Frame, Mm, OutOfMemory},
    vm::PageTable,
};

impl Ledger for BTreeMap<Frame, Note> {
    fn get(&self, frame: Frame) -> Option<Note> {
        self.get(&frame).copied()
    }

    fn set(&mut self, frame: Frame, note: Note) -> Result<(), OutOfMemory> {
        self.insert(frame, note);
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(Frame, Note) -> Result<(), Flaw>) -> Result<(), Flaw> {
        self.iter()
            .try_for_each(|(frame, note)| visit(*frame, *note))
    }
}

/// Walks all spaces and what is left of dead tables, and returns every frame that they name, and the
/// dead tables themselves.
///
/// `spaces` must be all that there are, and no operation may be going on.
///
/// # Panics
///
/// If there is a [`Flaw`].
#[must_use]
pub fn audit<'t>(
    mm: &Mm,
    spaces: impl IntoIterator<Item = &'t PageTable>,
) -> BTreeMap<Frame, Note> {
    let mut audit = Audit::new(mm, BTreeMap::new());
    let noted = spaces.into_iter().try_for_each(|space| audit.space(space));
    match noted.and_then(|()| audit.finish()) {
        Ok(ledger) => ledger,
        Err(Stopped::At(flaw)) => panic!("{flaw}"),
        Err(Stopped::OutOfMemory) => panic!("this ledger needs no frame"),
    }
}
