//! Machine code stays in few places: in the kernel below `arch` and `boot`, and where frames are
//! copied; in user space in `libipc` and in the programs that test what a program may not do.

use anyhow::Result;

use super::source::{Source, sources};

/// The folders that are looked at.
const FOLDERS: &[&str] = &["apps", "kernel/src", "libipc", "servers", "user-apps"];

/// What gives access to the machine.
const WORDS: &[&str] = &[
    "asm!",
    "naked_asm!",
    "global_asm!",
    "core::arch::",
    "x86_64::",
];

/// Where that is allowed, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("kernel/src/arch/", "the machine"),
    ("kernel/src/boot/", "the doors into the kernel"),
    (
        "kernel/src/mm/phys/bare.rs",
        "string instructions copy pages and messages",
    ),
    (
        "libipc/src/",
        "the system call, and a program's first instructions",
    ),
    (
        "user-apps/src/bench/",
        "benchmarks read the time-stamp counter",
    ),
    (
        "user-apps/src/bin/crash",
        "does on purpose what is forbidden",
    ),
    (
        "user-apps/src/bin/test",
        "test programs try what is forbidden",
    ),
];

/// All places that use machine code and may not.
pub(super) fn check() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        complaints.extend(sources(folder)?.iter().flat_map(complaints_about));
    }
    Ok(complaints)
}

fn complaints_about(source: &Source) -> Vec<String> {
    if ALLOWED
        .iter()
        .any(|(place, _)| source.path.starts_with(place))
    {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for word in WORDS {
        lines.extend(
            source
                .find(word)
                .map(|offset| (source.line_at(offset), word)),
        );
    }
    lines.sort();
    lines.dedup_by_key(|(line, _)| *line);
    let told = lines
        .iter()
        .map(|(line, word)| format!("{}:{line}: `{word}` does not belong here", source.path));
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, code: &str) -> Vec<String> {
        complaints_about(&Source {
            path: path.into(),
            code: code.into(),
        })
    }

    #[test]
    fn machine_code_is_found_outside_its_places() {
        let code = "fn f() {\n    core::arch::asm!()\n}";
        assert_eq!(complaints("kernel/src/vm/map.rs", code).len(), 1);
        assert!(complaints("kernel/src/vm/map.rs", code)[0].starts_with("kernel/src/vm/map.rs:2:"));
        assert_eq!(
            complaints("servers/src/lib.rs", "x86_64::instructions::hlt()").len(),
            1
        );
        assert!(complaints("kernel/src/arch/cpu.rs", code).is_empty());
        assert!(complaints("kernel/src/vm/map.rs", "let plasm = 1;").is_empty());
    }
}
