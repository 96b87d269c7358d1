//! Reads `limine.conf`, the one place that names the kernel, its modules and the base command
//! line, for the doors that Limine does not open itself.

use anyhow::{Context, Result, bail};

use crate::workspace::root;

/// The first entry of a `limine.conf`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The kernel's path on the boot volume.
    pub(crate) kernel: String,
    /// The modules' paths on the boot volume.
    pub(crate) modules: Vec<String>,
    /// The base command line.
    pub(crate) cmdline: String,
}

/// The text of the workspace's `limine.conf`.
pub(crate) fn text() -> Result<String> {
    std::fs::read_to_string(root().join("limine.conf")).context("cannot read limine.conf")
}

/// The entry of the workspace's `limine.conf`, which has exactly one module: the boot archive.
pub(crate) fn entry() -> Result<Entry> {
    let entry = parse(&text()?)?;
    if entry.modules.len() != 1 {
        bail!(
            "limine.conf: the direct door takes one module, not {}",
            entry.modules.len()
        );
    }
    Ok(entry)
}

/// Parses the options of the first entry.
fn parse(text: &str) -> Result<Entry> {
    let mut kernel = None;
    let mut modules = Vec::new();
    let mut cmdline = String::new();
    let lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with('/'))
        .skip(1);
    for line in lines.take_while(|line| !line.starts_with('/')) {
        let Some((key, value)) = option(line) else {
            continue;
        };
        match key {
            "path" | "kernel_path" => kernel = Some(volume_path(value)?),
            "module_path" => modules.push(volume_path(value)?),
            "cmdline" | "kernel_cmdline" => cmdline = value.to_owned(),
            _ => {}
        }
    }
    let kernel = kernel.context("limine.conf: the first entry has no path")?;
    Ok(Entry {
        kernel,
        modules,
        cmdline,
    })
}

/// The text of a `limine.conf` with another command line in every entry.
pub(crate) fn with_cmdline(text: &str, cmdline: &str) -> String {
    let mut edited = String::new();
    for line in text.lines() {
        match option(line.trim()) {
            Some(("cmdline", _)) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                edited += &format!("{indent}cmdline: {cmdline}\n");
            }
            _ => edited += &format!("{line}\n"),
        }
    }
    edited
}

/// `key: value`, unless the line is empty or a comment.
fn option(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    (!key.starts_with('#')).then(|| (key.trim(), value.trim()))
}

/// The path within `boot():/path`: nothing but the boot volume has a meaning here.
fn volume_path(uri: &str) -> Result<String> {
    match uri.strip_prefix("boot():") {
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        _ => bail!("limine.conf: {uri} is not of the form boot():/PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment: x\ntimeout: 0\n\n/Cowslip\n    protocol: limine\n    kernel_path: boot():/boot/k\n    \
                        module_path: boot():/boot/a.tar\n    cmdline: log=warn a=b\n/Other\n    path: x\n";

    #[test]
    fn first_entry_is_read() {
        let entry = Entry {
            kernel: "/boot/k".into(),
            modules: vec!["/boot/a.tar".into()],
            cmdline: "log=warn a=b".into(),
        };
        assert_eq!(parse(TEXT).unwrap(), entry);
    }

    #[test]
    fn command_line_is_replaced_in_place() {
        let edited = with_cmdline(TEXT, "log=debug -- hello");
        assert_eq!(parse(&edited).unwrap().cmdline, "log=debug -- hello");
        assert_eq!(edited.lines().count(), TEXT.lines().count());
    }

    #[test]
    fn entry_without_kernel_is_refused() {
        assert!(parse("timeout: 0\n").is_err());
        assert!(parse("/A\npath: hdd(0:1):/k\n").is_err());
    }

    #[test]
    fn the_workspaces_own_file_is_good() {
        entry().unwrap();
    }
}
