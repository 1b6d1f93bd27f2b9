//! The object layer of one node: [`ObjectApi`] over stores and index, here or on other hosts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Clock, DeviceId, Entropy, PartitionId};
use futures::future::join_all;
use index::model::{
    Checksum, ChecksumAlgorithm, ChecksumKind, Command, Condition, Layout, ObjectMeta, ObjectRow, Outcome,
};
use index::{ListRequest, ObjectHead, Partition, PartitionClient, PartitionConfig, PartitionStatus, Policy};
use shards::StoreHandle;
use tokio::sync::watch;

use crate::api::{
    Body, BucketInfo, ListPage, ListQuery, ObjectApi, ObjectError, ObjectInfo, ObjectResult, PartInfo, UploadInfo,
};
use crate::config::{ConfigError, Redundancy};
use crate::hedge::HedgeBudget;
use crate::ids::StripeIds;
use crate::inner::{Inner, Intake, ObjectStats, OpenError, ReadGuard, Readers, index_error, refused, unexpected};
use crate::late::LateShards;
use crate::memory::Memory;
use crate::pace::{DevicePace, judge};
use crate::read::ObjectReader;
use crate::timers::{NoTimers, Timers, within};
use crate::topology::{Device, Topology};
use crate::{multipart, put};

/// The partition of a host that has one.
const PARTITION: PartitionId = PartitionId(0);

/// Fewer free bytes than this on a device and new objects are refused before they are taken in: what is
/// under way must still fit.
const ROOM_MIN_BYTES: u64 = 32 << 20;
/// A device that does not even count within this time does not work.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Buckets asked for at once.
const BUCKETS_PAGE: u32 = 1000;

/// What the object layer runs on.
pub struct OpenConfig {
    /// The cluster's devices in their fixed order; `None` for one that is missing.
    pub stores: Vec<Option<StoreHandle>>,
    /// How objects are kept.
    pub redundancy: Redundancy,
    /// Memory for bodies under way, in bytes, for the whole node.
    pub memory_bytes: usize,
    /// Memory for the index's pages, in bytes, for each of its views.
    pub view_cache_bytes: usize,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// The object layer; clones share it.
#[derive(Clone)]
pub struct ObjectStore {
    pub(crate) inner: Arc<Inner>,
}

/// What the object layer runs on where devices and partition may be on other hosts.
pub struct OverConfig {
    /// The devices as they are known now; later by [`ObjectStore::replace_topology`].
    pub topology: Topology,
    /// The partition, here or elsewhere.
    pub partition: Arc<dyn PartitionClient>,
    /// How objects are kept.
    pub redundancy: Redundancy,
    /// Memory for bodies under way, in bytes, for the whole node.
    pub memory_bytes: usize,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What waits for time.
    pub timers: Arc<dyn Timers>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// How long overwritten and deleted data is kept for readers on other hosts, which are not known here. Zero on a
    /// cluster of one host; a download that is slower breaks off by name when it comes to a freed stripe.
    pub foreign_readers: Duration,
}

impl ObjectStore {
    /// Opens the index over the stores that are there, as a cluster of one host without timers: every device is
    /// waited for. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: OpenConfig) -> Result<Self, OpenError> {
        Self::open_with(config, Arc::new(NoTimers)).await
    }

    /// As [`Self::open`], with timers.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_with(config: OpenConfig, timers: Arc<dyn Timers>) -> Result<Self, OpenError> {
        let (_, groups) = config.redundancy.prepare(config.stores.len())?;
        let present: Vec<StoreHandle> = config.stores.iter().flatten().cloned().collect();
        let missing = config.stores.len() - present.len();
        let policy = Policy::for_tolerance(config.stores.len(), config.redundancy.parity_shards);
        let partition = PartitionConfig { partition: PARTITION, policy, view_cache_bytes: config.view_cache_bytes };
        let partition = Partition::open(partition, index::mirrors(&present), missing).await?;
        let device = |store: Option<StoreHandle>| match store {
            Some(store) => Device::new(store.device(), Some(Arc::new(store)), false),
            // Nobody asks who it is: it has no store.
            None => Device::new(DeviceId([0; 16]), None, false),
        };
        let devices = config.stores.into_iter().map(device).collect();
        let over = OverConfig {
            topology: Topology::of_groups(&groups, devices).expect("rotations are whole groups of the list's devices"),
            partition: Arc::new(partition),
            redundancy: config.redundancy,
            memory_bytes: config.memory_bytes,
            clock: config.clock,
            timers,
            entropy: config.entropy,
            foreign_readers: Duration::ZERO,
        };
        Self::over(over).await
    }

    /// The object layer over devices and a partition that may be anywhere. Must be called on a tokio runtime. A
    /// partition on another host need not answer yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn over(config: OverConfig) -> Result<Self, OpenError> {
        let code = config.redundancy.code()?;
        config.redundancy.check_width(config.topology.width())?;
        // Ids given out from now on are this life's: no sweep of it looks at them before the next one.
        let sweep_below = match config.partition.local() {
            Some(_) => Some(config.partition.counters().await?.stripes_below),
            None => None,
        };
        let inner = Inner {
            views: watch::Sender::new(Arc::new(config.topology)),
            redundancy: config.redundancy,
            code,
            partition: config.partition,
            ids: StripeIds::default(),
            memory: Memory::new(config.memory_bytes),
            clock: config.clock,
            timers: config.timers,
            entropy: config.entropy,
            stats: ObjectStats::default(),
            intake: (Intake::Open as u8).into(),
            readers: Readers::default(),
            ripening: Mutex::default(),
            abandoned: Mutex::default(),
            foreign_readers: config.foreign_readers,
            sweep_below: Mutex::new(sweep_below),
            runs: 0.into(),
            hedges: HedgeBudget::default(),
            late: LateShards::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Goes by a newer map from now on; requests under way keep what they began with. False when the view is older
    /// than the one in use, which then stays.
    ///
    /// # Errors
    /// [`ConfigError::Width`].
    pub fn replace_topology(&self, mut topology: Topology) -> Result<bool, ConfigError> {
        self.inner.redundancy.check_width(topology.width())?;
        let mut replaced = false;
        self.inner.views.send_if_modified(|view| {
            replaced = topology.epoch() >= view.epoch();
            if replaced {
                topology.adopt(view);
                let empty = Topology::empty(view.width());
                *view = Arc::new(std::mem::replace(&mut topology, empty));
            }
            replaced
        });
        Ok(replaced)
    }

    /// The view in use.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.inner.view()
    }

    /// How fast each device that answers is, and which are slow.
    #[must_use]
    pub fn paces(&self) -> Vec<DevicePace> {
        self.inner.view().devices().iter().filter(|device| device.store.is_some()).map(DevicePace::of).collect()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &ObjectStats {
        &self.inner.stats
    }

    /// The index's state, where the partition is on this host.
    #[must_use]
    pub fn index_status(&self) -> Option<PartitionStatus> {
        self.inner.partition.local().map(Partition::status)
    }

    /// Objects and their bytes, as the index counts them.
    ///
    /// # Errors
    /// When the partition cannot be asked.
    pub async fn counters(&self) -> ObjectResult<index::Counters> {
        self.inner.partition.counters().await.map_err(|error| index_error(&error))
    }

    /// Shards that are owed, up to `limit` (at most [`index::PAGE_NUMBERS_MAX`]).
    ///
    /// # Errors
    /// When the partition cannot be asked.
    pub async fn missing_shards(&self, limit: u32) -> ObjectResult<usize> {
        let rows = self.inner.partition.missing_shards(None, limit).await;
        rows.map(|rows| rows.len()).map_err(|error| index_error(&error))
    }

    /// Looks at the devices and their paces; the daemon calls it a few times a second. Gives whether new objects are
    /// taken. Devices on other hosts are not asked: the map says which of them take no data.
    pub async fn look_at_devices(&self) -> Intake {
        let view = self.inner.view();
        judge(view.devices(), self.inner.clock.monotonic());
        let looks = view.devices().iter().filter_map(|device| Some((device, device.store.clone()?)));
        let looks = looks.map(|(device, store)| async move {
            if !store.is_local() {
                return (true, !device.avoid);
            }
            match within(&*self.inner.timers, LOOK_MAX, store.stats()).await {
                Some(Ok(stats)) if !stats.poisoned => (true, stats.available_bytes >= ROOM_MIN_BYTES),
                _ => (false, false),
            }
        });
        let looked = join_all(looks).await;
        let working = looked.iter().filter(|(works, _)| *works).count();
        let with_room = looked.iter().filter(|(_, room)| *room).count();
        let needed = self.inner.redundancy.shards_min();
        let intake = match () {
            () if with_room >= needed => Intake::Open,
            () if working >= needed => Intake::Full,
            () => Intake::TooFewDevices,
        };
        self.inner.set_intake(intake);
        intake
    }

    /// Makes the index durable and trims its journal, where the partition is on this host; the daemon calls it every
    /// few seconds.
    ///
    /// # Errors
    /// What the index says; the journal is then kept.
    pub async fn checkpoint(&self) -> ObjectResult<()> {
        let Some(partition) = self.inner.partition.local() else { return Ok(()) };
        partition.checkpoint().await.map(drop).map_err(|error| index_error(&error))
    }

    /// Finishes what was submitted to a partition on this host; the stores may be closed afterwards.
    ///
    /// # Errors
    /// What the index says; it is closed all the same.
    pub async fn close(&self) -> ObjectResult<()> {
        let Some(partition) = self.inner.partition.local() else { return Ok(()) };
        partition.close().await.map_err(|error| index_error(&error))
    }
}

pub(crate) fn info_of(key: String, row: ObjectRow) -> ObjectInfo {
    let parts = match row.layout {
        Layout::Parts(parts) => parts.into_iter().map(|part| (part.number, part.size, part.checksum)).collect(),
        _ => Vec::new(),
    };
    ObjectInfo {
        key,
        size: row.size,
        etag: row.etag,
        modified_ms: row.modified_ms,
        meta: row.meta,
        checksum: row.checksum,
        parts,
    }
}

fn page_limit(limit: usize) -> u32 {
    limit.try_into().unwrap_or(u32::MAX)
}

fn info_of_head(head: ObjectHead) -> ObjectInfo {
    ObjectInfo {
        key: head.key,
        size: head.size,
        etag: head.etag,
        modified_ms: head.modified_ms,
        meta: head.meta,
        checksum: head.checksum,
        parts: Vec::new(),
    }
}

impl ObjectApi for ObjectStore {
    type Reader = ObjectReader;

    async fn create_bucket(&self, name: &str, owner: &str, region: &str) -> ObjectResult<()> {
        let row = index::model::BucketRow {
            owner: owner.to_owned(),
            created_ms: self.inner.clock.unix_ms(),
            region: region.to_owned(),
        };
        multipart::simple(&self.inner, Command::CreateBucket { name: name.to_owned(), row }).await
    }

    async fn head_bucket(&self, name: &str) -> ObjectResult<BucketInfo> {
        let row = self.inner.partition.bucket(name).await.map_err(|error| index_error(&error))?;
        let row = row.ok_or(ObjectError::NoSuchBucket)?;
        Ok(BucketInfo { name: name.to_owned(), owner: row.owner, created_ms: row.created_ms, region: row.region })
    }

    async fn delete_bucket(&self, name: &str) -> ObjectResult<()> {
        multipart::simple(&self.inner, Command::DeleteBucket { name: name.to_owned() }).await
    }

    async fn list_buckets(&self) -> ObjectResult<Vec<BucketInfo>> {
        let mut rows: Vec<(String, index::model::BucketRow)> = Vec::new();
        loop {
            let after = rows.last().map(|(name, _)| name.clone());
            let page = self.inner.partition.buckets(after, BUCKETS_PAGE).await;
            let (page, more) = page.map_err(|error| index_error(&error))?;
            let none = page.is_empty();
            rows.extend(page);
            if !more || none {
                break;
            }
        }
        let info = |(name, row): (String, index::model::BucketRow)| BucketInfo {
            name,
            owner: row.owner,
            created_ms: row.created_ms,
            region: row.region,
        };
        Ok(rows.into_iter().map(info).collect())
    }

    async fn put<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        meta: ObjectMeta,
        condition: Condition,
        body: &mut B,
    ) -> ObjectResult<ObjectInfo> {
        put::put(&self.inner, bucket, key, meta, condition, body).await
    }

    async fn open(&self, bucket: &str, key: &str) -> ObjectResult<(ObjectInfo, ObjectReader)> {
        let guard = ReadGuard::new(&self.inner);
        let (has_bucket, row) = self.inner.partition.object(bucket, key).await.map_err(|error| index_error(&error))?;
        let row = row.ok_or(if has_bucket { ObjectError::NoSuchKey } else { ObjectError::NoSuchBucket })?;
        let reader = ObjectReader {
            inner: Arc::clone(&self.inner),
            guard,
            layout: row.layout.clone(),
            size: row.size,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            modified_ms: row.modified_ms,
        };
        Ok((info_of(key.to_owned(), row), reader))
    }

    async fn delete(&self, bucket: &str, key: &str, condition: Condition) -> ObjectResult<bool> {
        let command = Command::DeleteObject { bucket: bucket.to_owned(), key: key.to_owned(), condition };
        let done = self.inner.partition.submit(command, Vec::new()).await;
        match done.map_err(|error| index_error(&error))? {
            Outcome::Deleted { existed } => Ok(existed),
            Outcome::Refused(refusal) => Err(refused(refusal)),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> ObjectResult<ListPage> {
        let request = ListRequest {
            prefix: &query.prefix,
            delimiter: query.delimiter.as_deref(),
            after: query.after.as_deref(),
            limit: query.limit,
        };
        let page = self.inner.partition.list(bucket, &request).await.map_err(|error| index_error(&error))?;
        let page = page.ok_or(ObjectError::NoSuchBucket)?;
        let objects = page.objects.into_iter().map(info_of_head).collect();
        Ok(ListPage { objects, prefixes: page.prefixes, next: page.next })
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        owner: &str,
        meta: ObjectMeta,
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    ) -> ObjectResult<u128> {
        multipart::create(&self.inner, bucket, key, owner, meta, checksum).await
    }

    async fn head_upload(&self, bucket: &str, key: &str, upload: u128) -> ObjectResult<UploadInfo> {
        multipart::head(&self.inner, bucket, key, upload).await
    }

    async fn put_part<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        number: u32,
        body: &mut B,
    ) -> ObjectResult<PartInfo> {
        multipart::put_part(&self.inner, bucket, key, upload, number, body).await
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        parts: Vec<(u32, [u8; 16])>,
        checksum: Option<Checksum>,
        condition: Condition,
    ) -> ObjectResult<ObjectInfo> {
        multipart::complete(&self.inner, bucket, key, upload, parts, checksum, condition).await
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: u128) -> ObjectResult<()> {
        let command = Command::AbortUpload { bucket: bucket.to_owned(), key: key.to_owned(), upload };
        multipart::simple(&self.inner, command).await
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        after: u32,
        limit: usize,
    ) -> ObjectResult<(Vec<PartInfo>, bool)> {
        multipart::head(&self.inner, bucket, key, upload).await?;
        let parts = self.inner.partition.parts(upload, after, page_limit(limit)).await;
        let (rows, more) = parts.map_err(|error| index_error(&error))?;
        Ok((rows.into_iter().map(|(number, row)| multipart::part_info(number, row)).collect(), more))
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, u128)>,
        limit: usize,
    ) -> ObjectResult<(Vec<UploadInfo>, bool)> {
        let found = self.inner.partition.uploads(bucket, prefix, after, page_limit(limit)).await;
        let (rows, more) = found.map_err(|error| index_error(&error))?.ok_or(ObjectError::NoSuchBucket)?;
        Ok((rows.into_iter().map(|(upload, row)| multipart::upload_info(upload, row)).collect(), more))
    }
}
