//! What a kernel has recorded, read out of its machine's memory.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cowslip_abi::{TRACE_MAGIC, TRACE_SYMBOL, TraceHeader, TraceRecord};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Object, ObjectSymbol, elf};

/// Everything that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recording {
    /// Ticks per second of the clock in the records.
    pub(crate) ticks_per_s: u64,
    /// The records, the earliest first.
    pub(crate) records: Vec<TraceRecord>,
    /// How many more there would be, had there been room.
    pub(crate) nr_lost: u64,
}

impl Recording {
    /// What the kernel in this file has recorded in a machine with this memory.
    pub(crate) fn read(kernel: &Path, memory: &Path) -> Result<Recording> {
        let image = std::fs::read(kernel)
            .with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
        let start = place(&image).context("the kernel is not one that records")?;
        let mut memory = File::open(memory).context("the machine has left no memory")?;
        memory.seek(SeekFrom::Start(start))?;
        Self::decode(BufReader::new(memory))
    }

    /// The same, where the header begins.
    fn decode(mut from: impl Read) -> Result<Recording> {
        let [magic, ticks_per_s, nr_slots, nr_records, ..] = words(&mut from)?;
        if magic != TRACE_MAGIC {
            bail!("the machine ended before its kernel began to record");
        }
        if ticks_per_s == 0 {
            bail!("the kernel has not said how fast its clock is");
        }
        let nr_kept = nr_records.min(nr_slots);
        let mut records = Vec::new();
        for _ in 0..nr_kept {
            let record = TraceRecord::from_words(words(&mut from)?);
            // A CPU may have been stopped before it completed its last one.
            if record.kind().is_some() {
                records.push(record);
            }
        }
        // Two CPUs may have taken their slots in another order than that in which they had looked at the clock.
        records.sort_by_key(|record| record.ticks);
        Ok(Recording {
            ticks_per_s,
            records,
            nr_lost: nr_records - nr_kept,
        })
    }
}

const _: () = assert!(size_of::<TraceHeader>() == 8 * 8 && size_of::<TraceRecord>() == 8 * 8);

fn words(from: &mut impl Read) -> Result<[u64; 8]> {
    let mut words = [0; 8];
    for word in &mut words {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)
            .context("the machine's memory is cut off")?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

/// The physical address of the header, where the direct door puts this kernel.
fn place(kernel: &[u8]) -> Option<u64> {
    let file = ElfFile64::<object::Endianness>::parse(kernel).ok()?;
    let symbol = file.symbol_by_name(TRACE_SYMBOL)?;
    let endian = file.endian();
    let mut segments = file.elf_program_headers().iter();
    let loaded = segments.find(|segment| segment.p_type(endian) == elf::PT_LOAD)?;
    let distance = loaded.p_vaddr(endian) - loaded.p_paddr(endian);
    symbol.address().checked_sub(distance)
}

#[cfg(test)]
mod tests {
    use cowslip_abi::TraceKind;

    use super::*;

    fn memory(nr_slots: u64, nr_records: u64, ticks: &[u64]) -> Vec<u8> {
        let header = [TRACE_MAGIC, 1_000_000, nr_slots, nr_records, 0, 0, 0, 0];
        let record = |&ticks: &u64| {
            let kind = if ticks == 0 {
                0
            } else {
                TraceKind::Idle as u64
            };
            [ticks, kind, 0, 0, 0, 0, 0, 0]
        };
        let records = ticks.iter().flat_map(record);
        let words = header.into_iter().chain(records);
        words.flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn records_come_in_the_order_of_time() {
        let recording = Recording::decode(&memory(4, 3, &[5, 9, 7])[..]).unwrap();
        let ticks: Vec<_> = recording
            .records
            .iter()
            .map(|record| record.ticks)
            .collect();
        assert_eq!((ticks, recording.nr_lost), (vec![5, 7, 9], 0));
    }

    #[test]
    fn what_was_lost_is_known_and_what_is_incomplete_is_left_out() {
        let recording = Recording::decode(&memory(3, 10, &[5, 0, 7])[..]).unwrap();
        assert_eq!((recording.records.len(), recording.nr_lost), (2, 7));
    }

    #[test]
    fn memory_without_a_recording_is_an_error() {
        assert!(Recording::decode(&[0; 64][..]).is_err());
        assert!(Recording::decode(&memory(3, 3, &[5])[..]).is_err());
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(place(&own), None);
    }
}
