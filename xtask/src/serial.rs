//! Makes plain text of what comes over the serial line.

/// Turns line ends into `\n` and drops what is meant for a terminal or comes from the firmware:
/// escape sequences and UEFI's `BdsDxe:` lines. Keeps its state between pieces.
#[derive(Default)]
pub(crate) struct Plain {
    state: State,
    /// The beginning of a line, held back as long as it may turn out to be the firmware's.
    line_start: Vec<u8>,
    mid_line: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Text,
    /// After a carriage return.
    Return,
    /// After ESC.
    Escape,
    /// After ESC and `[`: parameters, up to a final letter.
    Sequence,
}

/// How the lines begin in which UEFI says what it boots.
const FIRMWARE: &[u8] = b"BdsDxe:";

impl Plain {
    /// Appends the plain text of `piece` to `out`.
    pub(crate) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for &byte in piece {
            self.state = match (&self.state, byte) {
                (State::Escape, b'[') => State::Sequence,
                (State::Escape, _) => State::Text,
                (State::Sequence, b'@'..=b'~') => State::Text,
                (State::Sequence, _) => State::Sequence,
                (_, 0x1b) => State::Escape,
                (_, b'\r') => State::Return,
                (State::Return, byte) => {
                    if byte != b'\n' {
                        self.push(b'\r', out);
                    }
                    self.push(byte, out);
                    State::Text
                }
                (State::Text, byte) => {
                    self.push(byte, out);
                    State::Text
                }
            };
        }
    }

    /// Appends what was held back, at the end of the output.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line_start.starts_with(FIRMWARE) {
            out.append(&mut self.line_start);
        }
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.mid_line {
            out.push(byte);
            self.mid_line = byte != b'\n';
            return;
        }
        self.line_start.push(byte);
        if self.line_start.starts_with(FIRMWARE) {
            if byte == b'\n' {
                self.line_start.clear();
            }
        } else if !FIRMWARE.starts_with(&self.line_start) {
            out.append(&mut self.line_start);
            self.mid_line = byte != b'\n';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds whole and byte by byte, which must not differ.
    fn plain(text: &[u8]) -> String {
        let mut whole = Vec::new();
        let mut filter = Plain::default();
        filter.feed(text, &mut whole);
        filter.finish(&mut whole);
        let mut pieces = Vec::new();
        let mut filter = Plain::default();
        text.iter()
            .for_each(|&byte| filter.feed(&[byte], &mut pieces));
        filter.finish(&mut pieces);
        assert_eq!(whole, pieces);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn line_ends_are_translated() {
        assert_eq!(plain(b"a\r\nb\nc\rd\r\n"), "a\nb\nc\rd\n");
        assert_eq!(plain(b"\r\n\r\n"), "\n\n");
    }

    #[test]
    fn escape_sequences_are_dropped() {
        assert_eq!(plain(b"\x1b[2J\x1b[01;01H\x1b=hello\x1b[0m\r\n"), "hello\n");
    }

    #[test]
    fn firmware_lines_are_dropped() {
        let text = b"\x1b[2JBdsDxe: loading Boot0001 \"DVD\"\r\nBdsDxe: starting\r\nBds here\r\nx BdsDxe: y\r\n";
        assert_eq!(plain(text), "Bds here\nx BdsDxe: y\n");
    }

    #[test]
    fn text_without_a_line_end_comes_through() {
        assert_eq!(plain(b"> "), "> ");
        assert_eq!(plain(b"Bds"), "Bds");
    }
}
