//! XML bodies are looked through before any XML library sees them.
//!
//! [`Scanner`] is a plain state machine with a few bytes of state: it refuses declarations (`<!`: document
//! types, entities, and with them CDATA and comments, which no S3 client sends), entities other than XML's
//! own five and character numbers, deep nesting, and too many bytes. [`XmlBody`] runs it over a request's
//! body as it is read, and verifies the digests that were declared for it; s3s reads such a body only after
//! it has verified the signature. Not a validator: what passes may still be no XML, which s3s then says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use md5::Md5;
use object::api::{BodyError, Checksum};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, StdError, s3_error};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::context::RequestContext;
use crate::digest::Running;
use crate::incoming::RawBody;

/// Open elements at most; S3's deepest request has five.
const DEPTH_MAX: u32 = 16;
/// Bytes of an entity's name at most: `#x10FFFF`.
const ENTITY_BYTES_MAX: usize = 8;

/// Why XML is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum XmlRefusal {
    #[error("the body is too long")]
    TooLong,
    #[error("declarations are not allowed")]
    Declaration,
    #[error("entities are not allowed")]
    Entity,
    #[error("elements are nested too deeply")]
    TooDeep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After `&`; so many bytes of the name have come.
    Entity,
    /// After `<`.
    Open,
    /// Inside a start tag; `slash`: the last byte was `/`.
    Start {
        quote: Option<u8>,
        slash: bool,
    },
    /// Inside an end tag.
    End,
    /// Inside `<? ... >`.
    Instruction,
}

/// Looks through XML piece by piece.
pub(crate) struct Scanner {
    state: State,
    depth: u32,
    left: usize,
    entity: [u8; ENTITY_BYTES_MAX],
    entity_bytes: usize,
}

impl Scanner {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: State::Text, depth: 0, left: bytes_max, entity: [0; ENTITY_BYTES_MAX], entity_bytes: 0 }
    }

    /// Looks through the next piece.
    pub(crate) fn scan(&mut self, piece: &[u8]) -> Result<(), XmlRefusal> {
        self.left = self.left.checked_sub(piece.len()).ok_or(XmlRefusal::TooLong)?;
        piece.iter().try_for_each(|byte| self.step(*byte))
    }

    fn step(&mut self, byte: u8) -> Result<(), XmlRefusal> {
        self.state = match (self.state, byte) {
            (State::Text, b'<') => State::Open,
            (State::Text | State::Start { quote: Some(_), .. }, b'&') => {
                // Entities in attributes are of no use to S3 either; leaving the tag's state would lose count.
                if self.state != State::Text {
                    return Err(XmlRefusal::Entity);
                }
                self.entity_bytes = 0;
                State::Entity
            }
            (State::Text, _) => State::Text,
            (State::Entity, b';') => self.end_entity()?,
            (State::Entity, _) => self.push_entity(byte)?,
            (State::Open, b'!') => return Err(XmlRefusal::Declaration),
            (State::Open, b'?') => State::Instruction,
            (State::Open, b'/') => State::End,
            (State::Open, _) => self.open()?,
            (State::Start { quote: Some(quote), .. }, _) => {
                State::Start { quote: (byte != quote).then_some(quote), slash: false }
            }
            (State::Start { slash, .. }, b'>') => {
                if slash {
                    self.depth -= 1;
                }
                State::Text
            }
            (State::Start { .. }, b'"' | b'\'') => State::Start { quote: Some(byte), slash: false },
            (State::Start { .. }, _) => State::Start { quote: None, slash: byte == b'/' },
            (State::End, b'>') => {
                self.depth = self.depth.saturating_sub(1);
                State::Text
            }
            (State::Instruction, b'>') => State::Text,
            (state @ (State::End | State::Instruction), _) => state,
        };
        Ok(())
    }

    fn open(&mut self) -> Result<State, XmlRefusal> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(XmlRefusal::TooDeep);
        }
        Ok(State::Start { quote: None, slash: false })
    }

    fn push_entity(&mut self, byte: u8) -> Result<State, XmlRefusal> {
        let place = self.entity.get_mut(self.entity_bytes).ok_or(XmlRefusal::Entity)?;
        *place = byte;
        self.entity_bytes += 1;
        Ok(State::Entity)
    }

    fn end_entity(&mut self) -> Result<State, XmlRefusal> {
        let known = match &self.entity[..self.entity_bytes] {
            b"lt" | b"gt" | b"amp" | b"quot" | b"apos" => true,
            [b'#', b'x', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit),
            [b'#', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        if known { Ok(State::Text) } else { Err(XmlRefusal::Entity) }
    }
}

/// What was declared of an XML body.
#[derive(Default)]
pub(crate) struct XmlDigests {
    pub(crate) bytes: Option<u64>,
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) checksum: Option<Checksum>,
}

/// A request's XML on its way into s3s.
pub(crate) struct XmlBody {
    raw: RawBody,
    context: Arc<RequestContext>,
    scanner: Scanner,
    declared: XmlDigests,
    md5: Md5,
    sha256: Sha256,
    running: Option<Running>,
    passed: u64,
    /// The digests have been compared: with the last declared byte, before s3s (which verifies some of them
    /// too, but cannot name its error) sees it.
    verified: bool,
    over: bool,
}

/// What s3s is told; the context holds the error that the client gets.
#[derive(Debug, Error)]
#[error("the XML body was refused")]
struct Refused;

impl XmlBody {
    pub(crate) fn new(raw: RawBody, context: Arc<RequestContext>, bytes_max: usize, declared: XmlDigests) -> Self {
        let running = declared.checksum.as_ref().map(|c| Running::new(c.algorithm));
        Self {
            raw,
            context,
            scanner: Scanner::new(bytes_max),
            declared,
            md5: Md5::new(),
            sha256: Sha256::new(),
            running,
            passed: 0,
            verified: false,
            over: false,
        }
    }

    fn pass(&mut self, bytes: &Bytes) -> Result<(), S3Error> {
        self.scanner.scan(bytes).map_err(|refusal| s3_error!(MalformedXML, "The XML is not acceptable: {refusal}."))?;
        self.passed += bytes.len() as u64;
        if self.declared.md5.is_some() {
            self.md5.update(bytes);
        }
        if self.declared.sha256.is_some() {
            self.sha256.update(bytes);
        }
        if let Some(running) = &mut self.running {
            running.update(bytes);
        }
        if self.declared.bytes == Some(self.passed) {
            self.finish().map_err(|error| crate::errors::body_error(&error))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BodyError> {
        if std::mem::replace(&mut self.verified, true) {
            return Ok(());
        }
        if self.declared.bytes.is_some_and(|bytes| bytes != self.passed) {
            return Err(BodyError::Incomplete);
        }
        let md5: [u8; 16] = std::mem::take(&mut self.md5).finalize().into();
        if self.declared.md5.is_some_and(|declared| declared != md5) {
            return Err(BodyError::BadDigest);
        }
        let sha256: [u8; 32] = std::mem::take(&mut self.sha256).finalize().into();
        if self.declared.sha256.is_some_and(|declared| declared != sha256) {
            return Err(BodyError::BadChecksum(crate::declared::CONTENT_SHA256));
        }
        if let (Some(declared), Some(running)) = (&self.declared.checksum, self.running.take())
            && declared.value != running.finish().value
        {
            return Err(BodyError::BadChecksum(crate::digest::algorithm_name(declared.algorithm)));
        }
        Ok(())
    }

    fn refuse(&mut self, error: S3Error) -> Poll<Option<Result<Bytes, StdError>>> {
        self.over = true;
        self.context.refuse(error);
        Poll::Ready(Some(Err(Box::new(Refused))))
    }
}

impl Stream for XmlBody {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        match ready!(self.raw.poll_data(cx)) {
            Some(Ok(bytes)) => match self.pass(&bytes) {
                Ok(()) => Poll::Ready(Some(Ok(bytes))),
                Err(error) => self.refuse(error),
            },
            Some(Err(error)) => self.refuse(crate::errors::body_error(&error)),
            None => {
                self.over = true;
                match self.finish() {
                    Ok(()) => Poll::Ready(None),
                    Err(error) => self.refuse(crate::errors::body_error(&error)),
                }
            }
        }
    }
}

impl ByteStream for XmlBody {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::unknown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans whole and byte by byte: the cut must not matter.
    fn scan(text: &str, max: usize) -> Result<(), XmlRefusal> {
        let whole = Scanner::new(max).scan(text.as_bytes());
        let mut scanner = Scanner::new(max);
        let bytewise = text.as_bytes().chunks(1).try_for_each(|byte| scanner.scan(byte));
        assert_eq!(whole.is_ok(), bytewise.is_ok(), "{text}");
        bytewise
    }

    #[test]
    fn what_clients_send_passes() {
        for text in [
            "",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns='x>y'><Object><Key>a&amp;b&lt;&#10;&#x1F;</Key></Object></Delete>",
            "<A b=\"/\"><C/><C /></A>",
        ] {
            assert_eq!(scan(text, 1000), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_attackers_send_is_refused() {
        let many = "<a>".repeat(17);
        let cases = [
            ("<!DOCTYPE x [<!ENTITY e 'x'>]><a>&e;</a>", XmlRefusal::Declaration),
            ("<a><![CDATA[x]]></a>", XmlRefusal::Declaration),
            ("<a>&e;</a>", XmlRefusal::Entity),
            ("<a>&;</a>", XmlRefusal::Entity),
            ("<a>&aaaaaaaaaaaaaaaaaaaaaaaaa</a>", XmlRefusal::Entity),
            ("<a b='&e;'/>", XmlRefusal::Entity),
            (many.as_str(), XmlRefusal::TooDeep),
        ];
        for (text, refusal) in cases {
            assert_eq!(scan(text, 10_000), Err(refusal), "{text}");
        }
        assert_eq!(scan("<a>0123456789</a>", 16), Err(XmlRefusal::TooLong));
    }

    #[test]
    fn siblings_do_not_count_as_depth() {
        assert_eq!(scan(&"<a></a><b/>".repeat(1000), 1_000_000), Ok(()));
    }
}
