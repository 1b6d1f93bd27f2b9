//! The tables of a view and how their keys and rows are encoded.
//!
//! Rows are a version byte (1) and postcard. Object keys are `bucket NUL key`: bucket names contain no
//! NUL, so that the bytes sort by bucket, then by key in UTF-8 order.

use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ViewError, ViewResult};
use crate::model::{Checksum, ETag, Layout, ObjectMeta, ObjectRow};

/// Version of every row. 1: the first.
const ROW_VERSION: u8 = 1;
/// Version of the set of tables, kept under [`meta::SCHEMA`]. 1: the first.
pub(crate) const SCHEMA_VERSION: u64 = 1;
/// A layout that encodes longer than this has a row of its own, so that listings stay compact.
pub(crate) const INLINE_LAYOUT_BYTES: usize = 1024;

pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(crate) const BUCKETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("buckets");
/// `bucket NUL key` -> [`StoredObject`].
pub(crate) const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
/// `bucket NUL key` -> [`Layout`], when it is long.
pub(crate) const LAYOUTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("layouts");
/// Upload -> [`StoredUpload`].
pub(crate) const UPLOADS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("uploads");
/// (`bucket NUL key`, upload).
pub(crate) const UPLOADS_BY_KEY: TableDefinition<'_, (&[u8], u128), ()> = TableDefinition::new("uploads by key");
/// (upload, part number) -> `PartRow`.
pub(crate) const PARTS: TableDefinition<'_, (u128, u32), &[u8]> = TableDefinition::new("parts");
/// Upload -> [`Completed`].
pub(crate) const COMPLETED: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("completed");
/// Order of completion -> upload.
pub(crate) const COMPLETED_ORDER: TableDefinition<'_, u64, u128> = TableDefinition::new("completed order");
/// Garbage row number -> stripe runs.
pub(crate) const GARBAGE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("garbage");
/// (stripe, slot) -> (group, stripe bytes).
pub(crate) const MISSING: TableDefinition<'_, (u64, u8), (u32, u32)> = TableDefinition::new("missing shards");
/// (position, offset) of data that lives in the journal only -> [`Held`].
pub(crate) const UNPACKED: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("unpacked");
/// Pack stripe -> [`StoredPack`].
pub(crate) const PACKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("packs");
/// (pack stripe, offset) -> [`Held`].
pub(crate) const PACK_MEMBERS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("pack members");

/// Keys of [`META`].
pub(crate) mod meta {
    pub(crate) const SCHEMA: &str = "schema";
    pub(crate) const APPLIED: &str = "applied";
    pub(crate) const GARBAGE_NEXT: &str = "garbage next";
    pub(crate) const COMPLETED_NEXT: &str = "completed next";
    pub(crate) const STRIPES_BELOW: &str = "stripes below";
    pub(crate) const STRIPES_FENCE: &str = "stripes fence";
    pub(crate) const OBJECTS: &str = "objects";
    pub(crate) const OBJECT_BYTES: &str = "object bytes";
}

/// An object without a long layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredObject {
    pub(crate) size: u64,
    pub(crate) etag: ETag,
    pub(crate) modified_ms: u64,
    pub(crate) meta: ObjectMeta,
    pub(crate) checksum: Option<Checksum>,
    /// `None`: in [`LAYOUTS`].
    pub(crate) layout: Option<Layout>,
}

impl StoredObject {
    pub(crate) fn into_row(self, layout: Layout) -> ObjectRow {
        let Self { size, etag, modified_ms, meta, checksum, .. } = self;
        ObjectRow { size, etag, modified_ms, meta, checksum, layout }
    }

    pub(crate) fn of(row: &ObjectRow, layout: Option<Layout>) -> Self {
        let ObjectRow { size, etag, modified_ms, meta, checksum, .. } = row.clone();
        Self { size, etag, modified_ms, meta, checksum, layout }
    }
}

/// An upload under way, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredUpload {
    pub(crate) bucket: String,
    pub(crate) row: crate::model::UploadRow,
}

/// A completion that may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Completed {
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// Without its layout.
    pub(crate) object: StoredObject,
}

/// Whose bytes lie at a place in the journal or in a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owner {
    Object { bucket: String, key: String, part: Option<u32> },
    Upload { upload: u128, number: u32 },
}

/// Bytes at a place, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) owner: Owner,
    pub(crate) size: u32,
}

/// A pack and how much of it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPack {
    pub(crate) group: u32,
    pub(crate) pack_bytes: u32,
    pub(crate) live_bytes: u64,
    pub(crate) live_count: u32,
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let bytes = vec![ROW_VERSION];
    postcard::to_extend(row, bytes).expect("rows encode: every type of theirs has a length")
}

pub(crate) fn decode<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> ViewResult<T> {
    match bytes.split_first() {
        Some((&ROW_VERSION, row)) => {
            postcard::from_bytes(row).map_err(|_| ViewError::Row { table, what: "it is malformed" })
        }
        Some(_) => Err(ViewError::Row { table, what: "it has another version" }),
        None => Err(ViewError::Row { table, what: "it is empty" }),
    }
}

pub(crate) fn object_key(bucket: &str, key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bucket.len() + 1 + key.len());
    bytes.extend_from_slice(bucket.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The key inside `bucket NUL key`.
pub(crate) fn key_of<'a>(table: &'static str, bytes: &'a [u8], bucket: &str) -> ViewResult<&'a str> {
    let key = bytes.strip_prefix(bucket.as_bytes()).and_then(|rest| rest.strip_prefix(&[0]));
    key.and_then(|key| std::str::from_utf8(key).ok()).ok_or(ViewError::Row { table, what: "its key is malformed" })
}

/// The first bytes that sort after everything that starts with `prefix` (whose last byte is not 255).
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = prefix.to_vec();
    let last = bytes.last_mut().expect("a prefix of stored keys contains at least the NUL");
    *last = last.checked_add(1).expect("neither UTF-8 nor the NUL has a byte of 255");
    bytes
}
