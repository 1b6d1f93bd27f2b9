//! One journal record of the index: commands, then their data.
//!
//! ```text
//! header (16 bytes): version | 3 zero | commands: bytes | commands: count | zero
//! commands:          postcard of (command, bytes of its data), one after the other
//! data:              the commands' data in the same order
//! ```
//! Version 1 is the first. Bytes are untrusted: a record that contradicts itself is refused whole.

use std::ops::Range;

use base::Lsn;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::COMMAND_BYTES_MAX;
use crate::model::{Command, Layout};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;

/// Commands in one batch at most; bounds how long a caller waits for others' commands to be applied.
pub(crate) const BATCH_COMMANDS_MAX: usize = 256;
/// Data bytes in one batch before it is closed; a record stays well under what a store takes.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;
/// Data bytes of one command at most.
pub const DATA_BYTES_MAX: usize = 2 << 20;

/// A command and where its data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) command: Command,
    /// Bytes from the start of the journal record's payload.
    pub(crate) offset: u32,
    /// Bytes of data.
    pub(crate) bytes: u32,
}

/// A command as a journal record holds it, for tools that read a journal at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCommand {
    /// The command; [`WITH_COMMAND`] in it means `data`.
    pub command: Command,
    /// Its data, as bytes of the record's payload.
    pub data: Range<u32>,
}

/// The commands in a record's body that starts `at` bytes into the record's payload, in order.
///
/// # Errors
/// What is wrong with the body.
pub fn decode_batch(body: &[u8], at: u32) -> Result<Vec<LoggedCommand>, &'static str> {
    let entries = Batch::decode(body, at)?.entries;
    Ok(entries.into_iter().map(|e| LoggedCommand { command: e.command, data: e.offset..e.offset + e.bytes }).collect())
}

/// The commands of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
}

#[derive(Serialize)]
struct WireRef<'a>(&'a Command, u32);
#[derive(Deserialize)]
struct Wire(Command, u32);

/// A command encoded for a batch, with its data.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) command: Command,
    encoded: Vec<u8>,
    data: Vec<Bytes>,
    data_bytes: usize,
}

impl Sealed {
    /// Encodes a command, when it and its data fit together and into a batch.
    pub(crate) fn new(command: Command, data: Vec<Bytes>) -> Result<Self, &'static str> {
        let data_bytes = data.iter().map(Bytes::len).sum();
        if data_bytes > DATA_BYTES_MAX {
            return Err("more data than one command may carry");
        }
        check(&command, data_bytes as u64)?;
        let encoded = postcard::to_stdvec(&WireRef(&command, data_bytes as u32)).map_err(|_| "does not encode")?;
        if encoded.len() > COMMAND_BYTES_MAX {
            return Err("longer than a command may be");
        }
        Ok(Self { command, encoded, data, data_bytes })
    }

    /// Bytes it adds to a batch.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len() + self.data_bytes
    }
}

impl Batch {
    /// The batch and the parts of its body. `at` is where the body starts in the record's payload.
    pub(crate) fn encode(sealed: Vec<Sealed>, at: u32) -> (Self, Vec<Bytes>) {
        assert!(!sealed.is_empty() && sealed.len() <= BATCH_COMMANDS_MAX, "a batch has a few commands");
        let commands_bytes: usize = sealed.iter().map(|s| s.encoded.len()).sum();
        let mut head = Vec::with_capacity(HEADER_BYTES + commands_bytes);
        head.extend([VERSION, 0, 0, 0]);
        head.extend((commands_bytes as u32).to_le_bytes());
        head.extend((sealed.len() as u32).to_le_bytes());
        head.extend([0; 4]);
        sealed.iter().for_each(|s| head.extend_from_slice(&s.encoded));
        let mut offset = at as usize + head.len();
        let mut parts = vec![Bytes::from(head)];
        let mut entries = Vec::with_capacity(sealed.len());
        for s in sealed {
            entries.push(Entry { command: s.command, offset: offset as u32, bytes: s.data_bytes as u32 });
            offset += s.data_bytes;
            parts.extend(s.data);
        }
        assert!(offset <= u32::MAX as usize, "a record is far below 4 GiB");
        (Self { entries }, parts)
    }

    /// The batch in a record's body that starts `at` bytes into the record's payload.
    pub(crate) fn decode(body: &[u8], at: u32) -> Result<Self, &'static str> {
        let (header, rest) = body.split_at_checked(HEADER_BYTES).ok_or("shorter than its header")?;
        if header[0] != VERSION {
            return Err("another version");
        }
        if header[1..4] != [0; 3] || header[12..] != [0; 4] {
            return Err("reserved bytes are set");
        }
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (commands_bytes, count) = (word(4), word(8));
        let (mut commands, data) = rest.split_at_checked(commands_bytes).ok_or("commands end outside the record")?;
        if count > BATCH_COMMANDS_MAX {
            return Err("too many commands");
        }
        let mut entries = Vec::with_capacity(count);
        let mut offset = HEADER_BYTES + commands_bytes;
        for _ in 0..count {
            let (Wire(command, bytes), rest) =
                postcard::take_from_bytes(commands).map_err(|_| "a command is malformed")?;
            check(&command, u64::from(bytes))?;
            commands = rest;
            entries.push(Entry {
                command,
                offset: u32::try_from(offset + at as usize).map_err(|_| "too long")?,
                bytes,
            });
            offset += bytes as usize;
        }
        if !commands.is_empty() || offset != HEADER_BYTES + commands_bytes + data.len() {
            return Err("lengths do not add up");
        }
        Ok(Self { entries })
    }
}

/// "The data given with this command".
pub const WITH_COMMAND: Layout = Layout::Journal { lsn: Lsn(0), offset: 0 };

fn check(command: &Command, data_bytes: u64) -> Result<(), &'static str> {
    let (size, layout) = match command {
        Command::PutObject { bucket, row, .. } => {
            if bucket.contains('\0') {
                return Err("a bucket name contains NUL");
            }
            (row.size, &row.layout)
        }
        Command::PutPart { row, .. } => (row.size, &row.layout),
        Command::CreateBucket { name, .. } if name.contains('\0') => return Err("a bucket name contains NUL"),
        _ => return if data_bytes == 0 { Ok(()) } else { Err("data with a command that takes none") },
    };
    match layout {
        l if *l == WITH_COMMAND => {
            if size == data_bytes {
                Ok(())
            } else {
                Err("the data has another size than the row says")
            }
        }
        Layout::Stripes(runs) => {
            if data_bytes != 0 {
                return Err("data both in stripes and with the command");
            }
            let sum = runs.iter().try_fold(0u64, |sum, run| sum.checked_add(run.bytes));
            if sum == Some(size) { Ok(()) } else { Err("the stripes hold another size than the row says") }
        }
        _ => Err("new data is in stripes or with the command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn data_lies_where_the_entries_say() {
        let reserve = |below| Sealed::new(Command::ReserveStripes { below }, vec![]).unwrap();
        let part = |bytes: &'static [u8]| {
            let row = crate::model::PartRow {
                size: bytes.len() as u64,
                md5: [0; 16],
                checksum: None,
                modified_ms: 0,
                layout: WITH_COMMAND,
            };
            let command = Command::PutPart { bucket: "b".into(), upload: 1, number: 1, row, missing: vec![] };
            Sealed::new(command, vec![Bytes::from_static(bytes)]).unwrap()
        };
        let (batch, parts) = Batch::encode([part(b"one"), reserve(9), part(b"three")].into(), 64);
        let payload = [vec![0; 64], parts.concat()].concat();
        assert_eq!(Batch::decode(&payload[64..], 64).as_ref(), Ok(&batch));
        let data = |i: usize| {
            let e = &batch.entries[i];
            &payload[e.offset as usize..][..e.bytes as usize]
        };
        assert_eq!((data(0), data(1), data(2)), (&b"one"[..], &b""[..], &b"three"[..]));
    }

    #[test]
    fn data_that_contradicts_its_row_is_refused() {
        assert!(Sealed::new(Command::ReserveStripes { below: 1 }, vec![Bytes::from_static(b"x")]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Batch::decode(&body, 64);
            let mut framed = vec![1, 0, 0, 0];
            framed.extend((body.len() as u32).to_le_bytes());
            framed.extend([1, 0, 0, 0, 0, 0, 0, 0]);
            framed.extend(body);
            let _ = Batch::decode(&framed, 64);
        }
    }
}
