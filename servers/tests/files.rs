//! The file server against a model that has nothing but maps and vectors: random requests of two processes.
//!
//! After each request the answer must be the model's; after the last one all files and directories, and what is charged for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use libipc::services::files::{Entry, FilesClient, FilesServer, Kind, Options, Whence};
use libipc::services::{Error, Refusal};
use libipc::{Borrowed, Handle, fake};
use proptest::prelude::*;
use servers::files::Files;
use servers::files::clients::{Limits, Usage};
use servers::files::memory::{Machine, Memory, Mover};

/// Paths that requests are about.
const PATHS: [&str; 8] = ["/a", "/b", "/d", "/d/a", "/d/b", "/d/e", "/d/e/a", "/e"];

/// How many files are open at a time.
const NR_OPEN: usize = 4;

const PROCESSES: [u64; 2] = [7, 8];

#[derive(Clone, Debug)]
enum Request {
    Open {
        slot: usize,
        process: usize,
        path: usize,
        options: u32,
    },
    Close(usize),
    Read(usize, usize),
    Write(usize, usize, u8),
    ReadAt(usize, u64, usize),
    WriteAt(usize, u64, usize, u8),
    SetLen(usize, u64),
    Seek(usize, u64, i64),
    CreateDir(usize),
    Remove(usize),
    Rename(usize, usize),
    List(usize),
}

/// Lengths, and places, around the borders of pages and slots.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..40_usize,
        2 => 4090..4100_usize,
        1 => 8180..8200_usize,
        1 => 65_530..65_540_usize,
    ]
}

/// The same, and now and then one in the largest slot.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![20 => len(), 1 => Just((2 << 20) + 1)]
}

fn request() -> impl Strategy<Value = Request> {
    let slot = || 0..NR_OPEN;
    let path = || 0..PATHS.len();
    prop_oneof![
        6 => (slot(), 0..2_usize, path(), 0..64_u32).prop_map(|(slot, process, path, options)| {
            Request::Open { slot, process, path, options: options | 1 }
        }),
        2 => slot().prop_map(Request::Close),
        3 => (slot(), len()).prop_map(|(slot, len)| Request::Read(slot, len)),
        4 => (slot(), len(), any::<u8>()).prop_map(|(s, len, byte)| Request::Write(s, len, byte)),
        3 => (slot(), place(), len()).prop_map(|(s, at, len)| Request::ReadAt(s, at as u64, len)),
        4 => (slot(), place(), len(), any::<u8>())
            .prop_map(|(s, at, len, byte)| Request::WriteAt(s, at as u64, len, byte)),
        2 => (slot(), place()).prop_map(|(slot, len)| Request::SetLen(slot, len as u64)),
        2 => (slot(), 0..3_u64, -50..50_i64).prop_map(|(s, from, by)| Request::Seek(s, from, by)),
        3 => path().prop_map(Request::CreateDir),
        2 => path().prop_map(Request::Remove),
        3 => (path(), path()).prop_map(|(from, to)| Request::Rename(from, to)),
        1 => path().prop_map(Request::List),
    ]
}

type FileId = usize;

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Directory,
    File(FileId),
}

#[derive(Clone, Debug)]
struct Open {
    process: u64,
    id: u32,
    file: FileId,
    options: Options,
    place: u64,
}

/// What there should be.
struct Model {
    nodes: BTreeMap<String, Node>,
    /// Never given up, as nobody looks at those without a path but who has them open.
    files: Vec<Vec<u8>>,
    open: [Option<Open>; NR_OPEN],
}

type Outcome<T> = Result<T, Refusal>;

impl Model {
    fn new() -> Self {
        Model {
            nodes: BTreeMap::new(),
            files: Vec::new(),
            open: Default::default(),
        }
    }

    /// The directories on the way to a path must be there.
    fn way(&self, path: &str) -> Outcome<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends {
            match self.nodes.get(&path[..end]) {
                Some(Node::Directory) => {}
                Some(Node::File(_)) => return Err(Refusal::NotDirectory),
                None => return Err(Refusal::NotFound),
            }
        }
        Ok(())
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.nodes.keys().any(|other| other.starts_with(&below))
    }

    fn open(&mut self, path: &str, options: Options) -> Outcome<FileId> {
        self.way(path)?;
        let file = match self.nodes.get(path) {
            Some(_) if options.contains(Options::CREATE | Options::EXCLUSIVE) => {
                return Err(Refusal::Taken);
            }
            Some(Node::Directory) => return Err(Refusal::IsDirectory),
            Some(Node::File(file)) => *file,
            None if options.contains(Options::CREATE) => {
                self.files.push(Vec::new());
                let file = self.files.len() - 1;
                self.nodes.insert(path.into(), Node::File(file));
                file
            }
            None => return Err(Refusal::NotFound),
        };
        if options.contains(Options::TRUNCATE) {
            self.files[file].clear();
        }
        Ok(file)
    }

    fn create_dir(&mut self, path: &str) -> Outcome<()> {
        self.way(path)?;
        if self.nodes.contains_key(path) {
            return Err(Refusal::Taken);
        }
        self.nodes.insert(path.into(), Node::Directory);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Outcome<()> {
        self.way(path)?;
        if !self.nodes.contains_key(path) {
            return Err(Refusal::NotFound);
        }
        if self.has_children(path) {
            return Err(Refusal::NotEmpty);
        }
        self.nodes.remove(path);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Outcome<()> {
        self.way(from)?;
        let node = self.nodes.get(from).cloned().ok_or(Refusal::NotFound)?;
        self.way(to)?;
        if to.starts_with(&format!("{from}/")) {
            return Err(Refusal::BadRequest);
        }
        if from == to {
            return Ok(());
        }
        match (self.nodes.get(to), &node) {
            (Some(Node::Directory), _) => return Err(Refusal::Taken),
            (Some(Node::File(_)), Node::Directory) => return Err(Refusal::IsDirectory),
            _ => {}
        }
        let below = format!("{from}/");
        let moved: Vec<_> = self
            .nodes
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes
                    .insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        Ok(())
    }

    fn list(&self, path: &str) -> Outcome<Vec<(String, Kind, u64)>> {
        self.way(path)?;
        match self.nodes.get(path) {
            None => return Err(Refusal::NotFound),
            Some(Node::File(_)) => return Err(Refusal::NotDirectory),
            Some(Node::Directory) => {}
        }
        let below = format!("{path}/");
        let nr_children = |path: &str| {
            let below = format!("{path}/");
            let children = self.nodes.keys();
            children
                .filter(|other| other.starts_with(&below) && !other[below.len()..].contains('/'))
                .count() as u64
        };
        let names = self.nodes.iter().filter_map(|(path, node)| {
            let name = path
                .strip_prefix(&below)
                .filter(|name| !name.contains('/'))?;
            Some(match node {
                Node::Directory => (name.into(), Kind::Directory, nr_children(path)),
                Node::File(file) => (name.into(), Kind::File, self.files[*file].len() as u64),
            })
        });
        Ok(names.collect())
    }
}

fn part(bytes: &[u8], at: u64, len: usize) -> &[u8] {
    let rest = bytes.get(at as usize..).unwrap_or_default();
    &rest[..len.min(rest.len())]
}

fn write(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if new.is_empty() {
        return;
    }
    let len = bytes.len().max(at + new.len());
    bytes.resize(len, 0);
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Bytes that tell where they are.
fn bytes(len: usize, byte: u8) -> Vec<u8> {
    (0..len).map(|at| byte.wrapping_add(at as u8)).collect()
}

fn client(process: u64) -> Borrowed<'static, FilesClient> {
    FilesClient::borrow(Handle(process as u32))
}

fn refusal<T>(outcome: Result<T, Error>) -> Outcome<T> {
    outcome.map_err(|error| match error {
        Error::Refused(refusal) => refusal,
        other => panic!("{other}"),
    })
}

fn read(outcome: impl FnOnce(&mut [u8]) -> Result<usize, Error>, len: usize) -> Outcome<Vec<u8>> {
    let mut buffer = vec![0; len];
    let len = refusal(outcome(&mut buffer))?;
    buffer.truncate(len);
    Ok(buffer)
}

fn list(path: &str) -> Outcome<Vec<(String, Kind, u64)>> {
    let mut listed = Vec::new();
    loop {
        // Room for few at a time.
        let mut room = [0; 30];
        let skip = listed.len();
        let (count, len) = refusal(client(7).list(path, skip, room.len(), &mut room))?;
        let mut rest = &room[..len];
        while let Some((entry, next)) = Entry::split(rest) {
            listed.push((entry.name.to_owned(), entry.kind, entry.size));
            rest = next;
        }
        if count == 0 {
            return Ok(listed);
        }
    }
}

/// Makes a request of both, and compares.
fn request_both(request: &Request, model: &mut Model) {
    match *request {
        Request::Open {
            slot,
            process,
            path,
            options,
        } => {
            let (process, path) = (PROCESSES[process], PATHS[path]);
            let options = Options::from_bits_truncate(options);
            let opened = refusal(client(process).open(options, path));
            let expected = model.open(path, options);
            assert_eq!(opened.map(|_| ()), expected.map(|_| ()));
            if let (Ok(opened), Ok(file)) = (opened, expected) {
                assert_eq!(opened.size, model.files[file].len() as u64);
                close(slot, model);
                model.open[slot] = Some(Open {
                    process,
                    id: opened.id,
                    file,
                    options,
                    place: 0,
                });
            }
        }
        Request::Close(slot) => close(slot, model),
        Request::CreateDir(path) => {
            let made = refusal(client(7).create_dir(PATHS[path]));
            assert_eq!(made, model.create_dir(PATHS[path]));
        }
        Request::Remove(path) => {
            let removed = refusal(client(8).remove(PATHS[path]));
            assert_eq!(removed, model.remove(PATHS[path]));
        }
        Request::Rename(from, to) => {
            let paths = format!("{}\0{}", PATHS[from], PATHS[to]);
            let renamed = refusal(client(8).rename(&paths));
            assert_eq!(renamed, model.rename(PATHS[from], PATHS[to]));
        }
        Request::List(path) => assert_eq!(list(PATHS[path]), model.list(PATHS[path])),
        Request::Read(slot, _)
        | Request::Write(slot, ..)
        | Request::ReadAt(slot, ..)
        | Request::WriteAt(slot, ..)
        | Request::SetLen(slot, _)
        | Request::Seek(slot, ..) => {
            if let Some(open) = &mut model.open[slot] {
                on_open(request, open, &mut model.files);
            }
        }
    }
}

fn close(slot: usize, model: &mut Model) {
    if let Some(Open { process, id, .. }) = model.open[slot].take() {
        assert_eq!(client(process).close(id), Ok(()));
        assert_eq!(refusal(client(process).close(id)), Err(Refusal::NotOpen));
    }
}

/// A request about something open.
fn on_open(request: &Request, open: &mut Open, files: &mut [Vec<u8>]) {
    let Open { id, options, .. } = *open;
    let client = client(open.process);
    let file = &mut files[open.file];
    let writes = options.contains(Options::WRITE);
    let may_write = |outcome: Outcome<()>| {
        let expected = if writes { Ok(()) } else { Err(Refusal::Denied) };
        assert_eq!(outcome, expected);
        writes
    };
    match *request {
        Request::Read(_, len) => {
            let got = read(|buffer| client.read(id, len, buffer), len);
            let expected = part(file, open.place, len);
            assert_eq!(got.as_deref(), Ok(expected));
            open.place += expected.len() as u64;
        }
        Request::ReadAt(_, at, len) => {
            let got = read(|buffer| client.read_at(id, at, len, buffer), len);
            assert_eq!(got.as_deref(), Ok(part(file, at, len)));
        }
        Request::Write(_, len, byte) => {
            let bytes = bytes(len, byte);
            let written = refusal(client.write(id, &bytes));
            if may_write(written.map(|count| assert_eq!(count, len))) {
                if options.contains(Options::APPEND) {
                    open.place = file.len() as u64;
                }
                write(file, open.place as usize, &bytes);
                open.place += len as u64;
            }
        }
        Request::WriteAt(_, at, len, byte) => {
            let bytes = bytes(len, byte);
            if may_write(refusal(client.write_at(id, at, &bytes))) {
                write(file, at as usize, &bytes);
            }
        }
        Request::SetLen(_, len) => {
            if may_write(refusal(client.set_len(id, len))) {
                file.resize(len as usize, 0);
            }
        }
        Request::Seek(_, from, by) => {
            let (from, base) = match from {
                0 => (Whence::Start, 0),
                1 => (Whence::Current, open.place),
                _ => (Whence::End, file.len() as u64),
            };
            let place = base.checked_add_signed(by).ok_or(Refusal::BadRequest);
            assert_eq!(refusal(client.seek(id, from, by)), place);
            open.place = place.unwrap_or(open.place);
        }
        _ => unreachable!("not about something open"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests_agree_with_the_model(requests in prop::collection::vec(request(), 1..80)) {
        let memory = Memory::new(Machine::new(Mover::start().unwrap()));
        let files = Files::new(&[], memory, Limits::of_machine(1 << 20)).unwrap();
        let server = Rc::new(RefCell::new(FilesServer::new(files)));
        for process in [0, 7, 8] {
            fake::serve(Handle(process), process.into(), server.clone());
        }
        let mut model = Model::new();
        for request in &requests {
            request_both(request, &mut model);
        }
        // In the end, everything once more; and then nothing is left of it.
        for (path, node) in model.nodes.iter().rev() {
            match node {
                Node::Directory => assert_eq!(list(path), model.list(path)),
                Node::File(file) => {
                    let id = client(7).open(Options::READ, path).unwrap().id;
                    let whole = &model.files[*file];
                    let len = whole.len() + 1;
                    let got = read(|buffer| client(7).read_at(id, 0, len, buffer), len);
                    assert_eq!(got.as_ref(), Ok(whole));
                }
            }
        }
        for process in PROCESSES {
            client(0).forget(process).unwrap();
        }
        for path in model.nodes.keys().rev() {
            client(7).remove(path).unwrap();
        }
        assert_eq!(server.borrow().state.usage(), Usage::default());
    }
}
