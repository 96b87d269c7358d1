//! Programs that were started before, laid out in spaces where nothing runs.
//!
//! To start one again is to share such a space copy-on-write, like a fork of a process that has not begun. Only programs whose
//! files never change are kept, so what is kept is never wrong; how much is bounded, and given up when memory is short.

use libipc::services::Refusal;
use libipc::services::files::{FilesClient, MAX_PATH, Opened, Options};
use libipc::{PageBuffer, Space, System};

use crate::loader::{self, Loaded, Stage};

/// Most programs that are kept.
const MAX_PROGRAMS: usize = 16;

/// A program.
pub struct Program {
    path: heapless::String<MAX_PATH>,
    /// Whether its file never changes: then it can be kept.
    pub is_constant: bool,
    /// Where it is, without a stack.
    pub space: Space,
    /// What is where in the space.
    pub loaded: Loaded,
}

impl Program {
    /// Reads and lays out the program at `path`.
    ///
    /// # Errors
    /// Those of the file server; `NotExecutable`; those of the calls that it takes.
    pub fn load(
        path: &str,
        files: &FilesClient,
        system: &System,
        stage: &mut Stage,
    ) -> Result<Self, Refusal> {
        let (image, is_constant) = read(path, files)?;
        let space = system.create_space(None)?;
        let loaded = loader::load(&image, &space, stage)?;
        // The file server has refused longer paths.
        let path = path.try_into().map_err(|_| Refusal::BadRequest)?;
        Ok(Program {
            path,
            is_constant,
            space,
            loaded,
        })
    }
}

/// A whole file, at the beginning of a page, and whether it never changes.
fn read(path: &str, files: &FilesClient) -> Result<(PageBuffer, bool), Refusal> {
    let file = files.open(Options::READ, path)?;
    let image = read_opened(&file, files);
    let closed = files.close(file.id);
    let image = image?;
    closed?;
    Ok((image, file.is_constant))
}

fn read_opened(file: &Opened, files: &FilesClient) -> Result<PageBuffer, Refusal> {
    let size = file.size as usize;
    let mut image = PageBuffer::new(size)?;
    match files.read_at(file.id, 0, size, &mut image)? {
        len if len == size => Ok(image),
        // It was cut off meanwhile.
        _ => Err(Refusal::NotExecutable),
    }
}

/// The programs that are kept.
#[derive(Default)]
pub struct Programs {
    kept: heapless::Vec<Program, MAX_PROGRAMS>,
    /// Which makes room for another one when all places are taken.
    oldest: usize,
}

impl Programs {
    /// The place of the program at `path`, if it is kept.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Program> {
        self.kept.iter().find(|program| program.path == path)
    }

    /// Keeps a program whose file never changes.
    pub fn keep(&mut self, program: Program) -> &Program {
        let place = match self.kept.push(program) {
            Ok(()) => self.kept.len() - 1,
            Err(program) => {
                let place = self.oldest;
                self.oldest = (place + 1) % MAX_PROGRAMS;
                self.kept[place] = program;
                place
            }
        };
        &self.kept[place]
    }

    /// Gives all of them up. Returns whether there were any.
    pub fn clear(&mut self) -> bool {
        let any = !self.kept.is_empty();
        self.kept.clear();
        self.oldest = 0;
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::Handle;

    fn program(number: u32) -> Program {
        let mut path = heapless::String::new();
        std::fmt::Write::write_fmt(&mut path, format_args!("/bin/{number}")).unwrap();
        Program {
            path,
            is_constant: true,
            space: Space::from_raw(Handle(number)),
            loaded: Loaded {
                entry: number.into(),
                memory: 0..0,
            },
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut programs = Programs::default();
        for number in 1..=MAX_PROGRAMS as u32 + 2 {
            assert_eq!(
                programs.keep(program(number)).loaded.entry,
                u64::from(number)
            );
        }
        assert!(programs.find("/bin/1").is_none() && programs.find("/bin/2").is_none());
        assert_eq!(
            programs.find("/bin/3").map(|found| found.loaded.entry),
            Some(3)
        );
        assert_eq!(
            programs.find("/bin/18").map(|found| found.loaded.entry),
            Some(18)
        );
        assert!(programs.clear() && !programs.clear());
        assert!(programs.find("/bin/3").is_none());
    }
}
