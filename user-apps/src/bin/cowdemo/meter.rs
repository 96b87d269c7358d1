//! Frames and time, measured and shown.

use alloc::format;
use alloc::string::String;

use libipc::services::Error;
use libipc::services::memstat::MemstatClient;
use libipc::{PAGE_SIZE, object, start};

/// What something cost.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// Frames that it took; fewer than none if it gave some back.
    pub(crate) frames: i64,
    pub(crate) ns: u64,
}

impl Cost {
    /// Frames, as wide as a column.
    pub(crate) fn frames(self) -> String {
        let sign = if self.frames < 0 { "-" } else { "" };
        format!("{sign}{}", grouped(self.frames.unsigned_abs()))
    }

    /// Time in a unit that leaves three or four digits.
    pub(crate) fn time(self) -> String {
        match self.ns {
            0..10_000 => format!("{} ns", grouped(self.ns)),
            10_000..10_000_000 => format!("{} us", grouped(self.ns / 1000)),
            _ => format!("{} ms", grouped(self.ns / 1_000_000)),
        }
    }
}

/// Free frames and the clock at some moment.
pub(crate) struct Meter {
    free: u64,
    ns: u64,
}

impl Meter {
    pub(crate) fn start() -> Result<Self, Error> {
        let free = free_frames()?;
        Ok(Meter {
            free,
            ns: object::clock()?.0,
        })
    }

    /// The time since then, while frames are still to be counted.
    pub(crate) fn elapsed(&self) -> Result<u64, Error> {
        Ok(object::clock()?.0.saturating_sub(self.ns))
    }

    pub(crate) fn frames(&self) -> Result<i64, Error> {
        Ok(self.free as i64 - free_frames()? as i64)
    }

    pub(crate) fn read(&self) -> Result<Cost, Error> {
        let ns = self.elapsed()?;
        Ok(Cost {
            frames: self.frames()?,
            ns,
        })
    }
}

/// What an action costs, and what it returns.
pub(crate) fn measured<T>(action: impl FnOnce() -> Result<T, Error>) -> Result<(Cost, T), Error> {
    let meter = Meter::start()?;
    let result = action()?;
    Ok((meter.read()?, result))
}

/// Whether there is room for so much written memory, with its tables and something to spare.
pub(crate) fn fits(len: usize) -> Result<bool, Error> {
    let needed = len / PAGE_SIZE + len / PAGE_SIZE / 256 + 2048;
    Ok(free_frames()? >= needed as u64)
}

pub(crate) fn free_frames() -> Result<u64, Error> {
    MemstatClient::borrow(start::memstat())
        .query()
        .map(|memory| memory.free)
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = format!("{number}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that divides them.
pub(crate) fn size(len: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units
        .into_iter()
        .find(|&(unit, _)| len > 0 && len.is_multiple_of(unit));
    unit.map_or_else(
        || format!("{len}"),
        |(unit, name)| format!("{} {name}", len / unit),
    )
}
