//! Why a request between hosts had no effect, and how that travels: a gRPC status whose details are a small message,
//! so that the other side gets the same fault back and not a text to guess from.

use prost::Message;
use thiserror::Error;
use tonic::{Code, Status};

use crate::pb::shards as pb;

/// Longest text of a fault on the wire, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// Why a request had no effect, or may have had none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// No such record.
    #[error("no such record")]
    NotFound,
    /// The device has no room left.
    #[error("the device is full")]
    Full,
    /// The bytes on the medium are not those that were written.
    #[error("corrupt record at byte {offset} of the device: {what}")]
    Corrupt {
        /// Where on the device.
        offset: u64,
        /// What does not agree.
        what: String,
    },
    /// The device takes no writes since a failure.
    #[error("the device is poisoned: {0}")]
    Poisoned(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The device is not served by that node.
    #[error("that node does not serve this device")]
    NoSuchDevice,
    /// The partition is not served by that node.
    #[error("that node does not serve this partition")]
    NoSuchPartition,
    /// The sender went by an old map.
    #[error("the map has moved on to epoch {epoch}")]
    StaleMap {
        /// The receiver's epoch.
        epoch: u64,
    },
    /// The request breaks a rule.
    #[error("the request is refused: {0}")]
    Invalid(String),
    /// The bytes that arrived are not those that were sent.
    #[error("damaged on the way: {0}")]
    Damaged(String),
    /// The receiver is at its bounds.
    #[error("the node is busy: {0}")]
    Busy(String),
    /// The store or the node is shutting down.
    #[error("the store is closed")]
    Closed,
    /// No answer in time: the request may have had its effect.
    #[error("no answer in time")]
    TimedOut,
    /// The node cannot be reached, or the connection broke: the request may have had its effect.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// The sender's certificate does not allow this.
    #[error("not allowed: {0}")]
    NotAllowed(String),
}

impl Fault {
    /// Whether the request may have had its effect all the same.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable(_) | Self::Closed | Self::Device(_) | Self::Poisoned(_))
    }

    fn parts(&self) -> (u32, u64, &str, Code) {
        match self {
            Self::NotFound => (1, 0, "", Code::NotFound),
            Self::Full => (2, 0, "", Code::ResourceExhausted),
            Self::Corrupt { offset, what } => (3, *offset, what, Code::DataLoss),
            Self::Poisoned(reason) => (4, 0, reason, Code::FailedPrecondition),
            Self::Device(reason) => (5, 0, reason, Code::Internal),
            Self::NoSuchDevice => (6, 0, "", Code::FailedPrecondition),
            Self::NoSuchPartition => (7, 0, "", Code::FailedPrecondition),
            Self::StaleMap { epoch } => (8, *epoch, "", Code::FailedPrecondition),
            Self::Invalid(reason) => (9, 0, reason, Code::InvalidArgument),
            Self::Damaged(reason) => (10, 0, reason, Code::DataLoss),
            Self::Busy(reason) => (11, 0, reason, Code::ResourceExhausted),
            Self::Closed => (12, 0, "", Code::Unavailable),
            Self::TimedOut => (13, 0, "", Code::DeadlineExceeded),
            Self::Unreachable(reason) => (14, 0, reason, Code::Unavailable),
            Self::NotAllowed(reason) => (15, 0, reason, Code::PermissionDenied),
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let (kind, number, text, code) = fault.parts();
        let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let details = pb::Fault { kind, number, text: text[..end].to_owned() }.encode_to_vec();
        Self::with_details(code, fault.to_string(), details.into())
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        if let Ok(pb::Fault { kind, number, text }) = pb::Fault::decode(status.details()) {
            let known = match kind {
                1 => Some(Self::NotFound),
                2 => Some(Self::Full),
                3 => Some(Self::Corrupt { offset: number, what: text }),
                4 => Some(Self::Poisoned(text)),
                5 => Some(Self::Device(text)),
                6 => Some(Self::NoSuchDevice),
                7 => Some(Self::NoSuchPartition),
                8 => Some(Self::StaleMap { epoch: number }),
                9 => Some(Self::Invalid(text)),
                10 => Some(Self::Damaged(text)),
                11 => Some(Self::Busy(text)),
                12 => Some(Self::Closed),
                13 => Some(Self::TimedOut),
                14 => Some(Self::Unreachable(text)),
                15 => Some(Self::NotAllowed(text)),
                _ => None,
            };
            if let Some(fault) = known {
                return fault;
            }
        }
        // What the transport itself says.
        let text = status.message().to_owned();
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => Self::TimedOut,
            Code::ResourceExhausted => Self::Busy(text),
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Invalid(text),
            Code::PermissionDenied | Code::Unauthenticated => Self::NotAllowed(text),
            _ => Self::Unreachable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_back_as_itself() {
        let text = || "why".to_owned();
        let all = [
            Fault::NotFound,
            Fault::Full,
            Fault::Corrupt { offset: 7 << 40, what: text() },
            Fault::Poisoned(text()),
            Fault::Device(text()),
            Fault::NoSuchDevice,
            Fault::NoSuchPartition,
            Fault::StaleMap { epoch: u64::MAX },
            Fault::Invalid(text()),
            Fault::Damaged(text()),
            Fault::Busy(text()),
            Fault::Closed,
            Fault::TimedOut,
            Fault::Unreachable(text()),
            Fault::NotAllowed(text()),
        ];
        for fault in all {
            assert_eq!(Fault::from(Status::from(fault.clone())), fault);
        }
    }

    #[test]
    fn the_transports_own_refusals_are_faults() {
        assert_eq!(Fault::from(Status::deadline_exceeded("x")), Fault::TimedOut);
        assert_eq!(Fault::from(Status::unavailable("x")), Fault::Unreachable("x".into()));
        let odd = Status::with_details(Code::Unknown, "m", vec![0xff; 9].into());
        assert_eq!(Fault::from(odd), Fault::Unreachable("m".into()));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let Fault::Device(text) = Fault::from(Status::from(Fault::Device("ü".repeat(400)))) else { panic!() };
        assert_eq!(text.chars().count(), 256);
    }
}
