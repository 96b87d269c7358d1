//! The memory statistics server: passes the kernel's counters on.

use libipc::object::System;
use libipc::services::Refusal;
use libipc::services::memstat::{self, Memory};

/// The memory statistics server: a handle that needs `OBSERVE`.
#[derive(Debug)]
pub struct Memstat(pub System);

impl memstat::Memstat for Memstat {
    fn query(&self) -> Result<Memory, Refusal> {
        Ok(Memory::from_words(self.0.memory()?))
    }

    fn audit(&self) -> Result<[u64; 4], Refusal> {
        match self.0.audit() {
            Ok(flaw) => Ok(flaw.unwrap_or_default()),
            Err(libipc::Error::BadArgument) => Err(Refusal::NotFound),
            Err(error) => Err(error.into()),
        }
    }
}
