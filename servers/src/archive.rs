//! The boot archive: files of a tar archive by path.

use tar_no_std::TarArchiveRef;

/// The files of an archive; nothing if it is not one.
pub fn entries(archive: &[u8]) -> impl Iterator<Item = (Path, &[u8])> {
    // The crate takes an archive's last two blocks, zeros, for granted.
    TarArchiveRef::new(archive)
        .into_iter()
        .flat_map(|archive| archive.entries())
        .filter_map(|entry| {
            let name = entry.filename();
            Some((Path::new(name.as_str().ok()?)?, entry.data()))
        })
}

/// The contents of the files with these paths. All at once, because reading an archive begins with checking all of it.
#[must_use]
pub fn find<'a, const N: usize>(archive: &'a [u8], paths: [&str; N]) -> [Option<&'a [u8]>; N] {
    let paths = paths.map(Path::new);
    let mut found = [None; N];
    for (name, data) in entries(archive) {
        let wanted = paths.iter().position(|path| path.as_ref() == Some(&name));
        if let Some(first @ None) = wanted.map(|number| &mut found[number]) {
            *first = Some(data);
        }
    }
    found
}

/// The longest path in bytes: what an archive has room for.
const MAX_PATH: usize = 100;

/// A path in its one form: components separated by `/`, without any at the beginning or the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(heapless::String<MAX_PATH>);

impl Path {
    /// Takes out empty components and `.`; `None` when it is too long, or contains `..`.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let mut clean = heapless::String::new();
        for component in path
            .split('/')
            .filter(|&part| !part.is_empty() && part != ".")
        {
            if component == ".." {
                return None;
            }
            if !clean.is_empty() {
                clean.push('/').ok()?;
            }
            clean.push_str(component).ok()?;
        }
        Some(Path(clean))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tar archive of these files.
    pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, data) in files {
            let mut header = [0u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..107].copy_from_slice(b"0000644");
            header[108..115].copy_from_slice(b"0000000");
            header[116..123].copy_from_slice(b"0000000");
            header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
            header[136..147].copy_from_slice(b"00000000000");
            header[148..156].copy_from_slice(b"        ");
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            archive.extend(header);
            archive.extend(*data);
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    #[test]
    fn files_are_found_by_any_spelling() {
        let archive = tar(&[("./bin/a", b"one"), ("bin/b", b"two")]);
        let paths = ["/bin/a", "bin//b", "/bin/c", "/bin/../bin/a"];
        let found = [Some(&b"one"[..]), Some(b"two"), None, None];
        assert_eq!(find(&archive, paths), found);
    }

    #[test]
    fn garbage_has_no_files() {
        assert_eq!(entries(&[]).count(), 0);
        assert_eq!(entries(&[0; 700]).count(), 0);
        assert_eq!(entries(&[0xa5; 4096]).count(), 0);
    }
}
