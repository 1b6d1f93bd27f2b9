//! The words of a metadata partition: rows, commands, outcomes. Plain data, encoded with postcard.
//!
//! Every command is one journal entry; applying the same commands in the same order to any view gives
//! the same rows and the same outcomes (conditions are judged when a command is applied, nowhere else).

use std::collections::BTreeMap;
use std::fmt;

use base::{Lsn, StripeId};
use serde::{Deserialize, Deserializer, Serialize};

/// An entity tag as AWS makes it: the MD5 of the body, or of the parts' MD5s with their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ETag {
    /// MD5 of the body of an object put in one piece.
    Whole([u8; 16]),
    /// MD5 over the parts' MD5s, and the number of parts.
    Parts([u8; 16], u32),
}

impl fmt::Display for ETag {
    /// Without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (md5, parts) = match self {
            Self::Whole(md5) => (md5, None),
            Self::Parts(md5, parts) => (md5, Some(parts)),
        };
        md5.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        parts.map_or(Ok(()), |n| write!(f, "-{n}"))
    }
}

/// AWS's checksum algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
}

/// What a checksum of a multipart object covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// The bytes of the whole object.
    FullObject,
    /// The parts' checksums, one after the other.
    Composite,
}

/// A checksum that a client gave and the gateway verified; kept and returned, never recomputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// What it covers.
    pub kind: ChecksumKind,
    /// Big-endian bytes, as AWS encodes them in base64.
    pub value: Vec<u8>,
    /// Number of parts of a composite checksum (AWS shows it as `-N`).
    pub parts: Option<u32>,
}

/// What a client says of an object besides its bytes; given back as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, as text.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    pub website_redirect_location: Option<String>,
    /// `x-amz-meta-*`, without the prefix.
    pub user: BTreeMap<String, String>,
}

/// Consecutive stripes of one object or part on one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeRun {
    /// The first stripe; the others follow without a gap.
    pub first: StripeId,
    /// How many stripes.
    pub count: u32,
    /// Placement group that holds all of them.
    pub group: u32,
    /// Data bytes in every stripe but the last of the run.
    pub stripe_bytes: u32,
    /// Data bytes in the whole run.
    pub bytes: u64,
}

/// Where an object's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Inside the journal entry that put it, `offset` bytes into its data section.
    Journal {
        /// The entry.
        lsn: Lsn,
        /// Bytes from the start of the journal record's payload.
        offset: u32,
    },
    /// In stripes of its own.
    Stripes(Vec<StripeRun>),
    /// Gathered with other small objects in one stripe.
    Packed {
        /// The pack's stripe.
        stripe: StripeId,
        /// Placement group of the pack.
        group: u32,
        /// Data bytes in the whole pack.
        pack_bytes: u32,
        /// Bytes from the start of the pack.
        offset: u32,
    },
    /// A completed multipart object: its parts in order.
    Parts(Vec<PartLayout>),
}

/// [`Layout`] without its recursive variant, with the same encoding: bytes from a device can never nest.
#[derive(Deserialize)]
enum LeafLayout {
    Journal { lsn: Lsn, offset: u32 },
    Stripes(Vec<StripeRun>),
    Packed { stripe: StripeId, group: u32, pack_bytes: u32, offset: u32 },
}

pub(crate) fn leaf_layout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Layout, D::Error> {
    Ok(match LeafLayout::deserialize(deserializer)? {
        LeafLayout::Journal { lsn, offset } => Layout::Journal { lsn, offset },
        LeafLayout::Stripes(runs) => Layout::Stripes(runs),
        LeafLayout::Packed { stripe, group, pack_bytes, offset } => {
            Layout::Packed { stripe, group, pack_bytes, offset }
        }
    })
}

/// One part inside a completed object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartLayout {
    /// The client's part number.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// Where they are (never `Parts`).
    #[serde(deserialize_with = "leaf_layout")]
    pub layout: Layout,
    /// The part's checksum, where the upload has one.
    pub checksum: Option<Checksum>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Headers and user metadata.
    pub meta: ObjectMeta,
    /// The verified checksum.
    pub checksum: Option<Checksum>,
    /// Where the bytes are.
    pub layout: Layout,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRow {
    /// Access key of the user who made it.
    pub owner: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Region the client named.
    pub region: String,
}

/// One multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    /// Object key.
    pub key: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// Headers and user metadata of the object to be.
    pub meta: ObjectMeta,
    /// The checksum algorithm and kind the client chose.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Access key of the user who began it.
    pub owner: String,
}

/// One uploaded part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// Bytes.
    pub size: u64,
    /// MD5.
    pub md5: [u8; 16],
    /// The verified checksum.
    pub checksum: Option<Checksum>,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Where the bytes are (never `Parts`).
    #[serde(deserialize_with = "leaf_layout")]
    pub layout: Layout,
}

/// A condition on the object that is there when the command is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `If-None-Match: *`: no object may be there.
    pub must_not_exist: bool,
    /// `If-Match`: the object there must carry one of these tags (unquoted text); `*` means any object.
    pub must_match: Option<Vec<String>>,
    /// Conditional delete: the size must be this.
    pub must_have_size: Option<u64>,
    /// Conditional delete: the modification time (in whole seconds) must be this.
    pub must_be_modified_at_s: Option<u64>,
}

/// A shard that could not be written when its stripe was; repair owes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MissingShard {
    /// The stripe.
    pub stripe: StripeId,
    /// The slot in the group.
    pub slot: u8,
    /// The group.
    pub group: u32,
    /// Data bytes in the stripe.
    pub stripe_bytes: u32,
}

/// One object that the packer moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackMove {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Part number, when it is a part of an upload under way or of a completed object.
    pub part: Option<u32>,
    /// Where the packer read it; the move is void when no row says so by now. This alone finds the row:
    /// a part may have become part of a completed object meanwhile.
    #[serde(deserialize_with = "leaf_layout")]
    pub from: Layout,
    /// Bytes from the start of the pack.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

/// Everything that changes a partition. `Layout::Journal { lsn: Lsn(0), offset: 0 }` in a command means
/// "the data given with this command"; it is replaced by the true place when the entry has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a bucket.
    CreateBucket { name: String, row: BucketRow },
    /// Removes a bucket without objects; uploads under way in it are given up.
    DeleteBucket { name: String },
    /// Puts an object, replacing what is there.
    PutObject { bucket: String, key: String, row: ObjectRow, condition: Condition, missing: Vec<MissingShard> },
    /// Removes an object; removing none is a success.
    DeleteObject { bucket: String, key: String, condition: Condition },
    /// Begins a multipart upload.
    CreateUpload { bucket: String, upload: u128, row: UploadRow },
    /// Puts a part, replacing one of the same number.
    PutPart { bucket: String, upload: u128, number: u32, row: PartRow, missing: Vec<MissingShard> },
    /// Makes an object of parts; `parts` in the order given, with the tags (unquoted) the client names.
    CompleteUpload {
        bucket: String,
        key: String,
        upload: u128,
        parts: Vec<(u32, [u8; 16])>,
        modified_ms: u64,
        checksum: Option<Checksum>,
        condition: Condition,
    },
    /// Gives a multipart upload up.
    AbortUpload { bucket: String, key: String, upload: u128 },
    /// No stripe id at or above this was given out before.
    ReserveStripes { below: u64 },
    /// The packer's result: the pack's stripe holds these objects now.
    Pack { stripe: StripeId, group: u32, pack_bytes: u32, moves: Vec<PackMove>, missing: Vec<MissingShard> },
    /// These garbage rows have been freed on the devices.
    GarbageFreed { ids: Vec<u64> },
    /// These shards have been rebuilt.
    ShardsRepaired { shards: Vec<MissingShard> },
    /// Gives out the next `count` stripe ids, to this caller alone.
    TakeStripes { count: u64 },
    /// From now on no row may bring a stripe with an id below this: what lies on the devices below it and has no
    /// row will never have one.
    FenceStripes { below: u64 },
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// An object was put or completed; what it is now.
    Put(Box<ObjectRow>),
    /// An object was removed, or none was there.
    Deleted { existed: bool },
    /// The packer's moves that took effect.
    Packed { moved: u32 },
    /// Refused without effect; its data, if any, is queued as garbage.
    Refused(Refusal),
    /// The first of the stripe ids that were given out.
    Stripes { first: StripeId },
}

/// Why a command had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The bucket is there already.
    BucketExists { owner: String },
    /// No such bucket.
    NoSuchBucket,
    /// The bucket holds objects.
    BucketNotEmpty,
    /// A condition names an object that is not there.
    NoSuchKey,
    /// A condition does not hold.
    PreconditionFailed,
    /// No such upload (or of another key).
    NoSuchUpload,
    /// A named part is absent or has another tag.
    InvalidPart { number: u32 },
    /// Part numbers do not ascend.
    InvalidPartOrder,
    /// A part other than the last is smaller than 5 MiB.
    PartTooSmall { number: u32, size: u64 },
    /// The whole would be larger than 5 TiB.
    TooLarge,
    /// The upload was begun with another checksum algorithm or kind.
    ChecksumMismatch,
    /// It brings stripes below the fence ([`Command::FenceStripes`]); the same body in new stripes is welcome.
    StaleStripes,
}

/// Stripes that no row refers to any more; freed by the partition's own queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageRow {
    /// Row number, ascending.
    pub id: u64,
    /// The stripes.
    pub runs: Vec<StripeRun>,
}
