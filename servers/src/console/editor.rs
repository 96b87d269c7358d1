//! Line editing: bytes in, lines and echo out.
//!
//! | key | does |
//! | --- | --- |
//! | backspace, delete | removes the character before the cursor |
//! | left, right, ^B, ^F; home, end, ^A, ^E | move |
//! | ^U, ^K, ^W | remove to the start, to the end, the word before |
//! | up, down, ^P, ^N | walk through earlier lines |
//! | ^C | gives up the line: an empty one is delivered |
//! | ^D | on an empty line: end of the input |
//! | enter | delivers the line |

use libipc::services::console::MAX_LINE;

/// Bytes of a line, its end left out.
const LINE: usize = MAX_LINE - 1;

/// Lines that are remembered.
const HISTORY: usize = 16;

type Line = heapless::Vec<u8, MAX_LINE>;

/// What a byte completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A line.
    Line,
    /// The end of the input.
    EndOfInput,
}

/// How far an escape sequence has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Started,
    /// After `ESC [` or `ESC O`, with the number so far.
    Sequence(u8),
}

/// A line editor for one terminal.
#[derive(Debug)]
pub struct Editor {
    line: Line,
    cursor: usize,
    escape: Escape,
    after_return: bool,
    history: heapless::Deque<Line, HISTORY>,
    /// Which line of the history is shown, counted from the latest, 1 first; 0 is none.
    shown: usize,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

impl Editor {
    /// An editor with an empty line.
    #[must_use]
    pub const fn new() -> Self {
        Editor {
            line: Line::new(),
            cursor: 0,
            escape: Escape::None,
            after_return: false,
            history: heapless::Deque::new(),
            shown: 0,
        }
    }

    /// The line; after [`Outcome::Line`] with its end.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Starts over with an empty line.
    pub fn clear(&mut self) {
        self.line.clear();
        (self.cursor, self.shown) = (0, 0);
    }

    /// Takes a byte from the terminal, and echoes what it does.
    pub fn feed(&mut self, byte: u8, echo: &mut dyn FnMut(&[u8])) -> Option<Outcome> {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match self.escape {
            Escape::None => {}
            Escape::Started => {
                let opened = matches!(byte, b'[' | b'O');
                self.escape = if opened {
                    Escape::Sequence(0)
                } else {
                    Escape::None
                };
                return None;
            }
            Escape::Sequence(number) => {
                self.sequence(number, byte, echo);
                return None;
            }
        }
        match byte {
            // The second half of a line end of two bytes.
            b'\n' if after_return => {}
            b'\r' | b'\n' => return Some(self.finish(echo)),
            0x03 => return Some(self.give_up(echo)),
            0x04 if self.line.is_empty() => return Some(Outcome::EndOfInput),
            0x08 | 0x7f => self.delete(self.cursor.saturating_sub(1), self.cursor, echo),
            0x01 => self.go(0, echo),
            0x02 => self.go(self.cursor.saturating_sub(1), echo),
            0x05 => self.go(self.line.len(), echo),
            0x06 => self.go(self.line.len().min(self.cursor + 1), echo),
            0x0b => self.delete(self.cursor, self.line.len(), echo),
            0x0e => self.recall(self.shown.saturating_sub(1), echo),
            0x10 => self.recall(self.shown + 1, echo),
            0x15 => self.delete(0, self.cursor, echo),
            0x17 => self.delete(self.word_start(), self.cursor, echo),
            0x1b => self.escape = Escape::Started,
            b'\t' => self.insert(b' ', echo),
            0x20.. => self.insert(byte, echo),
            _ => {}
        }
        None
    }

    fn sequence(&mut self, number: u8, byte: u8, echo: &mut dyn FnMut(&[u8])) {
        self.escape = Escape::None;
        match (byte, number) {
            (b'0'..=b'9', _) => {
                let number = number.wrapping_mul(10).wrapping_add(byte - b'0');
                self.escape = Escape::Sequence(number);
            }
            (b';', _) => self.escape = Escape::Sequence(0),
            (b'A', _) => self.recall(self.shown + 1, echo),
            (b'B', _) => self.recall(self.shown.saturating_sub(1), echo),
            (b'C', _) => self.go(self.line.len().min(self.cursor + 1), echo),
            (b'D', _) => self.go(self.cursor.saturating_sub(1), echo),
            (b'H', _) | (b'~', 1 | 7) => self.go(0, echo),
            (b'F', _) | (b'~', 4 | 8) => self.go(self.line.len(), echo),
            (b'~', 3) => self.delete(self.cursor, self.line.len().min(self.cursor + 1), echo),
            _ => {}
        }
    }

    fn finish(&mut self, echo: &mut dyn FnMut(&[u8])) -> Outcome {
        self.go(self.line.len(), echo);
        echo(b"\n");
        if !self.line.is_empty() && self.history.back() != Some(&self.line) {
            if self.history.is_full() {
                self.history.pop_front();
            }
            let _ = self.history.push_back(self.line.clone());
        }
        // Lines leave room for their end.
        let _ = self.line.push(b'\n');
        Outcome::Line
    }

    fn give_up(&mut self, echo: &mut dyn FnMut(&[u8])) -> Outcome {
        echo(b"^C\n");
        self.clear();
        let _ = self.line.push(b'\n');
        Outcome::Line
    }

    fn insert(&mut self, byte: u8, echo: &mut dyn FnMut(&[u8])) {
        if self.line.len() < LINE && self.line.insert(self.cursor, byte).is_ok() {
            echo(&self.line[self.cursor..]);
            self.cursor += 1;
            back(self.line.len() - self.cursor, echo);
        }
    }

    /// Removes what is between two places, one of which is the cursor.
    fn delete(&mut self, from: usize, to: usize, echo: &mut dyn FnMut(&[u8])) {
        self.go(from, echo);
        let len = self.line.len();
        self.line.copy_within(to.., from);
        self.line.truncate(len - (to - from));
        echo(&self.line[from..]);
        for _ in from..to {
            echo(b" ");
        }
        back(len - from, echo);
    }

    /// Moves the cursor.
    fn go(&mut self, to: usize, echo: &mut dyn FnMut(&[u8])) {
        match to.checked_sub(self.cursor) {
            Some(_) => echo(&self.line[self.cursor..to]),
            None => back(self.cursor - to, echo),
        }
        self.cursor = to;
    }

    /// Shows a line of the history, counted from the latest; 0 is an empty line.
    fn recall(&mut self, shown: usize, echo: &mut dyn FnMut(&[u8])) {
        if shown > self.history.len() || shown == self.shown {
            return;
        }
        self.go(0, echo);
        self.delete(0, self.line.len(), echo);
        self.shown = shown;
        if let Some(line) = self.history.iter().rev().nth(shown.wrapping_sub(1)) {
            self.line = line.clone();
        }
        self.go(self.line.len(), echo);
    }

    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before
            .iter()
            .rposition(|&byte| byte != b' ')
            .map_or(0, |i| i + 1);
        before[..end]
            .iter()
            .rposition(|&byte| byte == b' ')
            .map_or(0, |i| i + 1)
    }
}

/// Moves the terminal's cursor left.
fn back(columns: usize, echo: &mut dyn FnMut(&[u8])) {
    for _ in 0..columns {
        echo(b"\x08");
    }
}
