//! Shards between hosts: what a node serves ([`ShardHost`]) and how it is asked ([`ShardClient`]).
//!
//! A payload travels as slices of what was sent or received, with one checksum over the whole, taken where it comes
//! from and compared where it arrives. Nothing is answered before the store has answered.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::DeviceId;
use bytes::Bytes;
use format::{DESCRIPTOR_MAX_BYTES, PAYLOAD_MAX_BYTES, ShardKey, Space};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::Fault;
use crate::identity::PeerKind;
use crate::pb::shards as pb;
use crate::pb::shards::shards_client::ShardsClient;
use crate::pb::shards::shards_server::{Shards, ShardsServer};
use crate::tls_conn::Peer;

/// Bytes of one message of a payload.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest message we take: a chunk, or a list of keys.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Keys in one delete, and shards in one page of a list.
pub const KEYS_MAX: usize = 8192;
/// Memory for payloads that are on their way in, in units of KiB: 256 MiB. Beyond it senders wait.
const INTAKE_KIB: usize = 256 << 10;

/// Whom a request is for, and the map that its sender went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The device.
    pub device: DeviceId,
    /// Epoch of the sender's map.
    pub map_epoch: u64,
}

/// What a device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceStats {
    /// What its extents hold.
    pub capacity_bytes: u64,
    /// Bytes of live records.
    pub live_bytes: u64,
    /// Bytes that new records may take.
    pub available_bytes: u64,
    /// Live records.
    pub records: u64,
    /// Takes no writes since a failure.
    pub poisoned: bool,
}

/// What a node does for others with its own devices.
pub trait ShardHost: Send + Sync + 'static {
    /// Stores a record durably.
    fn put(
        &self,
        to: Target,
        key: ShardKey,
        descriptor: Bytes,
        payload: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<(), Fault>>;
    /// Verified bytes of a record.
    fn get(&self, from: Target, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, Fault>>;
    /// Payload length and descriptor.
    fn describe(&self, at: Target, key: ShardKey) -> BoxFuture<'_, Result<(u32, Bytes), Fault>>;
    /// Removes records durably.
    fn delete(&self, at: Target, keys: Vec<ShardKey>) -> BoxFuture<'_, Result<(), Fault>>;
    /// Records after a key, with their payload lengths.
    fn list(
        &self,
        at: Target,
        after: Option<ShardKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(ShardKey, u32)>, Fault>>;
    /// How full the device is.
    fn stats(&self, at: Target) -> BoxFuture<'_, Result<DeviceStats, Fault>>;
}

/// Whether the sender of a request may ask for shards; judged by what the connection's certificate said.
pub type Gate = Arc<dyn Fn(&http::Extensions) -> Result<(), Fault> + Send + Sync>;

/// Lets nodes of the cluster in and nobody else.
#[must_use]
pub fn nodes_only() -> Gate {
    Arc::new(|extensions| {
        let peer = extensions.get::<Peer>().and_then(Peer::identity);
        match peer.map(|peer| &peer.kind) {
            Some(PeerKind::Node(_)) => Ok(()),
            Some(other) => Err(Fault::NotAllowed(format!("this is for nodes, not for {other}"))),
            None => Err(Fault::NotAllowed("this is for nodes of the cluster".into())),
        }
    })
}

/// The service over a host.
#[must_use]
pub fn service(host: Arc<dyn ShardHost>, gate: Gate) -> ShardsServer<ShardService> {
    ShardsServer::new(ShardService { host, gate, intake: Arc::new(Semaphore::new(INTAKE_KIB)) })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// See [`service`].
pub struct ShardService {
    host: Arc<dyn ShardHost>,
    gate: Gate,
    intake: Arc<Semaphore>,
}

fn target(target: Option<&pb::Target>) -> Result<Target, Fault> {
    let target = target.ok_or_else(|| Fault::Invalid("no target".into()))?;
    let device = target.device[..].try_into().map_err(|_| Fault::Invalid("a device id of 16 bytes".into()))?;
    Ok(Target { device: DeviceId(device), map_epoch: target.map_epoch })
}

fn key(key: Option<&pb::Key>) -> Result<ShardKey, Fault> {
    let key = key.ok_or_else(|| Fault::Invalid("no key".into()))?;
    let space = u8::try_from(key.space).ok().and_then(Space::from_byte);
    match (space, u8::try_from(key.slot)) {
        (Some(space), Ok(slot)) => Ok(ShardKey { space, owner: key.owner, id: key.id, slot }),
        _ => Err(Fault::Invalid("no such key can be".into())),
    }
}

fn to_pb(key: &ShardKey) -> pb::Key {
    pb::Key { space: key.space.to_byte().into(), owner: key.owner, id: key.id, slot: key.slot.into() }
}

fn target_pb(target: Target) -> Option<pb::Target> {
    Some(pb::Target { device: Bytes::copy_from_slice(&target.device.0), map_epoch: target.map_epoch })
}

impl ShardService {
    async fn take_in(&self, mut parts: Streaming<pb::PutPart>) -> Result<(), Fault> {
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(pb::put_part::Part::Head(head)) = first else {
            return Err(Fault::Invalid("a put begins with its head".into()));
        };
        let (to, key) = (target(head.target.as_ref())?, key(head.key.as_ref())?);
        let wanted = head.payload_bytes as usize;
        if wanted > PAYLOAD_MAX_BYTES || head.descriptor.len() > DESCRIPTOR_MAX_BYTES {
            return Err(Fault::Invalid(format!("a payload of {wanted} bytes is too large")));
        }
        let units = (wanted / 1024 + 1) as u32;
        let _memory = self.intake.acquire_many(units).await.map_err(|_| Fault::Closed)?;
        let (mut payload, mut len, mut crc) = (Vec::new(), 0, crc32fast::Hasher::new());
        while let Some(part) = parts.message().await? {
            let Some(pb::put_part::Part::Chunk(chunk)) = part.part else {
                return Err(Fault::Invalid("a put has one head".into()));
            };
            len += chunk.len();
            if len > wanted {
                return Err(Fault::Invalid("more bytes than the head said".into()));
            }
            crc.update(&chunk);
            payload.push(chunk);
        }
        if len != wanted {
            return Err(Fault::Damaged(format!("{len} of {wanted} bytes arrived")));
        }
        if crc.finalize() != head.payload_crc {
            return Err(Fault::Damaged("the payload's checksum does not fit".into()));
        }
        self.host.put(to, key, head.descriptor, payload).await
    }
}

#[tonic::async_trait]
impl Shards for ShardService {
    type GetStream = BoxStream<'static, Result<pb::GetPart, Status>>;

    async fn put(&self, request: Request<Streaming<pb::PutPart>>) -> Result<Response<pb::PutDone>, Status> {
        (self.gate)(request.extensions())?;
        self.take_in(request.into_inner()).await?;
        Ok(Response::new(pb::PutDone {}))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        (self.gate)(request.extensions())?;
        let ask = request.into_inner();
        let (from, key) = (target(ask.target.as_ref())?, key(ask.key.as_ref())?);
        if ask.start > ask.end || ask.end as usize > PAYLOAD_MAX_BYTES {
            return Err(Fault::Invalid("no such range can be".into()).into());
        }
        let bytes = self.host.get(from, key, ask.start..ask.end).await?;
        Ok(Response::new(parts_of(bytes).map(Ok).boxed()))
    }

    async fn describe(&self, request: Request<pb::DescribeRequest>) -> Result<Response<pb::Description>, Status> {
        (self.gate)(request.extensions())?;
        let ask = request.into_inner();
        let (payload_bytes, descriptor) =
            self.host.describe(target(ask.target.as_ref())?, key(ask.key.as_ref())?).await?;
        Ok(Response::new(pb::Description { payload_bytes, descriptor }))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Result<Response<pb::DeleteDone>, Status> {
        (self.gate)(request.extensions())?;
        let ask = request.into_inner();
        if ask.keys.len() > KEYS_MAX {
            return Err(Fault::Invalid(format!("at most {KEYS_MAX} keys at once")).into());
        }
        let keys = ask.keys.iter().map(|one| key(Some(one))).collect::<Result<_, _>>()?;
        self.host.delete(target(ask.target.as_ref())?, keys).await?;
        Ok(Response::new(pb::DeleteDone {}))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListPage>, Status> {
        (self.gate)(request.extensions())?;
        let ask = request.into_inner();
        let after = ask.after.as_ref().map(|after| key(Some(after))).transpose()?;
        let limit = (ask.limit as usize).min(KEYS_MAX);
        let found = self.host.list(target(ask.target.as_ref())?, after, limit).await?;
        let listed = |(key, payload_bytes): &(ShardKey, u32)| pb::Listed {
            key: Some(to_pb(key)),
            payload_bytes: *payload_bytes,
        };
        Ok(Response::new(pb::ListPage { shards: found.iter().map(listed).collect() }))
    }

    async fn stat(&self, request: Request<pb::StatsRequest>) -> Result<Response<pb::Stats>, Status> {
        (self.gate)(request.extensions())?;
        let stats = self.host.stats(target(request.into_inner().target.as_ref())?).await?;
        Ok(Response::new(pb::Stats {
            capacity_bytes: stats.capacity_bytes,
            live_bytes: stats.live_bytes,
            available_bytes: stats.available_bytes,
            records: stats.records,
            poisoned: stats.poisoned,
        }))
    }
}

fn parts_of(bytes: Bytes) -> impl Stream<Item = pb::GetPart> {
    let crc = crc32fast::hash(&bytes);
    let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    stream::iter((0..count).map(move |number| {
        let start = number * CHUNK_BYTES;
        let last = number + 1 == count;
        let chunk = bytes.slice(start..bytes.len().min(start + CHUNK_BYTES));
        pb::GetPart { chunk, last, crc: if last { crc } else { 0 } }
    }))
}

/// Another node's devices. Clones share the connection.
#[derive(Debug, Clone)]
pub struct ShardClient {
    client: ShardsClient<Channel>,
}

impl ShardClient {
    /// Over a connection to the node.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { client: ShardsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX) }
    }

    /// Stores a record durably; `payload` in pieces.
    ///
    /// # Errors
    /// [`Fault`]; see [`Fault::is_outcome_unknown`].
    pub async fn put(
        &self,
        to: Target,
        key: ShardKey,
        descriptor: Bytes,
        payload: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<(), Fault> {
        let mut crc = crc32fast::Hasher::new();
        payload.iter().for_each(|piece| crc.update(piece));
        let head = pb::PutHead {
            target: target_pb(to),
            key: Some(to_pb(&key)),
            payload_bytes: payload.iter().map(Bytes::len).sum::<usize>() as u32,
            descriptor,
            payload_crc: crc.finalize(),
        };
        let chunks = payload.into_iter().flat_map(|piece| {
            (0..piece.len().div_ceil(CHUNK_BYTES))
                .map(move |number| piece.slice(number * CHUNK_BYTES..piece.len().min((number + 1) * CHUNK_BYTES)))
        });
        let parts = std::iter::once(pb::put_part::Part::Head(head)).chain(chunks.map(pb::put_part::Part::Chunk));
        let mut request = Request::new(stream::iter(parts.map(|part| pb::PutPart { part: Some(part) })));
        request.set_timeout(deadline);
        self.client.clone().put(request).await?;
        Ok(())
    }

    /// Verified bytes of a record, in pieces.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn get(
        &self,
        from: Target,
        key: ShardKey,
        range: Range<u32>,
        deadline: Duration,
    ) -> Result<Vec<Bytes>, Fault> {
        let ask =
            pb::GetRequest { target: target_pb(from), key: Some(to_pb(&key)), start: range.start, end: range.end };
        let mut request = Request::new(ask);
        request.set_timeout(deadline);
        let mut parts = self.client.clone().get(request).await?.into_inner();
        let (mut got, mut len, mut crc) = (Vec::new(), 0, crc32fast::Hasher::new());
        while let Some(part) = parts.message().await? {
            len += part.chunk.len();
            if len > range.len() {
                return Err(Fault::Damaged("more bytes than were asked for".into()));
            }
            crc.update(&part.chunk);
            got.push(part.chunk);
            if part.last {
                let fits = crc.finalize() == part.crc;
                return if fits { Ok(got) } else { Err(Fault::Damaged("the answer's checksum does not fit".into())) };
            }
        }
        Err(Fault::Damaged("the answer ended early".into()))
    }

    /// Payload length and descriptor.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn describe(&self, at: Target, key: ShardKey, deadline: Duration) -> Result<(u32, Bytes), Fault> {
        let mut request = Request::new(pb::DescribeRequest { target: target_pb(at), key: Some(to_pb(&key)) });
        request.set_timeout(deadline);
        let found = self.client.clone().describe(request).await?.into_inner();
        Ok((found.payload_bytes, found.descriptor))
    }

    /// Removes records durably.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn delete(&self, at: Target, keys: &[ShardKey], deadline: Duration) -> Result<(), Fault> {
        for keys in keys.chunks(KEYS_MAX) {
            let ask = pb::DeleteRequest { target: target_pb(at), keys: keys.iter().map(to_pb).collect() };
            let mut request = Request::new(ask);
            request.set_timeout(deadline);
            self.client.clone().delete(request).await?;
        }
        Ok(())
    }

    /// Records after a key, with their payload lengths; at most [`KEYS_MAX`].
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn list(
        &self,
        at: Target,
        after: Option<ShardKey>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Vec<(ShardKey, u32)>, Fault> {
        let limit = limit.min(KEYS_MAX) as u32;
        let ask = pb::ListRequest { target: target_pb(at), after: after.as_ref().map(to_pb), limit };
        let mut request = Request::new(ask);
        request.set_timeout(deadline);
        let page = self.client.clone().list(request).await?.into_inner();
        page.shards.iter().map(|listed| Ok((key_of(listed)?, listed.payload_bytes))).collect()
    }

    /// How full the device is.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn stats(&self, at: Target, deadline: Duration) -> Result<DeviceStats, Fault> {
        let mut request = Request::new(pb::StatsRequest { target: target_pb(at) });
        request.set_timeout(deadline);
        let stats = self.client.clone().stat(request).await?.into_inner();
        Ok(DeviceStats {
            capacity_bytes: stats.capacity_bytes,
            live_bytes: stats.live_bytes,
            available_bytes: stats.available_bytes,
            records: stats.records,
            poisoned: stats.poisoned,
        })
    }
}

fn key_of(listed: &pb::Listed) -> Result<ShardKey, Fault> {
    key(listed.key.as_ref())
}
