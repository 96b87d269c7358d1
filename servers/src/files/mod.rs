//! The file server: the boot archive, read-only; a memory file system; pipes.
//!
//! | module | |
//! | --- | --- |
//! | [`path`] | paths in their one form |
//! | [`tree`] | files and directories by path |
//! | [`contents`], [`memory`] | the bytes of files, which the server never touches |
//! | [`pipe`] | bytes on their way, and who waits for them |
//! | [`clients`] | what each process has open, and what it is charged for |
//! | [`room`] | where requests arrive |
//!
//! `cargo xtask` makes the archive so that programs begin at page boundaries: the kernel gives them to
//! readers page by page, copy-on-write, right from the frames that the loader put them in. Files of an archive that
//! was made otherwise are read as well, but copied.
//!
//! Out of memory is an error of the request: all that a request takes is asked for before anything changes.

pub mod clients;
pub mod contents;
pub mod memory;
pub mod path;
pub mod pipe;
pub mod room;
pub mod slab;
pub mod tree;

use alloc::vec::Vec;

use libipc::server::Answer;
use libipc::service::{Caller, Reply};
use libipc::services::Refusal;
use libipc::services::files::{
    self, Entry, Kind, MAX_FILE, Metadata, Opened, Options, STDIN, STDOUT, Whence,
};

use clients::{Clients, Limits, Usage};
use contents::Stored;
use memory::Memory;
use path::Path;
use pipe::{Pipe, ReadReply};
use slab::Slab;
use tree::{Body, NodeId, Tree};

use crate::archive::entries;

/// Bytes of entries in one reply.
const LISTING: usize = 2048;

/// The number of a pipe.
type PipeId = usize;

/// The number of something open.
type OpenId = usize;

/// What something open leads to.
#[derive(Clone, Copy, Debug)]
enum Target {
    File(NodeId),
    Reader(PipeId),
    Writer(PipeId),
}

/// Something open. Processes that have it by inheritance share the place.
#[derive(Debug)]
struct Open {
    target: Target,
    options: Options,
    /// Where the next read or write begins, in bytes.
    place: u64,
    /// How many numbers lead here.
    nr_owners: usize,
}

/// The file server.
pub struct Files {
    tree: Tree,
    memory: Memory,
    clients: Clients,
    open: Slab<Open>,
    pipes: Slab<Pipe>,
    listing: [u8; LISTING],
}

impl Files {
    /// A server of the files of an archive, and of others in this memory.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(archive: &'static [u8], memory: Memory, limits: Limits) -> Result<Self, Refusal> {
        let mut tree = Tree::new()?;
        for (path, bytes) in entries(archive) {
            match tree.add_archived(&Path::new(path.as_str())?, bytes) {
                // A file in the way of another one: the first stays.
                Ok(()) | Err(Refusal::NotDirectory) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(Files {
            tree,
            memory,
            clients: Clients::new(limits),
            open: Slab::default(),
            pipes: Slab::default(),
            listing: [0; LISTING],
        })
    }

    /// What all files, directories and pipes take.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        self.clients.usage()
    }

    /// What is open under a number, if it is open so.
    fn opened(&self, caller: Caller, id: u32, how: Options) -> Result<&Open, Refusal> {
        let open = self.clients.open(caller.badge, id)?;
        let open = self.open.get(open).ok_or(Refusal::Broken)?;
        match open.options.contains(how) {
            true => Ok(open),
            false => Err(Refusal::Denied),
        }
    }

    fn opened_mut(&mut self, caller: Caller, id: u32) -> Result<&mut Open, Refusal> {
        let open = self.clients.open(caller.badge, id)?;
        self.open.get_mut(open).ok_or(Refusal::Broken)
    }

    /// The file that is open under a number, if it is open so.
    fn file(&self, caller: Caller, id: u32, how: Options) -> Result<NodeId, Refusal> {
        match self.opened(caller, id, how)?.target {
            Target::File(node) => Ok(node),
            Target::Reader(_) | Target::Writer(_) => Err(Refusal::Denied),
        }
    }

    /// Opens something; returns its number.
    fn add_open(&mut self, process: u64, target: Target, options: Options) -> Result<u32, Refusal> {
        let id = self.clients.free_id(process)?;
        let open = self.open.insert(Open {
            target,
            options,
            place: 0,
            nr_owners: 1,
        })?;
        // `free_id` has made room.
        self.clients.set(process, id, open)?;
        match target {
            Target::File(node) => self.tree.get_mut(node)?.nr_open += 1,
            Target::Reader(pipe) => self.pipe_mut(pipe)?.nr_readers += 1,
            Target::Writer(pipe) => self.pipe_mut(pipe)?.nr_writers += 1,
        }
        Ok(id)
    }

    /// A number less leads to something open; the last one closes it.
    fn release(&mut self, id: OpenId) {
        let Some(open) = self.open.get_mut(id) else {
            return;
        };
        open.nr_owners -= 1;
        if open.nr_owners > 0 {
            return;
        }
        let target = open.target;
        self.open.remove(id);
        match target {
            Target::File(node) => {
                if let Ok(node) = self.tree.get_mut(node) {
                    node.nr_open -= 1;
                }
                self.drop_unused(node);
            }
            Target::Reader(pipe) => self.close_end(pipe, |pipe| pipe.nr_readers -= 1),
            Target::Writer(pipe) => self.close_end(pipe, |pipe| pipe.nr_writers -= 1),
        }
    }

    /// Closes an end of a pipe, tells who waits at the other one, and gives up a pipe without ends.
    fn close_end(&mut self, id: PipeId, close: impl FnOnce(&mut Pipe)) {
        let Some(pipe) = self.pipes.get_mut(id) else {
            return;
        };
        close(pipe);
        pipe.serve_readers();
        pipe.serve_writers();
        if pipe.nr_readers == 0
            && pipe.nr_writers == 0
            && let Some(pipe) = self.pipes.remove(id)
        {
            self.clients
                .refund(pipe.payer, Usage::of_len(pipe::CAPACITY));
            pipe.end(&mut self.memory);
        }
    }

    /// Gives up a file or a directory that has no path and is not open.
    fn drop_unused(&mut self, node: NodeId) {
        let Some(node) = self.tree.take_unused(node) else {
            return;
        };
        let len = match node.body {
            Body::Stored(mut stored) => {
                let len = stored.len();
                stored.clear(&mut self.memory);
                len
            }
            Body::Archived(_) | Body::Directory(_) => 0,
        };
        self.clients.refund(node.payer, Usage::of_len(len));
    }

    fn pipe_mut(&mut self, pipe: PipeId) -> Result<&mut Pipe, Refusal> {
        self.pipes.get_mut(pipe).ok_or(Refusal::Broken)
    }

    /// Makes something new, at the cost of a process.
    fn create(&mut self, process: u64, path: &Path<'_>, body: Body) -> Result<NodeId, Refusal> {
        self.clients.charge(process, Usage::of_len(0))?;
        self.tree
            .create(path, body, process)
            .inspect_err(|_| self.clients.refund(process, Usage::of_len(0)))
    }

    /// Changes the bytes of a file, after which there are `len(file)`. A process pays for it that makes it longer.
    fn change(
        &mut self,
        process: u64,
        node: NodeId,
        len: impl FnOnce(&Stored) -> Result<usize, Refusal>,
        action: impl FnOnce(&mut Stored, &mut Memory) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let file = self.tree.get_mut(node)?;
        let Body::Stored(stored) = &mut file.body else {
            return Err(Refusal::ReadOnly);
        };
        let (old, new) = (stored.len(), len(stored)?);
        let payer = if new > old { process } else { file.payer };
        let [old, new] = [old, new].map(Usage::of_len);
        self.clients.exchange(payer, new, file.payer, old)?;
        match action(stored, &mut self.memory) {
            Ok(()) => {
                file.payer = payer;
                Ok(())
            }
            Err(refusal) => {
                // What was so before is within the limits.
                self.clients.exchange(file.payer, old, payer, new)?;
                Err(refusal)
            }
        }
    }

    fn set_file_len(&mut self, process: u64, node: NodeId, len: u64) -> Result<(), Refusal> {
        if len > MAX_FILE {
            return Err(Refusal::NoSpace);
        }
        let len = len as usize;
        self.change(
            process,
            node,
            |_| Ok(len),
            |stored, memory| stored.set_len(len, memory),
        )
    }

    fn write_file(
        &mut self,
        process: u64,
        node: NodeId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        self.change(
            process,
            node,
            |stored| stored.len_with(offset, bytes.len()),
            |stored, memory| stored.write(offset, bytes, memory),
        )
    }

    fn bytes(&self, node: NodeId, offset: u64, count: usize) -> Result<&[u8], Refusal> {
        match &self.tree.get(node)?.body {
            Body::Stored(stored) => Ok(stored.bytes(offset, count)),
            Body::Archived(bytes) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(offset..).unwrap_or_default();
                Ok(&rest[..count.min(rest.len())])
            }
            Body::Directory(_) => Err(Refusal::IsDirectory),
        }
    }

    fn find_or_create(
        &mut self,
        process: u64,
        options: Options,
        path: &Path<'_>,
    ) -> Result<NodeId, Refusal> {
        match self.tree.find(path) {
            Ok(_) if options.contains(Options::CREATE | Options::EXCLUSIVE) => Err(Refusal::Taken),
            Ok(node) => Ok(node),
            Err(Refusal::NotFound) if options.contains(Options::CREATE) => {
                self.create(process, path, Body::Stored(Stored::default()))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether something may be opened so.
    fn check(&self, node: NodeId, options: Options) -> Result<Metadata, Refusal> {
        let writes = Options::WRITE | Options::APPEND | Options::TRUNCATE;
        let metadata = self.tree.get(node)?.metadata();
        match metadata.kind {
            Kind::Directory => Err(Refusal::IsDirectory),
            _ if metadata.is_constant && options.intersects(writes) => Err(Refusal::ReadOnly),
            _ => Ok(metadata),
        }
    }

    /// The next bytes of what is open under a number.
    fn read_next(&mut self, caller: Caller, id: u32, count: usize) -> Result<&[u8], Refusal> {
        let &Open { target, place, .. } = self.opened(caller, id, Options::READ)?;
        match target {
            Target::File(node) => {
                let len = self.bytes(node, place, count)?.len();
                self.opened_mut(caller, id)?.place += len as u64;
                self.bytes(node, place, len)
            }
            Target::Reader(pipe) => Ok(self.pipe_mut(pipe)?.read(count)),
            Target::Writer(_) => Err(Refusal::Denied),
        }
    }

    /// Writes to what is open under a number, at its place.
    fn write_next(&mut self, caller: Caller, id: u32, bytes: &[u8]) -> Result<usize, Refusal> {
        let &Open {
            target,
            options,
            place,
            ..
        } = self.opened(caller, id, Options::WRITE)?;
        match target {
            Target::File(node) => {
                let place = match options.contains(Options::APPEND) {
                    true => self.tree.get(node)?.metadata().size,
                    false => place,
                };
                self.write_file(caller.badge, node, place, bytes)?;
                self.opened_mut(caller, id)?.place = place + bytes.len() as u64;
                Ok(bytes.len())
            }
            Target::Writer(pipe) => {
                let pipe = self.pipes.get_mut(pipe).ok_or(Refusal::Broken)?;
                pipe.write(bytes, &mut self.memory)
            }
            Target::Reader(_) => Err(Refusal::Denied),
        }
    }

    /// The pipe that the caller would have to wait for, to read from what is open under a number, or to write to it.
    fn waits_for(&mut self, caller: Caller, id: u32, how: Options) -> Option<&mut Pipe> {
        let (pipe, waits): (_, fn(&Pipe) -> bool) = match self.opened(caller, id, how).ok()?.target
        {
            Target::File(_) => return None,
            Target::Reader(pipe) => (pipe, Pipe::keeps_readers),
            Target::Writer(pipe) => (pipe, Pipe::keeps_writers),
        };
        self.pipes.get_mut(pipe).filter(|pipe| waits(pipe))
    }

    /// Closes a number that may be open.
    fn close_number(&mut self, process: u64, id: u32) {
        if let Ok(open) = self.clients.unset(process, id) {
            self.release(open);
        }
    }

    /// Closes all that a process has open.
    fn close_all(&mut self, process: u64) {
        while let Some(open) = self.clients.take_any(process) {
            self.release(open);
        }
    }

    /// What a process has open under a number, for somebody else too; 0 is nothing.
    fn shared(&mut self, process: u64, id: u32) -> Result<Option<OpenId>, Refusal> {
        if id == 0 {
            return Ok(None);
        }
        let open = self.clients.open(process, id)?;
        self.open.get_mut(open).ok_or(Refusal::Broken)?.nr_owners += 1;
        Ok(Some(open))
    }
}

/// The caller must be the process server.
fn from_procd(caller: Caller) -> Result<(), Refusal> {
    match caller.badge {
        0 => Ok(()),
        _ => Err(Refusal::Denied),
    }
}

impl files::Files for Files {
    fn open(&mut self, caller: Caller, options: Options, path: &str) -> Result<Opened, Refusal> {
        let path = Path::new(path)?;
        let process = caller.badge;
        let existed = self.tree.find(&path).is_ok();
        let node = self.find_or_create(process, options, &path)?;
        let opened = self.check(node, options).and_then(|metadata| {
            let id = self.add_open(process, Target::File(node), options)?;
            if options.contains(Options::TRUNCATE) && metadata.size > 0 {
                self.set_file_len(process, node, 0)
                    .inspect_err(|_| self.close_number(process, id))?;
            }
            let metadata = self.tree.get(node)?.metadata();
            Ok(Opened {
                id,
                size: metadata.size,
                is_constant: metadata.is_constant,
            })
        });
        if opened.is_err() && !existed && self.tree.unlink(&path).is_ok() {
            self.drop_unused(node);
        }
        opened
    }

    fn pipe(&mut self, caller: Caller) -> Result<(u32, u32), Refusal> {
        let process = caller.badge;
        let usage = Usage::of_len(pipe::CAPACITY);
        self.clients.charge(process, usage)?;
        let pipe = Pipe::new(process, &mut self.memory)
            .inspect_err(|_| self.clients.refund(process, usage))?;
        let pipe = match self.pipes.insert(pipe) {
            Ok(pipe) => pipe,
            Err(refusal) => {
                self.clients.refund(process, usage);
                return Err(refusal);
            }
        };
        let reader = self
            .add_open(process, Target::Reader(pipe), Options::READ)
            // Without an end it goes.
            .inspect_err(|_| self.close_end(pipe, |_| ()))?;
        let writer = self
            .add_open(process, Target::Writer(pipe), Options::WRITE)
            .inspect_err(|_| self.close_number(process, reader))?;
        Ok((reader, writer))
    }

    fn close(&mut self, caller: Caller, id: u32) -> Result<(), Refusal> {
        let open = self.clients.unset(caller.badge, id)?;
        self.release(open);
        Ok(())
    }

    fn read(
        &mut self,
        caller: Caller,
        id: u32,
        count: usize,
        reply: ReadReply,
    ) -> Option<Answer<'_>> {
        if count > 0
            && let Some(pipe) = self.waits_for(caller, id, Options::READ)
        {
            return match pipe.keep_reader(caller.badge, count, reply) {
                Ok(()) => None,
                Err((reply, refusal)) => reply.now(Err(refusal), &[]),
            };
        }
        match self.read_next(caller, id, count) {
            Ok(bytes) => reply.now(Ok(()), bytes),
            Err(refusal) => reply.now(Err(refusal), &[]),
        }
    }

    fn read_at(
        &self,
        caller: Caller,
        id: u32,
        offset: u64,
        count: usize,
    ) -> Result<&[u8], Refusal> {
        let node = self.file(caller, id, Options::READ)?;
        self.bytes(node, offset, count)
    }

    fn write(
        &mut self,
        caller: Caller,
        id: u32,
        bytes: &[u8],
        reply: Reply<usize, Refusal>,
    ) -> Option<Answer<'_>> {
        if let Some(pipe) = self.waits_for(caller, id, Options::WRITE) {
            return match pipe.keep_writer(caller.badge, reply) {
                Ok(()) => None,
                Err((reply, refusal)) => reply.now(Err(refusal)),
            };
        }
        reply.now(self.write_next(caller, id, bytes))
    }

    fn write_at(
        &mut self,
        caller: Caller,
        id: u32,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let node = self.file(caller, id, Options::WRITE)?;
        self.write_file(caller.badge, node, offset, bytes)
    }

    fn seek(&mut self, caller: Caller, id: u32, from: Whence, by: i64) -> Result<u64, Refusal> {
        let node = self.file(caller, id, Options::empty())?;
        let base = match from {
            Whence::Start => 0,
            Whence::Current => self.opened(caller, id, Options::empty())?.place,
            Whence::End => self.tree.get(node)?.metadata().size,
        };
        let place = base.checked_add_signed(by).ok_or(Refusal::BadRequest)?;
        self.opened_mut(caller, id)?.place = place;
        Ok(place)
    }

    fn set_len(&mut self, caller: Caller, id: u32, len: u64) -> Result<(), Refusal> {
        let node = self.file(caller, id, Options::WRITE)?;
        self.set_file_len(caller.badge, node, len)
    }

    fn stat(&self, caller: Caller, id: u32) -> Result<Metadata, Refusal> {
        match self.opened(caller, id, Options::empty())?.target {
            Target::File(node) => Ok(self.tree.get(node)?.metadata()),
            Target::Reader(pipe) | Target::Writer(pipe) => Ok(Metadata {
                kind: Kind::Pipe,
                size: self.pipes.get(pipe).ok_or(Refusal::Broken)?.len() as u64,
                is_constant: false,
            }),
        }
    }

    fn metadata(&self, path: &str) -> Result<Metadata, Refusal> {
        let node = self.tree.find(&Path::new(path)?)?;
        Ok(self.tree.get(node)?.metadata())
    }

    fn list(
        &mut self,
        directory: &str,
        skip: usize,
        room: usize,
    ) -> Result<(usize, &[u8]), Refusal> {
        let directory = self.tree.find(&Path::new(directory)?)?;
        let room = &mut self.listing[..room.min(LISTING)];
        let (mut count, mut len) = (0, 0);
        for node in self.tree.entries(directory)?.skip(skip) {
            let Metadata { kind, size, .. } = node.metadata();
            let name = node.name();
            let Some(more) = (Entry { kind, size, name }).put(&mut room[len..]) else {
                break;
            };
            (count, len) = (count + 1, len + more);
        }
        Ok((count, &self.listing[..len]))
    }

    fn create_dir(&mut self, caller: Caller, path: &str) -> Result<(), Refusal> {
        let path = Path::new(path)?;
        self.create(caller.badge, &path, Body::Directory(Vec::new()))
            .map(|_| ())
    }

    fn remove(&mut self, path: &str) -> Result<(), Refusal> {
        let node = self.tree.unlink(&Path::new(path)?)?;
        self.drop_unused(node);
        Ok(())
    }

    fn rename(&mut self, paths: &str) -> Result<(), Refusal> {
        let (from, to) = paths.split_once('\0').ok_or(Refusal::BadRequest)?;
        if let Some(replaced) = self.tree.rename(&Path::new(from)?, &Path::new(to)?)? {
            self.drop_unused(replaced);
        }
        Ok(())
    }

    fn hand_down(
        &mut self,
        caller: Caller,
        parent: u64,
        child: u64,
        stdin: u32,
        stdout: u32,
    ) -> Result<(), Refusal> {
        from_procd(caller)?;
        let stdin = self.shared(parent, stdin)?;
        let stdout = self.shared(parent, stdout).inspect_err(|_| {
            if let Some(stdin) = stdin {
                self.release(stdin);
            }
        })?;
        self.close_all(child);
        let streams = [(STDIN, stdin), (STDOUT, stdout)];
        let mut outcome = Ok(());
        for (id, open) in streams
            .into_iter()
            .filter_map(|(id, open)| Some((id, open?)))
        {
            if let Err(refusal) = self.clients.set(child, id, open) {
                self.release(open);
                outcome = Err(refusal);
            }
        }
        outcome
    }

    fn forget(&mut self, caller: Caller, process: u64) -> Result<(), Refusal> {
        from_procd(caller)?;
        // Its threads that wait shall not be told.
        for pipe in self.pipes.values_mut() {
            pipe.forget(process);
        }
        self.close_all(process);
        self.clients.forget(process);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
