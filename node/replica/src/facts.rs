//! The journal's facts on a device: epoch, floor, run.

use base::{Lsn, PartitionId};
use bytes::Bytes;
use format::{FactBody, JournalFact, ShardKey, decode_fact, encode_fact};
use journal::{Epoch, EpochRecord};
use shards::{Payload, StoreError, StoreResult};

use crate::JournalError;
use crate::mirror::MirrorStore;

/// Longest fact, in bytes; far above what one epoch record takes.
const FACT_MAX_BYTES: u32 = 4096;

async fn put(store: &dyn MirrorStore, fact: JournalFact, partition: PartitionId, body: FactBody) -> StoreResult<()> {
    let key = ShardKey::fact(fact.kind(), u64::from(partition.0));
    let bytes = Bytes::from(encode_fact(fact, partition, &body));
    store.put(key, Payload::Parts(vec![bytes])).await
}

async fn get(
    store: &dyn MirrorStore,
    fact: JournalFact,
    partition: PartitionId,
) -> Result<Option<FactBody>, JournalError> {
    let device = store.device();
    let key = ShardKey::fact(fact.kind(), u64::from(partition.0));
    match store.get(key, 0..FACT_MAX_BYTES).await {
        Ok(bytes) => decode_fact(fact, partition, &bytes).map(Some).map_err(|reason| JournalError::BadFact {
            device,
            what: name(fact),
            reason: reason.to_owned(),
        }),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(JournalError::Store { device, error }),
    }
}

fn name(fact: JournalFact) -> &'static str {
    match fact {
        JournalFact::Epoch => "epoch",
        JournalFact::Floor => "floor",
        JournalFact::Run => "run",
    }
}

pub(crate) async fn put_epoch(
    store: &dyn MirrorStore,
    partition: PartitionId,
    record: &EpochRecord,
) -> StoreResult<()> {
    let body = FactBody { number: record.epoch.to_u64(), lsn: record.first, members: record.members.clone() };
    put(store, JournalFact::Epoch, partition, body).await
}

pub(crate) async fn get_epoch(
    store: &dyn MirrorStore,
    partition: PartitionId,
) -> Result<Option<EpochRecord>, JournalError> {
    let Some(body) = get(store, JournalFact::Epoch, partition).await? else { return Ok(None) };
    if body.members.is_empty() || !body.members.is_sorted_by(|a, b| a < b) || body.lsn == Lsn(0) {
        let reason = "members are not ascending, or the position is 0".to_owned();
        return Err(JournalError::BadFact { device: store.device(), what: "epoch", reason });
    }
    Ok(Some(EpochRecord { epoch: Epoch::from_u64(body.number), members: body.members, first: body.lsn }))
}

pub(crate) async fn put_floor(store: &dyn MirrorStore, partition: PartitionId, floor: Lsn) -> StoreResult<()> {
    put(store, JournalFact::Floor, partition, FactBody { number: 0, lsn: floor, members: Vec::new() }).await
}

pub(crate) async fn get_floor(store: &dyn MirrorStore, partition: PartitionId) -> Result<Option<Lsn>, JournalError> {
    Ok(get(store, JournalFact::Floor, partition).await?.map(|body| body.lsn))
}

pub(crate) async fn put_run(store: &dyn MirrorStore, partition: PartitionId, run: u32) -> StoreResult<()> {
    put(store, JournalFact::Run, partition, FactBody { number: u64::from(run), lsn: Lsn(0), members: Vec::new() }).await
}

pub(crate) async fn get_run(store: &dyn MirrorStore, partition: PartitionId) -> Result<u32, JournalError> {
    let run = get(store, JournalFact::Run, partition).await?.map_or(0, |body| body.number);
    u32::try_from(run).map_err(|_| JournalError::BadFact {
        device: store.device(),
        what: "run",
        reason: format!("run {run} is out of range"),
    })
}
