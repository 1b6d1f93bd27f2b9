//! What goes between a partition and its callers on other hosts, as bytes: one byte of format, then postcard.
//!
//! Decoders take bytes of outside: whatever they are given, they neither panic nor allocate by an unchecked length,
//! and nothing nests deeper than an object's parts. A newer format is refused by name.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::{IndexError, Nature};
use crate::model::{Command, Outcome};
use crate::question::{Answer, Question};

/// The format of all messages. 1: the first.
const FORMAT: u8 = 1;
/// Bytes of an encoded command or question at most, its data apart: a completion names 10,000 parts in a quarter.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Bytes of an encoded answer or outcome at most. A page of 1,000 rows with the longest keys and metadata takes 10
/// MiB, the layout of a 5 TiB object 3 MiB.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of an error's text at most.
const TEXT_BYTES_MAX: usize = 1024;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no valid message: {0}")]
pub struct Malformed(pub &'static str);

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_extend(message, vec![FORMAT]).expect("messages encode: every type of theirs has a length")
}

fn decode<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, Malformed> {
    match bytes.split_first() {
        _ if bytes.len() > bytes_max => Err(Malformed("it is too long")),
        None => Err(Malformed("it is empty")),
        Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(Malformed("bytes after its end")),
            Err(_) => Err(Malformed("it does not parse")),
        },
        Some((&format, _)) if format > FORMAT => Err(Malformed("it has a newer format")),
        Some(_) => Err(Malformed("it has a retired format")),
    }
}

macro_rules! message {
    ($name:ident, $bytes_max:expr) => {
        impl $name {
            /// As bytes for another host.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }

            /// From bytes of another host.
            ///
            /// # Errors
            /// [`Malformed`].
            pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
                decode(bytes, $bytes_max)
            }
        }
    };
}

message!(Command, COMMAND_BYTES_MAX);
message!(Question, COMMAND_BYTES_MAX);
message!(Outcome, ANSWER_BYTES_MAX);
message!(Answer, ANSWER_BYTES_MAX);

#[derive(Serialize, Deserialize)]
struct WireError {
    nature: Nature,
    message: String,
}

impl IndexError {
    /// As bytes for another host: what it is to a caller, and its text.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut message = self.to_string();
        let cut = (0..=TEXT_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        encode(&WireError { nature: self.nature(), message })
    }

    /// The error of another host, as [`IndexError::Remote`]; bytes that are none become [`IndexError::Malformed`].
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        match decode::<WireError>(bytes, 2 * TEXT_BYTES_MAX) {
            Ok(WireError { nature, message }) => Self::Remote { message, nature },
            Err(Malformed(what)) => Self::Malformed(what),
        }
    }
}
