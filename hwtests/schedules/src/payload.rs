//! Payloads that name their value: by their length, and by any eight bytes of them.

use bytes::Bytes;
use disk::AlignedBuf;
use shards::Payload;

use crate::history::Value;

/// Values are below this, so that the lengths of the sizes do not meet.
pub const VALUES_MAX: Value = 1024;
const WORD: usize = 8;

/// How large a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Up to 8 KiB: gathered with others into one device write.
    Small,
    /// About 40 KiB: a device write of its own, read whole.
    Medium,
    /// About 112 KiB: two fill an extent, and parts of it are read alone.
    Large,
}

impl Size {
    const ALL: [Self; 3] = [Self::Large, Self::Medium, Self::Small];

    const fn base(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Medium => 40 << 10,
            Self::Large => 112 << 10,
        }
    }
}

/// Length in bytes of a value's payload.
#[must_use]
pub fn len_of(value: Value, size: Size) -> usize {
    assert!((1..VALUES_MAX).contains(&value));
    size.base() + value as usize * WORD
}

/// The value whose payload has this length.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn value_of_len(len: u32) -> Value {
    let len = len as usize;
    let size = Size::ALL.into_iter().find(|size| len > size.base()).expect("no payload is empty");
    let value = ((len - size.base()) / WORD) as Value;
    assert_eq!(len_of(value, size), len, "a listed length that no value has");
    value
}

/// The value's payload, shared in pieces or aligned.
#[must_use]
pub fn payload(value: Value, size: Size, aligned: bool) -> Payload {
    let len = len_of(value, size);
    let word = |at: usize| (u64::from(value) << 32 | at as u64).to_le_bytes();
    if aligned {
        let mut buf = AlignedBuf::zeroed(len);
        for (at, out) in buf[..len].chunks_exact_mut(WORD).enumerate() {
            out.copy_from_slice(&word(at));
        }
        return Payload::Aligned { bytes: buf.freeze(), len };
    }
    let bytes: Bytes = (0..len / WORD).flat_map(word).collect::<Vec<u8>>().into();
    let cut = len / 2;
    Payload::Parts(vec![bytes.slice(..cut), bytes.slice(cut..)])
}

/// The value that `bytes` belong to, which start at byte `start` of its payload; `None` for no bytes.
///
/// # Panics
/// When they are not bytes of one value.
#[must_use]
pub fn value_of(bytes: &[u8], start: usize) -> Option<Value> {
    assert!(start.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD), "payloads are cut at words");
    let mut words = bytes.chunks_exact(WORD).map(|w| u64::from_le_bytes(w.try_into().expect("a word")));
    let first = words.next()?;
    let value = (first >> 32) as Value;
    let expected = |at: usize| u64::from(value) << 32 | (start / WORD + at) as u64;
    assert_eq!(first, expected(0), "the bytes of another place");
    for (at, word) in (1..).zip(words) {
        assert_eq!(word, expected(at), "the bytes of two values, or of another place");
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_bytes_name_their_value() {
        for value in [1, 2, VALUES_MAX - 1] {
            for (size, aligned) in [(Size::Small, false), (Size::Medium, true), (Size::Large, false)] {
                assert_eq!(value_of_len(len_of(value, size) as u32), value);
                let bytes = match payload(value, size, aligned) {
                    Payload::Aligned { bytes, len } => bytes[..len].to_vec(),
                    Payload::Parts(parts) => parts.concat(),
                };
                assert_eq!(bytes.len(), len_of(value, size));
                assert_eq!(value_of(&bytes, 0), Some(value));
                assert_eq!(value_of(&bytes[8..], 8), if bytes.len() > 8 { Some(value) } else { None });
            }
        }
    }

    #[test]
    #[should_panic(expected = "of two values")]
    fn mixed_bytes_are_seen() {
        let Payload::Parts(parts) = payload(3, Size::Small, false) else { unreachable!("asked for parts") };
        let mut bytes = parts.concat();
        bytes[12] ^= 1;
        let _ = value_of(&bytes, 0);
    }
}
