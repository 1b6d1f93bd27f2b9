//! Metadata partitions between hosts: what the node of a partition serves ([`IndexHost`]) and how it is asked
//! ([`IndexClient`]). Commands, questions and answers are bytes here; the index gives them their meaning.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::{Lsn, PartitionId};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::Fault;
use crate::pb::index as pb;
use crate::pb::index::index_client::IndexClient as Client;
use crate::pb::index::index_server::{Index, IndexServer};
use crate::shards::Gate;

/// Bytes of one message of data.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest message: a command with its rows, or a page of answers.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Data of one command at most: what a journal record holds.
pub const DATA_BYTES_MAX: usize = 8 << 20;
/// Memory for commands on their way in, in units of KiB: 128 MiB. Beyond it senders wait.
const INTAKE_KIB: usize = 128 << 10;

/// Which partition, and the map that the sender went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The partition.
    pub partition: PartitionId,
    /// Epoch of the sender's map.
    pub map_epoch: u64,
}

/// What a node does for others with the partitions it serves.
pub trait IndexHost: Send + Sync + 'static {
    /// Carries a command out durably; gives its outcome.
    fn submit(&self, to: Target, command: Bytes, data: Vec<Bytes>) -> BoxFuture<'_, Result<Bytes, Fault>>;
    /// Answers a question from the rows of now.
    fn ask(&self, of: Target, question: Bytes) -> BoxFuture<'_, Result<Bytes, Fault>>;
    /// Bytes that live in the journal.
    fn read_data(&self, of: Target, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, Fault>>;
}

/// The service over a host.
#[must_use]
pub fn service(host: Arc<dyn IndexHost>, gate: Gate) -> IndexServer<IndexService> {
    IndexServer::new(IndexService { host, gate, intake: Arc::new(Semaphore::new(INTAKE_KIB)) })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// See [`service`].
pub struct IndexService {
    host: Arc<dyn IndexHost>,
    gate: Gate,
    intake: Arc<Semaphore>,
}

fn target(partition: Option<&pb::Partition>) -> Result<Target, Fault> {
    let partition = partition.ok_or_else(|| Fault::Invalid("no partition".into()))?;
    Ok(Target { partition: PartitionId(partition.partition), map_epoch: partition.map_epoch })
}

fn to_pb(target: Target) -> Option<pb::Partition> {
    Some(pb::Partition { partition: target.partition.0, map_epoch: target.map_epoch })
}

impl IndexService {
    async fn take_in(&self, mut parts: Streaming<pb::SubmitPart>) -> Result<Bytes, Fault> {
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(pb::submit_part::Part::Head(head)) = first else {
            return Err(Fault::Invalid("a command begins with its head".into()));
        };
        let to = target(head.partition.as_ref())?;
        let wanted = head.data_bytes as usize;
        if wanted > DATA_BYTES_MAX {
            return Err(Fault::Invalid(format!("{wanted} bytes of data are too many")));
        }
        let units = ((wanted + head.command.len()) / 1024 + 1) as u32;
        let _memory = self.intake.acquire_many(units).await.map_err(|_| Fault::Closed)?;
        let (mut data, mut len) = (Vec::new(), 0);
        while let Some(part) = parts.message().await? {
            let Some(pb::submit_part::Part::Chunk(chunk)) = part.part else {
                return Err(Fault::Invalid("a command has one head".into()));
            };
            len += chunk.len();
            if len > wanted {
                return Err(Fault::Invalid("more data than the head said".into()));
            }
            data.push(chunk);
        }
        if len != wanted {
            return Err(Fault::Damaged(format!("{len} of {wanted} bytes arrived")));
        }
        self.host.submit(to, head.command, data).await
    }
}

#[tonic::async_trait]
impl Index for IndexService {
    type ReadDataStream = BoxStream<'static, Result<pb::DataPart, Status>>;

    async fn submit(&self, request: Request<Streaming<pb::SubmitPart>>) -> Result<Response<pb::SubmitDone>, Status> {
        (self.gate)(request.extensions())?;
        let outcome = self.take_in(request.into_inner()).await?;
        Ok(Response::new(pb::SubmitDone { outcome }))
    }

    async fn ask(&self, request: Request<pb::Question>) -> Result<Response<pb::Answer>, Status> {
        (self.gate)(request.extensions())?;
        let ask = request.into_inner();
        let answer = self.host.ask(target(ask.partition.as_ref())?, ask.question).await?;
        Ok(Response::new(pb::Answer { answer }))
    }

    async fn read_data(&self, request: Request<pb::DataRequest>) -> Result<Response<Self::ReadDataStream>, Status> {
        (self.gate)(request.extensions())?;
        let ask = request.into_inner();
        if ask.start > ask.end || (ask.end - ask.start) as usize > DATA_BYTES_MAX {
            return Err(Fault::Invalid("no such range can be".into()).into());
        }
        let bytes = self.host.read_data(target(ask.partition.as_ref())?, Lsn(ask.lsn), ask.start..ask.end).await?;
        let count = bytes.len().div_ceil(CHUNK_BYTES);
        let chunk = move |number: usize| {
            let start = number * CHUNK_BYTES;
            Ok(pb::DataPart { chunk: bytes.slice(start..bytes.len().min(start + CHUNK_BYTES)) })
        };
        Ok(Response::new(stream::iter((0..count).map(chunk)).boxed()))
    }
}

/// The partitions of another node. Clones share the connection.
#[derive(Debug, Clone)]
pub struct IndexClient {
    client: Client<Channel>,
}

impl IndexClient {
    /// Over a connection to the node.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let client = Client::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { client }
    }

    /// Carries a command out; gives its outcome.
    ///
    /// # Errors
    /// [`Fault`]; see [`Fault::is_outcome_unknown`].
    pub async fn submit(
        &self,
        to: Target,
        command: Bytes,
        data: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, Fault> {
        let data_bytes = data.iter().map(Bytes::len).sum::<usize>() as u32;
        let head = pb::SubmitHead { partition: to_pb(to), command, data_bytes };
        let chunks = data.into_iter().flat_map(|piece| {
            (0..piece.len().div_ceil(CHUNK_BYTES))
                .map(move |number| piece.slice(number * CHUNK_BYTES..piece.len().min((number + 1) * CHUNK_BYTES)))
        });
        let parts = std::iter::once(pb::submit_part::Part::Head(head)).chain(chunks.map(pb::submit_part::Part::Chunk));
        let mut request = Request::new(stream::iter(parts.map(|part| pb::SubmitPart { part: Some(part) })));
        request.set_timeout(deadline);
        Ok(self.client.clone().submit(request).await?.into_inner().outcome)
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn ask(&self, of: Target, question: Bytes, deadline: Duration) -> Result<Bytes, Fault> {
        let mut request = Request::new(pb::Question { partition: to_pb(of), question });
        request.set_timeout(deadline);
        Ok(self.client.clone().ask(request).await?.into_inner().answer)
    }

    /// Bytes that live in the journal, in pieces.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn read_data(
        &self,
        of: Target,
        lsn: Lsn,
        range: Range<u32>,
        deadline: Duration,
    ) -> Result<Vec<Bytes>, Fault> {
        let ask = pb::DataRequest { partition: to_pb(of), lsn: lsn.0, start: range.start, end: range.end };
        let mut request = Request::new(ask);
        request.set_timeout(deadline);
        let mut parts = self.client.clone().read_data(request).await?.into_inner();
        let (mut got, mut len) = (Vec::new(), 0);
        while let Some(part) = parts.message().await? {
            len += part.chunk.len();
            if len > range.len() {
                return Err(Fault::Damaged("more bytes than were asked for".into()));
            }
            got.push(part.chunk);
        }
        if len == range.len() { Ok(got) } else { Err(Fault::Damaged(format!("{len} of {} bytes came", range.len()))) }
    }
}
