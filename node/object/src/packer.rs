//! The packer: gathers small objects from the journal into erasure-coded stripes, so that they end up
//! costing (k+m)/k, and so that the journal can be trimmed. Half-dead packs are gathered again.
//!
//! A pack is a stripe like any other; its bytes start with a directory, for the bench. A move takes
//! effect only where the row still says what the packer read.

use bytes::Bytes;
use format::{PackEntry, encode_pack_directory};

use index::model::{Command, Outcome, PackMove};
use index::{PackWish, SmallObject};

use crate::api::ObjectResult;
use crate::inner::{index_error, refused, unexpected};
use crate::read::read_layout;
use crate::store::ObjectStore;
use crate::write::{BodyInfo, StripeWriter};

/// Objects in one pack at most; bounds the command that moves them.
const OBJECTS_MAX: u32 = 4096;
/// Journal positions that small data may hold back before it is packed, however little it is.
const LAG_MAX: u64 = 8192;
/// A pack that uses at most this share of its bytes, in percent, is gathered again.
const REPACK_PERCENT: u32 = 50;

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackReport {
    /// Objects that moved.
    pub moved: u32,
    /// Bytes of the pack.
    pub bytes: u64,
}

impl ObjectStore {
    /// Writes at most one pack; gives nothing when there was too little to gather. `now` packs whatever
    /// there is.
    ///
    /// # Errors
    /// What index or stores say; nothing is lost, the next call tries again.
    pub async fn pack(&self, now: bool) -> ObjectResult<Option<PackReport>> {
        let inner = &self.inner;
        let Some(members) = self.gather(now).await? else { return Ok(None) };
        let mut entries = Vec::with_capacity(members.len());
        let mut data: Vec<Bytes> = Vec::with_capacity(members.len());
        let (mut offset, mut read) = (0, Vec::with_capacity(members.len()));
        for (member, modified_ms) in members {
            // One that cannot be read stays where it is, and does not hold the others back.
            let bytes = match read_layout(inner, &member.from, u64::from(member.size)).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(bucket = member.bucket, key = member.key, %error, "a small object cannot be packed");
                    continue;
                }
            };
            entries.push(PackEntry {
                bucket: member.bucket.clone(),
                key: member.key.clone(),
                part: member.part.unwrap_or(0),
                modified_ms,
                offset,
                len: member.size,
            });
            offset += member.size;
            data.push(bytes);
            read.push(member);
        }
        if read.is_empty() {
            return Ok(None);
        }
        self.write_pack(read, &entries, data).await.map(Some)
    }

    async fn write_pack(
        &self,
        members: Vec<SmallObject>,
        entries: &[PackEntry],
        data: Vec<Bytes>,
    ) -> ObjectResult<PackReport> {
        let inner = &self.inner;
        let directory = encode_pack_directory(entries);
        let bytes = directory.len() as u64 + data.iter().map(|d| d.len() as u64).sum::<u64>();
        let info = BodyInfo {
            bucket: String::new(),
            key: String::new(),
            upload: inner.unique(),
            part: 0,
            modified_ms: inner.clock.unix_ms(),
            pack: true,
        };
        let mut writer = StripeWriter::new(inner, info, Some(bytes));
        writer.push(&directory).await?;
        for piece in &data {
            writer.push(piece).await?;
        }
        let pending = writer.finish().await?;
        let [run] = pending.runs[..] else { unreachable!("a pack fits one stripe") };
        assert_eq!(run.count, 1, "a pack fits one stripe");
        let mut at = directory.len() as u32;
        let moves = members
            .into_iter()
            .map(|member| {
                let offset = at;
                at += member.size;
                let SmallObject { from, size, bucket, key, part } = member;
                PackMove { bucket, key, part, from, offset, size }
            })
            .collect();
        let command = Command::Pack {
            stripe: run.first,
            group: run.group,
            pack_bytes: bytes as u32,
            moves,
            missing: pending.owed(),
        };
        pending.commit();
        match inner.partition.submit(command, Vec::new()).await.map_err(|error| index_error(&error))? {
            Outcome::Packed { moved } => {
                inner.stats.packs_written.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                inner.stats.packed_objects.fetch_add(u64::from(moved), std::sync::atomic::Ordering::Relaxed);
                Ok(PackReport { moved, bytes })
            }
            Outcome::Refused(refusal) => Err(refused(refusal)),
            other => Err(unexpected(&other)),
        }
    }

    /// The members of the next pack with their objects' times, when there is enough for one.
    async fn gather(&self, now: bool) -> ObjectResult<Option<Vec<(SmallObject, u64)>>> {
        let inner = &self.inner;
        // One packer is enough: beside the rows.
        if inner.partition.local().is_none() {
            return Ok(None);
        }
        let wish = PackWish {
            room_bytes: inner.redundancy.stripe_bytes() as u32,
            objects_max: OBJECTS_MAX,
            lag_max: LAG_MAX,
            repack_percent: REPACK_PERCENT,
            now,
        };
        let members = inner.partition.to_pack(wish).await.map_err(|error| index_error(&error))?;
        Ok((!members.is_empty()).then_some(members))
    }
}
