//! The inline part of a message: tag, words, handles.

use bitflags::bitflags;

use crate::Handle;

/// Inline words in a message: `r12` to `r15`.
pub const WORDS: usize = 4;

/// The most handles that one message carries.
pub const MAX_HANDLES: usize = 4;

bitflags! {
    /// Options of a receive, in `rsi` of [`Call::Recv`](crate::Call::Recv).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RecvFlags: u64 {
        /// Return [`Error::WouldBlock`](crate::Error::WouldBlock) when nothing is there.
        const NONBLOCK = 1;
        /// Return [`Error::TimedOut`](crate::Error::TimedOut) when nothing is there before the deadline in `rdi`.
        const DEADLINE = 2;
    }
}

/// What a receive returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A message from a thread that waits for the reply to the token.
    Message,
    /// Notification bits in the first word. There is nobody to reply to.
    Notification,
    /// A fault of a thread that this endpoint supervises; it waits for the verdict.
    Fault,
}

/// The message tag, in `rsi`.
///
/// ```text
///  63          46 45  44 43  42  41   40   39 38 37 36   35   34      32 31         0
/// +--------------+------+------+----+-----+-----+--+----+----+----------+------------+
/// |       0      | kind |  0   | PT |  T  |  0  |DL| MP | MH | handles  |   label    |
/// +--------------+------+------+----+-----+-----+--+----+----+----------+------------+
/// ```
///
/// A caller sets the label, the number of handles, MH ("move handles": the sender's handles
/// are closed when the message has arrived), MP ("move pages": the sender's whole pages are
/// demand-zero when they have arrived) and, in a send, DL ("deadline": the caller waits for the reply
/// until the time in `rdi`). The kernel sets kind, T ("truncated": the message was
/// longer than the buffer that it arrived in) and PT ("peer truncated": what this side sent was
/// longer than the other side's buffer). Handles lie in the last two words, two in each, low half
/// first: a message with handles has two words left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tag(pub u64);

impl Tag {
    const HANDLES_SHIFT: u32 = 32;
    const MOVE_HANDLES: u64 = 1 << 35;
    const MOVE_PAGES: u64 = 1 << 36;
    const DEADLINE: u64 = 1 << 37;
    const TRUNCATED: u64 = 1 << 40;
    const PEER_TRUNCATED: u64 = 1 << 41;
    const KIND_SHIFT: u32 = 44;

    /// A tag with this label and nothing else.
    #[must_use]
    pub const fn new(label: u32) -> Self {
        Tag(label as u64)
    }

    /// What the message is about; its meaning is between sender and receiver.
    #[must_use]
    pub const fn label(self) -> u32 {
        self.0 as u32
    }

    /// The same tag announcing `count` handles (at most 4; more is an error at the call).
    #[must_use]
    pub const fn with_handles(self, count: usize) -> Self {
        Tag((self.0 & !(7 << Self::HANDLES_SHIFT)) | ((count as u64 & 7) << Self::HANDLES_SHIFT))
    }

    /// How many handles the message carries.
    #[must_use]
    pub const fn handles(self) -> usize {
        (self.0 >> Self::HANDLES_SHIFT) as usize & 7
    }

    /// The label and the number of handles alone: what a receiver tells messages by.
    #[must_use]
    pub const fn selects(self) -> Self {
        Tag(self.0 & (0xffff_ffff | 7 << Self::HANDLES_SHIFT))
    }

    /// The same tag, with the handles leaving the sender.
    #[must_use]
    pub const fn moving_handles(self) -> Self {
        Tag(self.0 | Self::MOVE_HANDLES)
    }

    /// Whether the handles leave the sender.
    #[must_use]
    pub const fn moves_handles(self) -> bool {
        self.0 & Self::MOVE_HANDLES != 0
    }

    /// The same tag, with the pages leaving the sender.
    #[must_use]
    pub const fn moving_pages(self) -> Self {
        Tag(self.0 | Self::MOVE_PAGES)
    }

    /// Whether the pages leave the sender.
    #[must_use]
    pub const fn moves_pages(self) -> bool {
        self.0 & Self::MOVE_PAGES != 0
    }

    /// The same tag of a send that has a deadline.
    #[must_use]
    pub const fn with_deadline(self) -> Self {
        Tag(self.0 | Self::DEADLINE)
    }

    /// Whether the send has a deadline.
    #[must_use]
    pub const fn has_deadline(self) -> bool {
        self.0 & Self::DEADLINE != 0
    }

    /// Whether the message was longer than the buffer that it arrived in.
    #[must_use]
    pub const fn truncated(self) -> bool {
        self.0 & Self::TRUNCATED != 0
    }

    /// Whether what this side sent was longer than the other side's buffer.
    #[must_use]
    pub const fn peer_truncated(self) -> bool {
        self.0 & Self::PEER_TRUNCATED != 0
    }

    /// The same tag with both truncation marks as given.
    #[must_use]
    pub const fn with_truncation(self, truncated: bool, peer_truncated: bool) -> Self {
        let mut bits = self.0 & !(Self::TRUNCATED | Self::PEER_TRUNCATED);
        if truncated {
            bits |= Self::TRUNCATED;
        }
        if peer_truncated {
            bits |= Self::PEER_TRUNCATED;
        }
        Tag(bits)
    }

    /// What kind of event the tag stands for.
    #[must_use]
    pub const fn kind(self) -> MessageKind {
        if self.0 & (3 << Self::KIND_SHIFT) == 0 {
            return MessageKind::Message;
        }
        self.rare_kind()
    }

    /// The same for all but messages, for which one question is enough: a server asks it for each.
    #[cold]
    const fn rare_kind(self) -> MessageKind {
        match (self.0 >> Self::KIND_SHIFT) & 3 {
            1 => MessageKind::Notification,
            2 => MessageKind::Fault,
            _ => MessageKind::Message,
        }
    }

    /// The same tag standing for an event of this kind.
    #[must_use]
    pub const fn with_kind(self, kind: MessageKind) -> Self {
        Tag((self.0 & !(3 << Self::KIND_SHIFT)) | ((kind as u64) << Self::KIND_SHIFT))
    }

    /// Whether a caller may use this tag: label, at most four handles, MH, MP, DL, and nothing else. DL only in a send.
    #[must_use]
    pub const fn is_valid_from_user(self) -> bool {
        let marks = Self::MOVE_HANDLES | Self::MOVE_PAGES | Self::DEADLINE;
        let allowed = 0xffff_ffff | (7 << Self::HANDLES_SHIFT) | marks;
        self.0 & !allowed == 0 && self.handles() <= MAX_HANDLES
    }
}

/// Packs handles into the last two words of a message.
#[must_use]
pub const fn pack_handles(handles: [Handle; MAX_HANDLES]) -> [u64; 2] {
    [
        handles[0].0 as u64 | (handles[1].0 as u64) << 32,
        handles[2].0 as u64 | (handles[3].0 as u64) << 32,
    ]
}

/// The handles in the last two words of a message.
#[must_use]
pub const fn unpack_handles(words: [u64; 2]) -> [Handle; MAX_HANDLES] {
    [
        Handle(words[0] as u32),
        Handle((words[0] >> 32) as u32),
        Handle(words[1] as u32),
        Handle((words[1] >> 32) as u32),
    ]
}
