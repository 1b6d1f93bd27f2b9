//! Opening: look at every device, decide (`journal::plan`), make the members agree, only then serve.
//!
//! A device that fails on the way counts as missing and the decision is taken anew, so that no step
//! depends on a device that is not there.

use std::collections::{BTreeMap, BTreeSet};

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use format::{ShardKey, Space};
use futures::StreamExt;
use futures::stream;
use journal::{CopyTask, Found, Plan, Policy, plan};
use shards::{Payload, StoreError, StoreResult};

use crate::JournalError;
use crate::facts;
use crate::mirror::{Mirror, MirrorStore, keys_of};
use crate::record::Record;

/// Records copied at once while members are brought to agree; each may have the size of a batch.
const COPIES_AT_ONCE: usize = 8;
/// Records removed in one request.
const DELETES_AT_ONCE: usize = 1024;

/// Members agree; what the chain opens with.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) plan: Plan,
    pub(crate) stores: BTreeMap<DeviceId, Mirror>,
    pub(crate) missing: usize,
}

enum Trouble {
    /// This device is of no use; decide again without it.
    Device(DeviceId, StoreError),
    Fatal(JournalError),
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Store { device, error } => Self::Device(device, error),
            error => Self::Fatal(error),
        }
    }
}

/// Brings the members of a partition's journal to agree.
pub(crate) async fn agree(
    partition: PartitionId,
    policy: &Policy,
    stores: Vec<Mirror>,
    missing: usize,
) -> Result<Agreed, JournalError> {
    let order: Vec<DeviceId> = stores.iter().map(|s| s.device()).collect();
    let mut stores: BTreeMap<DeviceId, Mirror> = stores.into_iter().map(|s| (s.device(), s)).collect();
    let mut missing = missing;
    let mut last = None;
    loop {
        if stores.is_empty() || missing > policy.missing_max {
            let refused = journal::RecoveryError::TooManyMissing { missing, tolerated: policy.missing_max };
            return Err(last.unwrap_or(JournalError::Recovery(refused)));
        }
        match attempt(partition, policy, &stores, &order, missing).await {
            Ok(plan) => return Ok(Agreed { plan, stores, missing }),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Device(device, error)) => {
                tracing::warn!(%device, %error, "a device fails while the journal is opened; going on without it");
                assert!(stores.remove(&device).is_some(), "only devices in use give trouble");
                missing += 1;
                last = Some(JournalError::Store { device, error });
            }
        }
    }
}

async fn attempt(
    partition: PartitionId,
    policy: &Policy,
    stores: &BTreeMap<DeviceId, Mirror>,
    order: &[DeviceId],
    missing: usize,
) -> Result<Plan, Trouble> {
    let mut found = Vec::new();
    for store in order.iter().filter_map(|device| stores.get(device)) {
        found.push(look(partition, store.as_ref()).await?);
    }
    let plan = plan(policy, &found, missing).map_err(JournalError::from)?;
    for store in stores.values() {
        facts::put_run(store.as_ref(), partition, plan.run).await.map_err(|e| Trouble::Device(store.device(), e))?;
    }
    let copied: Vec<Result<(), Trouble>> = stream::iter(&plan.copies)
        .map(|task| copy(partition, stores, task))
        .buffer_unordered(COPIES_AT_ONCE)
        .collect()
        .await;
    copied.into_iter().collect::<Result<(), Trouble>>()?;
    for member in &plan.record.members {
        let store = &stores[member];
        facts::put_floor(store.as_ref(), partition, plan.floor).await.map_err(|e| Trouble::Device(*member, e))?;
    }
    for (device, lsns) in &plan.drops {
        let store = stores[device].as_ref();
        remove(partition, store, lsns).await.map_err(|e| Trouble::Device(*device, e))?;
    }
    Ok(plan)
}

/// Removes records; absent ones are no error.
pub(crate) async fn remove(partition: PartitionId, store: &dyn MirrorStore, lsns: &[Lsn]) -> StoreResult<()> {
    for some in lsns.chunks(DELETES_AT_ONCE) {
        store.delete(some.iter().map(|lsn| ShardKey::journal(partition, *lsn)).collect()).await?;
    }
    Ok(())
}

async fn look(partition: PartitionId, store: &dyn MirrorStore) -> Result<Found, JournalError> {
    let device = store.device();
    let lsns = keys_of(store, Space::Journal, partition.0).await;
    let lsns = lsns.map_err(|error| JournalError::Store { device, error })?;
    Ok(Found {
        device,
        run: facts::get_run(store, partition).await?,
        record: facts::get_epoch(store, partition).await?,
        floor: facts::get_floor(store, partition).await?,
        lsns: lsns.into_iter().map(Lsn).collect::<BTreeSet<_>>(),
    })
}

async fn copy(partition: PartitionId, stores: &BTreeMap<DeviceId, Mirror>, task: &CopyTask) -> Result<(), Trouble> {
    let payload = read_any(partition, task.lsn, task.from.iter().map(|d| &stores[d])).await?.payload;
    for device in &task.to {
        let key = ShardKey::journal(partition, task.lsn);
        let put = stores[device].put(key, Payload::Parts(vec![payload.clone()])).await;
        put.map_err(|error| Trouble::Device(*device, error))?;
    }
    Ok(())
}

/// The record at `lsn` from the first of `members` that can give it whole.
pub(crate) async fn read_any<'a>(
    partition: PartitionId,
    lsn: Lsn,
    members: impl Iterator<Item = &'a Mirror>,
) -> Result<Record, JournalError> {
    let mut last = JournalError::Unreadable { lsn, last: StoreError::NotFound };
    for member in members {
        match read_one(partition, lsn, member.as_ref()).await {
            Ok(record) => return Ok(record),
            Err(error) => {
                tracing::warn!(device = %member.device(), lsn = lsn.0, %error, "a journal record cannot be read here");
                last = error;
            }
        }
    }
    Err(last)
}

async fn read_one(partition: PartitionId, lsn: Lsn, store: &dyn MirrorStore) -> Result<Record, JournalError> {
    let payload: Bytes = store
        .get(ShardKey::journal(partition, lsn), 0..u32::MAX)
        .await
        .map_err(|last| JournalError::Unreadable { lsn, last })?;
    Record::parse(partition, lsn, payload).map_err(|what| JournalError::Broken { lsn, what })
}
