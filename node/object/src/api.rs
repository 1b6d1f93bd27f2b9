//! What a face (the gateway, later S3 Vectors) may ask of the object layer.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use thiserror::Error;

pub use index::model::{Checksum, ChecksumAlgorithm, ChecksumKind, Condition, ETag, ObjectMeta};

/// A body on its way in. The face computes the digests while the bytes pass and compares them with
/// what the client declared; nothing becomes visible unless `finish` agrees.
pub trait Body: Send {
    /// The next bytes, of any length; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, BodyError>>> + Send;

    /// Bytes to come, when the client said so; a hint for placement, never trusted.
    fn size_hint(&self) -> Option<u64>;

    /// Called once, after `next` gave `None`.
    ///
    /// # Errors
    /// When a declared digest, checksum or length differs from what passed.
    fn finish(&mut self) -> Result<BodyDigest, BodyError>;
}

/// What passed through a [`Body`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyDigest {
    /// MD5 of the bytes.
    pub md5: [u8; 16],
    /// The verified checksum of the bytes, when there is one.
    pub checksum: Option<Checksum>,
}

/// Why a body cannot be stored. Nothing of it becomes visible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// The connection ended before the declared length.
    #[error("the body ended early")]
    Incomplete,
    /// `Content-MD5` differs.
    #[error("the MD5 given differs from what arrived")]
    BadDigest,
    /// A checksum differs.
    #[error("the {0} checksum given differs from what arrived")]
    BadChecksum(&'static str),
    /// A chunk signature, trailer or frame of the body is wrong.
    #[error("the body is malformed: {0}")]
    Malformed(String),
    /// The chunk signature does not match.
    #[error("a chunk signature does not match")]
    SignatureMismatch,
    /// Larger than an object or part may be.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// No bytes came for too long.
    #[error("the body stalled")]
    TimedOut,
    /// The source of a copy could not be read.
    #[error("the source could not be read: {0}")]
    Source(String),
}

/// Why a request of the object layer failed. Unless it says otherwise, it had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// No such bucket.
    #[error("no such bucket")]
    NoSuchBucket,
    /// No such object.
    #[error("no such key")]
    NoSuchKey,
    /// No such multipart upload.
    #[error("no such upload")]
    NoSuchUpload,
    /// The bucket is there already.
    #[error("the bucket exists, made by {owner}")]
    BucketExists {
        /// Who made it.
        owner: String,
    },
    /// The bucket is not empty.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// A condition does not hold.
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    /// A part is absent or has another tag.
    #[error("part {number} is absent or has another tag")]
    InvalidPart {
        /// Part number.
        number: u32,
    },
    /// Part numbers do not ascend.
    #[error("part numbers do not ascend")]
    InvalidPartOrder,
    /// A part other than the last is too small.
    #[error("part {number} has {size} bytes; all but the last need 5 MiB")]
    PartTooSmall {
        /// Part number.
        number: u32,
        /// Its bytes.
        size: u64,
    },
    /// Object or part too large.
    #[error("larger than allowed")]
    TooLarge,
    /// The checksum or its kind differs from the upload's.
    #[error("the checksum differs from what the upload was begun with, or from its parts")]
    ChecksumMismatch,
    /// The body failed.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The devices are full; reads and deletes go on.
    #[error("the devices are full")]
    InsufficientStorage,
    /// Too much at once; try again later.
    #[error("too many requests under way")]
    SlowDown,
    /// Too few devices answer to keep the promised redundancy or to read.
    #[error("too few devices answer: {0}")]
    Unavailable(String),
    /// The stored bytes cannot be given back whole, or an invariant failed; logged where it was found.
    #[error("internal error: {0}")]
    Internal(String),
}

/// A result of the object layer.
pub type ObjectResult<T> = Result<T, ObjectError>;

/// A bucket, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketInfo {
    /// Name.
    pub name: String,
    /// Access key of its maker.
    pub owner: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Region named at creation.
    pub region: String,
}

/// An object, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Headers and user metadata.
    pub meta: ObjectMeta,
    /// The checksum kept with it.
    pub checksum: Option<Checksum>,
    /// Parts in order (number, bytes, checksum) of a multipart object; empty otherwise.
    pub parts: Vec<(u32, u64, Option<Checksum>)>,
}

/// What to list. Keys are in UTF-8 binary order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that start so.
    pub prefix: String,
    /// Keys that share a prefix up to and with this are rolled up.
    pub delimiter: Option<String>,
    /// Only keys and rolled-up prefixes after this; a rolled-up prefix given here is itself left out.
    pub after: Option<String>,
    /// At most this many keys and rolled-up prefixes together.
    pub limit: usize,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects, in order.
    pub objects: Vec<ObjectInfo>,
    /// Rolled-up prefixes, in order.
    pub prefixes: Vec<String>,
    /// The last key or prefix of the page, when there is more; goes into `after`.
    pub next: Option<String>,
}

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    /// Object key.
    pub key: String,
    /// Upload id.
    pub upload: u128,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// The checksum algorithm and kind chosen.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Access key of the user who began it.
    pub owner: String,
}

/// An uploaded part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// Part number.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// MD5.
    pub md5: [u8; 16],
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// The verified checksum.
    pub checksum: Option<Checksum>,
}

/// Gives an object's bytes; made by [`ObjectApi::open`] from one moment's state: later overwrites and
/// deletes do not touch it.
pub trait Reader: Send + 'static {
    /// The bytes of `range` (which lies inside the object). An error ends the stream: what came before
    /// it is right, but the whole is not there.
    fn read(self, range: Range<u64>) -> BoxStream<'static, ObjectResult<Bytes>>;
}

/// The object layer. Every method that changes something returns when the change is durable and
/// visible to every later call.
pub trait ObjectApi: Send + Sync + 'static {
    /// This layer's reader.
    type Reader: Reader;

    /// Makes a bucket.
    fn create_bucket(&self, name: &str, owner: &str, region: &str) -> impl Future<Output = ObjectResult<()>> + Send;
    /// Looks a bucket up.
    fn head_bucket(&self, name: &str) -> impl Future<Output = ObjectResult<BucketInfo>> + Send;
    /// Removes an empty bucket.
    fn delete_bucket(&self, name: &str) -> impl Future<Output = ObjectResult<()>> + Send;
    /// All buckets, by name.
    fn list_buckets(&self) -> impl Future<Output = ObjectResult<Vec<BucketInfo>>> + Send;

    /// Stores an object. `condition` is checked early and, decisively, when the object becomes visible.
    fn put<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        meta: ObjectMeta,
        condition: Condition,
        body: &mut B,
    ) -> impl Future<Output = ObjectResult<ObjectInfo>> + Send;
    /// Looks an object up and readies its bytes.
    fn open(&self, bucket: &str, key: &str) -> impl Future<Output = ObjectResult<(ObjectInfo, Self::Reader)>> + Send;
    /// Removes an object; removing none succeeds, unless the condition is that there be one
    /// (`must_match` of `*`). True when one was there.
    fn delete(&self, bucket: &str, key: &str, condition: Condition) -> impl Future<Output = ObjectResult<bool>> + Send;
    /// One page of a listing.
    fn list(&self, bucket: &str, query: &ListQuery) -> impl Future<Output = ObjectResult<ListPage>> + Send;

    /// Begins a multipart upload; gives its id.
    fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        owner: &str,
        meta: ObjectMeta,
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    ) -> impl Future<Output = ObjectResult<u128>> + Send;
    /// Looks an upload up.
    fn head_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
    ) -> impl Future<Output = ObjectResult<UploadInfo>> + Send;
    /// Stores a part.
    fn put_part<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        number: u32,
        body: &mut B,
    ) -> impl Future<Output = ObjectResult<PartInfo>> + Send;
    /// Makes an object of parts (number, MD5). Repeating a completion that took effect succeeds.
    fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        parts: Vec<(u32, [u8; 16])>,
        checksum: Option<Checksum>,
        condition: Condition,
    ) -> impl Future<Output = ObjectResult<ObjectInfo>> + Send;
    /// Gives an upload up and frees its parts.
    fn abort_upload(&self, bucket: &str, key: &str, upload: u128) -> impl Future<Output = ObjectResult<()>> + Send;
    /// Parts with numbers above `after`, at most `limit`; true when there are more.
    fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        after: u32,
        limit: usize,
    ) -> impl Future<Output = ObjectResult<(Vec<PartInfo>, bool)>> + Send;
    /// Uploads under way in a bucket whose key starts with `prefix`, after (key, upload); true when there are more.
    fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, u128)>,
        limit: usize,
    ) -> impl Future<Output = ObjectResult<(Vec<UploadInfo>, bool)>> + Send;
}
