//! Files and directories by path. Pure but for the bytes of files, which somebody else holds.

use alloc::string::String;
use alloc::vec::Vec;

use libipc::services::Refusal;
use libipc::services::files::{Kind, Metadata};

use super::contents::Stored;
use super::path::Path;
use super::slab::{Slab, reserve};

/// The number of a file or a directory.
pub type NodeId = usize;

/// The directory that all paths begin at.
pub const ROOT: NodeId = 0;

/// A file or a directory.
#[derive(Debug)]
pub struct Node {
    name: String,
    parent: NodeId,
    /// Whether a path leads there. What is open may have none.
    pub is_linked: bool,
    /// Whether it is of the boot archive: then it never changes.
    pub is_constant: bool,
    /// How often it is open.
    pub nr_open: usize,
    /// The process that it is charged to.
    pub payer: u64,
    /// What it consists of.
    pub body: Body,
}

/// What a file or a directory consists of.
#[derive(Debug)]
pub enum Body {
    /// A file of the boot archive.
    Archived(&'static [u8]),
    /// A file.
    Stored(Stored),
    /// The entries of a directory, in the order of their names.
    Directory(Vec<NodeId>),
}

impl Node {
    /// Its name in its directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What there is to know of it.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        let (kind, size) = match &self.body {
            Body::Archived(bytes) => (Kind::File, bytes.len()),
            Body::Stored(stored) => (Kind::File, stored.len()),
            Body::Directory(entries) => (Kind::Directory, entries.len()),
        };
        Metadata {
            kind,
            size: size as u64,
            is_constant: self.is_constant,
        }
    }

    fn entries(&self) -> Result<&Vec<NodeId>, Refusal> {
        match &self.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Refusal::NotDirectory),
        }
    }
}

/// All files and directories.
#[derive(Debug)]
pub struct Tree {
    nodes: Slab<Node>,
}

/// Where a name is, or would be.
struct Place {
    directory: NodeId,
    /// The entry; or where in the order it would be.
    found: Result<NodeId, usize>,
}

impl Tree {
    /// An empty root.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new() -> Result<Self, Refusal> {
        let mut nodes = Slab::default();
        nodes.insert(Node {
            name: String::new(),
            parent: ROOT,
            is_linked: true,
            is_constant: false,
            nr_open: 0,
            payer: 0,
            body: Body::Directory(Vec::new()),
        })?;
        Ok(Tree { nodes })
    }

    /// Adds a file of the boot archive, and the directories on the way. One of two with the same path is left out.
    ///
    /// # Errors
    /// `NoMemory`; `NotDirectory` when a file is in the way.
    pub fn add_archived(&mut self, path: &Path<'_>, bytes: &'static [u8]) -> Result<(), Refusal> {
        let Some((directory, name)) = path.split_last() else {
            return Ok(());
        };
        let mut parent = ROOT;
        for name in directory {
            parent = match self.search(parent, name)? {
                Ok(node) => node,
                Err(position) => {
                    let body = Body::Directory(Vec::new());
                    self.add(parent, position, name, body, 0, true)?
                }
            };
        }
        match self.search(parent, name)? {
            Ok(_) => Ok(()),
            Err(position) => self
                .add(parent, position, name, Body::Archived(bytes), 0, true)
                .map(|_| ()),
        }
    }

    /// A node.
    ///
    /// # Errors
    /// `Broken` for a number that none has.
    pub fn get(&self, node: NodeId) -> Result<&Node, Refusal> {
        self.nodes.get(node).ok_or(Refusal::Broken)
    }

    /// A node, to be changed.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_mut(&mut self, node: NodeId) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(node).ok_or(Refusal::Broken)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn find(&self, path: &Path<'_>) -> Result<NodeId, Refusal> {
        self.walk(path.names())
    }

    fn walk(&self, names: &[&str]) -> Result<NodeId, Refusal> {
        names.iter().try_fold(ROOT, |directory, name| {
            self.search(directory, name)?.map_err(|_| Refusal::NotFound)
        })
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// `NotDirectory`.
    pub fn entries(&self, directory: NodeId) -> Result<impl Iterator<Item = &Node>, Refusal> {
        let entries = self.get(directory)?.entries()?;
        Ok(entries.iter().filter_map(|&node| self.nodes.get(node)))
    }

    /// A name in a directory: its node, or where it would be in the order.
    fn search(&self, directory: NodeId, name: &str) -> Result<Result<NodeId, usize>, Refusal> {
        let entries = self.get(directory)?.entries()?;
        let name_of = |&node: &NodeId| self.nodes.get(node).map_or("", Node::name);
        let position = entries.binary_search_by(|node| name_of(node).cmp(name));
        Ok(position.map(|position| entries[position]))
    }

    fn place(&self, path: &Path<'_>) -> Result<(Place, &Node), Refusal> {
        let (names, name) = path.split_last().ok_or(Refusal::IsDirectory)?;
        let directory = self.walk(names)?;
        let found = self.search(directory, name)?;
        Ok((Place { directory, found }, self.get(directory)?))
    }

    /// Makes something where there is nothing.
    ///
    /// # Errors
    /// `Taken`, `NotFound`, `NotDirectory`, `ReadOnly`, `NoMemory`.
    pub fn create(&mut self, path: &Path<'_>, body: Body, payer: u64) -> Result<NodeId, Refusal> {
        let (_, name) = path.split_last().ok_or(Refusal::Taken)?;
        let (place, directory) = self.place(path)?;
        let position = match place.found {
            Ok(_) => return Err(Refusal::Taken),
            Err(position) => position,
        };
        if directory.is_constant {
            return Err(Refusal::ReadOnly);
        }
        self.add(place.directory, position, name, body, payer, false)
    }

    fn add(
        &mut self,
        parent: NodeId,
        position: usize,
        name: &str,
        body: Body,
        payer: u64,
        is_constant: bool,
    ) -> Result<NodeId, Refusal> {
        let name = owned(name)?;
        reserve(self.entries_mut(parent)?, 1)?;
        let node = self.nodes.insert(Node {
            name,
            parent,
            is_linked: true,
            is_constant,
            nr_open: 0,
            payer,
            body,
        })?;
        self.entries_mut(parent)?.insert(position, node);
        Ok(node)
    }

    fn entries_mut(&mut self, directory: NodeId) -> Result<&mut Vec<NodeId>, Refusal> {
        match &mut self.get_mut(directory)?.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Refusal::NotDirectory),
        }
    }

    /// Takes a file, or an empty directory, out of its directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `ReadOnly`.
    pub fn unlink(&mut self, path: &Path<'_>) -> Result<NodeId, Refusal> {
        if path.split_last().is_none() {
            return Err(Refusal::ReadOnly);
        }
        let (place, _) = self.place(path)?;
        let node = place.found.map_err(|_| Refusal::NotFound)?;
        let is_empty = match &self.get(node)?.body {
            Body::Directory(entries) => entries.is_empty(),
            _ => true,
        };
        if self.get(node)?.is_constant {
            return Err(Refusal::ReadOnly);
        }
        if !is_empty {
            return Err(Refusal::NotEmpty);
        }
        self.detach(node)?;
        Ok(node)
    }

    fn detach(&mut self, node: NodeId) -> Result<(), Refusal> {
        let parent = self.get(node)?.parent;
        self.entries_mut(parent)?.retain(|&entry| entry != node);
        self.get_mut(node)?.is_linked = false;
        Ok(())
    }

    /// Gives what has one path another one. Returns the file that was there before, which has no path any more.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `ReadOnly`, `Taken`, `IsDirectory`, `BadRequest`, `NoMemory`: then nothing has changed.
    pub fn rename(&mut self, from: &Path<'_>, to: &Path<'_>) -> Result<Option<NodeId>, Refusal> {
        if from.split_last().is_none() {
            return Err(Refusal::ReadOnly);
        }
        let (_, name) = to.split_last().ok_or(Refusal::Taken)?;
        let name = owned(name)?;
        let node = self.place(from)?.0.found.map_err(|_| Refusal::NotFound)?;
        let (place, directory) = self.place(to)?;
        if directory.is_constant || self.get(node)?.is_constant {
            return Err(Refusal::ReadOnly);
        }
        if self.is_within(place.directory, node) {
            return Err(Refusal::BadRequest);
        }
        let replaced = match place.found {
            Ok(same) if same == node => return Ok(None),
            Ok(other) => Some(self.replaceable(other, node)?),
            Err(_) => None,
        };
        reserve(self.entries_mut(place.directory)?, 1)?;
        if let Some(replaced) = replaced {
            self.detach(replaced)?;
        }
        self.detach(node)?;
        let position = match self.search(place.directory, &name)? {
            Ok(_) => return Err(Refusal::Broken),
            Err(position) => position,
        };
        self.entries_mut(place.directory)?.insert(position, node);
        let moved = self.get_mut(node)?;
        (moved.name, moved.parent, moved.is_linked) = (name, place.directory, true);
        Ok(replaced)
    }

    /// A file, if a file is to take its place.
    fn replaceable(&self, old: NodeId, new: NodeId) -> Result<NodeId, Refusal> {
        match (&self.get(old)?.body, &self.get(new)?.body) {
            (Body::Directory(_), _) => Err(Refusal::Taken),
            (_, Body::Directory(_)) => Err(Refusal::IsDirectory),
            _ => Ok(old),
        }
    }

    /// Whether a directory is `outer`, or lies in it.
    fn is_within(&self, directory: NodeId, outer: NodeId) -> bool {
        let parent = |&node: &NodeId| {
            (node != ROOT)
                .then(|| self.nodes.get(node).map(|node| node.parent))
                .flatten()
        };
        core::iter::successors(Some(directory), parent).any(|node| node == outer)
    }

    /// Takes out a node that has no path and is not open.
    pub fn take_unused(&mut self, node: NodeId) -> Option<Node> {
        let is_unused = |node: &Node| !node.is_linked && node.nr_open == 0;
        match self.nodes.get(node).is_some_and(is_unused) {
            true => self.nodes.remove(node),
            false => None,
        }
    }
}

/// A text of one's own.
fn owned(text: &str) -> Result<String, Refusal> {
    let mut own = String::new();
    own.try_reserve_exact(text.len())
        .map_err(|_| Refusal::NoMemory)?;
    own.push_str(text);
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Path<'_> {
        Path::new(path).unwrap()
    }

    fn file() -> Body {
        Body::Stored(Stored::default())
    }

    fn directory() -> Body {
        Body::Directory(Vec::new())
    }

    /// `/a/b/`, `/a/f`, and `/bin/x` of the archive.
    fn tree() -> Tree {
        let mut tree = Tree::new().unwrap();
        tree.add_archived(&path("bin/x"), b"x").unwrap();
        tree.create(&path("/a"), directory(), 1).unwrap();
        tree.create(&path("/a/f"), file(), 1).unwrap();
        tree.create(&path("/a/b"), directory(), 1).unwrap();
        tree
    }

    fn names(tree: &Tree, directory: &str) -> Vec<String> {
        let directory = tree.find(&path(directory)).unwrap();
        let entries = tree.entries(directory).unwrap();
        entries.map(|node| node.name().into()).collect()
    }

    #[test]
    fn names_are_in_order() {
        let mut tree = tree();
        for name in ["/z", "/b", "/0"] {
            tree.create(&path(name), file(), 1).unwrap();
        }
        assert_eq!(names(&tree, "/"), ["0", "a", "b", "bin", "z"]);
        assert_eq!(names(&tree, "/a"), ["b", "f"]);
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        let mut tree = tree();
        let refused = |path: &str| tree.create(&self::path(path), file(), 1).unwrap_err();
        let mut refused = refused;
        assert_eq!(refused("/a/f"), Refusal::Taken);
        assert_eq!(refused("/"), Refusal::Taken);
        assert_eq!(refused("/a/f/g"), Refusal::NotDirectory);
        assert_eq!(refused("/no/g"), Refusal::NotFound);
        assert_eq!(refused("/bin/y"), Refusal::ReadOnly);
        let refused = |path: &str, tree: &mut Tree| tree.unlink(&self::path(path)).unwrap_err();
        assert_eq!(refused("/a", &mut tree), Refusal::NotEmpty);
        assert_eq!(refused("/", &mut tree), Refusal::ReadOnly);
        assert_eq!(refused("/bin", &mut tree), Refusal::ReadOnly);
        assert_eq!(refused("/bin/x", &mut tree), Refusal::ReadOnly);
        assert_eq!(refused("/a/g", &mut tree), Refusal::NotFound);
    }

    #[test]
    fn a_directory_moves_with_what_is_in_it() {
        let mut tree = tree();
        tree.create(&path("/a/b/deep"), file(), 1).unwrap();
        assert_eq!(tree.rename(&path("/a/b"), &path("/c")), Ok(None));
        assert!(tree.find(&path("/c/deep")).is_ok());
        assert_eq!(tree.find(&path("/a/b")), Err(Refusal::NotFound));
        assert_eq!(names(&tree, "/"), ["a", "bin", "c"]);
    }

    #[test]
    fn a_directory_does_not_move_into_itself() {
        let mut tree = tree();
        for to in ["/a/b/c", "/a/c", "/a/b/../c"] {
            assert_eq!(
                tree.rename(&path("/a"), &path(to)),
                Err(Refusal::BadRequest)
            );
        }
        assert_eq!(tree.rename(&path("/a"), &path("/a")), Ok(None));
        assert_eq!(names(&tree, "/a"), ["b", "f"]);
    }

    #[test]
    fn a_renamed_file_replaces_a_file_and_nothing_else() {
        let mut tree = tree();
        let old = tree.create(&path("/old"), file(), 1).unwrap();
        let new = tree.find(&path("/a/f")).unwrap();
        assert_eq!(tree.rename(&path("/a/f"), &path("/old")), Ok(Some(old)));
        assert_eq!(tree.find(&path("/old")), Ok(new));
        let rename = |tree: &mut Tree, from, to| tree.rename(&path(from), &path(to));
        assert_eq!(rename(&mut tree, "/old", "/a"), Err(Refusal::Taken));
        assert_eq!(rename(&mut tree, "/a", "/old"), Err(Refusal::IsDirectory));
        assert_eq!(rename(&mut tree, "/bin/x", "/x"), Err(Refusal::ReadOnly));
        assert_eq!(rename(&mut tree, "/old", "/bin/x"), Err(Refusal::ReadOnly));
        assert_eq!(rename(&mut tree, "/", "/x"), Err(Refusal::ReadOnly));
        assert_eq!(rename(&mut tree, "/none", "/x"), Err(Refusal::NotFound));
    }

    #[test]
    fn an_open_file_outlives_its_path() {
        let mut tree = tree();
        let node = tree.find(&path("/a/f")).unwrap();
        assert!(tree.take_unused(node).is_none());
        tree.get_mut(node).unwrap().nr_open = 1;
        assert_eq!(tree.unlink(&path("/a/f")), Ok(node));
        assert!(tree.take_unused(node).is_none());
        tree.get_mut(node).unwrap().nr_open = 0;
        assert!(tree.take_unused(node).is_some());
        assert!(tree.take_unused(node).is_none());
    }
}
