//! One way in, one way down: a kernel module imports only from its own row and the rows below.

use anyhow::Result;

use super::source::{Source, sources};

/// The kernel's top-level modules, from top to bottom.
const LAYERS: &[&[&str]] = &[
    // The machine and the way in: they see everything, and nothing sees them.
    &["main", "boot", "arch"],
    // Decode, dispatch, encode.
    &["sys"],
    // Messages.
    &["ipc"],
    // What handles name, and who runs.
    &["object", "sched"],
    // What the machine must offer.
    &["platform"],
    // Address spaces.
    &["vm"],
    // Frames.
    &["mm"],
    // CPUs that wait for each other.
    &["sync"],
    // What all of them tell.
    &["trace"],
];

/// Imports against the direction that are allowed: the file, the module it imports, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

const FOLDER: &str = "kernel/src";

/// All imports from above, and modules that have no row.
pub(super) fn check() -> Result<Vec<String>> {
    Ok(sources(FOLDER)?.iter().flat_map(complaints).collect())
}

fn complaints(source: &Source) -> Vec<String> {
    let module = top_module(&source.path);
    if module == "lib" {
        return Vec::new();
    }
    let Some(row) = row_of(module) else {
        return vec![format!(
            "{}: the module `{module}` has no row in the table of layers",
            source.path
        )];
    };
    let from_above = imports(source).into_iter().filter(|(_, import)| {
        row_of(import).is_some_and(|imported| imported < row) && !is_exception(&source.path, import)
    });
    from_above
        .map(|(offset, import)| {
            let line = source.line_at(offset);
            format!(
                "{}:{line}: `{module}` imports from `{import}`, which stands above it",
                source.path
            )
        })
        .collect()
}

/// The top-level module of a file: `mm` for `kernel/src/mm/frames.rs`.
fn top_module(path: &str) -> &str {
    let below = path
        .strip_prefix(FOLDER)
        .unwrap_or(path)
        .trim_start_matches('/');
    below
        .split('/')
        .next()
        .unwrap_or(below)
        .trim_end_matches(".rs")
}

/// How many modules deep a file is below the crate's root.
fn depth(path: &str) -> usize {
    let below = path
        .strip_prefix(FOLDER)
        .unwrap_or(path)
        .trim_start_matches('/');
    let parts = below.split('/').count();
    if below.ends_with("/mod.rs") {
        parts - 1
    } else {
        parts
    }
}

fn row_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn is_exception(path: &str, import: &str) -> bool {
    EXCEPTIONS
        .iter()
        .any(|(file, module, _)| *file == path && *module == import)
}

/// Names right below the crate's root that the file mentions, with their offsets.
fn imports(source: &Source) -> Vec<(usize, &str)> {
    let up = "super::".repeat(depth(&source.path));
    let mut found = Vec::new();
    for prefix in ["crate::", &up] {
        for offset in source.find(prefix) {
            let names = first_names(&source.code[offset + prefix.len()..]);
            found.extend(names.into_iter().map(|name| (offset, name)));
        }
    }
    found
}

/// The first name of a path, or of every path in a group: `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(path: &str) -> Vec<&str> {
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return vec![first_name(path)];
    };
    let mut names = vec![first_name(group)];
    let mut depth = 0;
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> &str {
    let path = path.trim_start();
    let end = path
        .find(|char: char| !char.is_alphanumeric() && char != '_')
        .unwrap_or(path.len());
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints_about(path: &str, code: &str) -> Vec<String> {
        complaints(&Source {
            path: path.into(),
            code: code.into(),
        })
    }

    #[test]
    fn downward_is_fine() {
        assert!(complaints_about("kernel/src/sys/mod.rs", "use crate::{ipc::x, vm};").is_empty());
        assert!(complaints_about("kernel/src/vm/map.rs", "use crate::mm::Frames;").is_empty());
        assert!(complaints_about("kernel/src/main.rs", "crate::arch::halt()").is_empty());
    }

    #[test]
    fn upward_is_told_with_its_line() {
        let told = complaints_about(
            "kernel/src/mm/frames.rs",
            "\nuse crate::{mm::y, vm::{self}};",
        );
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("kernel/src/mm/frames.rs:2: `mm` imports from `vm`"));
        assert_eq!(
            complaints_about("kernel/src/ipc.rs", "crate::arch::halt()").len(),
            1
        );
    }

    #[test]
    fn ways_around_crate_are_seen() {
        let code = "use super::super::sys::Call; use super::entry;";
        assert_eq!(complaints_about("kernel/src/vm/map.rs", code).len(), 1);
        assert_eq!(
            complaints_about("kernel/src/vm/mod.rs", "use super::sys::Call;").len(),
            1
        );
    }

    #[test]
    fn every_module_needs_a_row() {
        assert_eq!(complaints_about("kernel/src/novel/mod.rs", "").len(), 1);
    }

    #[test]
    fn names_of_a_group_are_its_first_ones() {
        assert_eq!(first_names("{a::{b, c}, d, e::f}; g, h"), ["a", "d", "e"]);
        assert_eq!(first_names("a::{b, c}"), ["a"]);
    }
}
