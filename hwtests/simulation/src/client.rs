//! One client's operations against the store, each noted in the history and judged where it stands.

use std::ops::Range;
use std::rc::Rc;

use base::{Lsn, PartitionId};
use format::{PAYLOAD_MAX_BYTES, ShardKey, Space};
use futures::future::join_all;
use shards::{StoreError, StoreHandle};

use crate::content::Value;
use crate::damage;
use crate::failure::Law;
use crate::plan::{Key, Op};
use crate::shared::Shared;

/// Bytes that one step of verifying reads at least.
const VERIFY_STEP_BYTES: u64 = 100_000;
/// Steps in which a pass over the largest device here has ended many times over.
const VERIFY_STEPS_MAX: u32 = 10_000;

/// Does `ops` one after the other; ends early when the device is gone or a law is broken.
pub(crate) async fn run(shared: Rc<Shared>, store: StoreHandle, ops: Vec<Op>) {
    for op in ops {
        if shared.is_gone() || shared.failure.borrow().is_some() {
            return;
        }
        perform(&shared, &store, op).await;
        shared.count("operations");
    }
}

async fn perform(shared: &Shared, store: &StoreHandle, op: Op) {
    match op {
        Op::Get(key) => get(shared, store, key.shard_key(), 0..u32::MAX).await,
        Op::GetRange(key, from, to) => get(shared, store, key.shard_key(), from..to).await,
        Op::Describe(key) => describe(shared, store, key.shard_key()).await,
        Op::Put(key, id, len) => put(shared, store, key.shard_key(), Value { id, len }).await,
        Op::Delete(key) => delete(shared, store, vec![key.shard_key()]).await,
        Op::BulkPut(first, count, id, len) => {
            let puts = keys_from(shared, first, count).into_iter().zip(id..);
            join_all(puts.map(|(key, id)| put(shared, store, key, Value { id, len }))).await;
        }
        Op::BulkDelete(first, count) => delete(shared, store, keys_from(shared, first, count)).await,
        Op::List(limit) => list(shared, store, usize::from(limit)).await,
        Op::Trim(partition, below) => trim(shared, store, partition, below).await,
        Op::Sync => note(shared, "sync", store.sync().await),
        Op::Checkpoint => checkpoint(shared, store).await,
        Op::Reclaim => reclaim(shared, store).await,
        Op::Verify => _ = verify(shared, store).await,
        Op::FailReads(_) | Op::FailWrite | Op::FailFlush | Op::MisdirectRead => damage::fail_next(shared, op),
        Op::LoseWrite | Op::MisdirectWrite | Op::LieFlush => damage::lie_next(shared, op),
        Op::Look | Op::Retire(_) | Op::Kill | Op::Crash(..) | Op::Flip(..) | Op::BadSector(..) | Op::LoseOpening => {
            unreachable!("boundaries are the runner's")
        }
    }
}

/// So many keys from `first` on, wrapping around at the last in use.
fn keys_from(shared: &Shared, first: Key, count: u8) -> Vec<ShardKey> {
    let count = count.min(shared.config.keys);
    let at = |i: u8| Key(((u16::from(first.0) + u16::from(i)) % u16::from(shared.config.keys)) as u8);
    (0..count).map(|i| at(i).shard_key()).collect()
}

/// Every key that the run may use.
pub(crate) fn universe(shared: &Shared) -> Vec<ShardKey> {
    let mut keys: Vec<ShardKey> = (0..shared.config.keys).map(|i| Key(i).shard_key()).collect();
    keys.sort_unstable();
    keys
}

pub(crate) async fn get(shared: &Shared, store: &StoreHandle, key: ShardKey, range: Range<u32>) {
    let call = shared.tick();
    match store.get(key, range.clone()).await {
        Ok(bytes) => {
            let may = shared.model.borrow().candidates(key, |value| value.reads_as(&range, &bytes));
            if may.is_empty() {
                let what = format!("{key:?} {range:?} gave {} bytes that were never its own", bytes.len());
                shared.fail(Law::WrongBytes, what);
            } else {
                shared.saw(key, call, may);
            }
        }
        Err(StoreError::NotFound) => shared.saw(key, call, vec![None]),
        Err(error) => shared.judge_read(key, &error),
    }
}

pub(crate) async fn describe(shared: &Shared, store: &StoreHandle, key: ShardKey) {
    let call = shared.tick();
    match store.describe(key).await {
        Ok((len, descriptor)) => {
            let journal = key.space == Space::Journal;
            let fits = |value: &Value| {
                value.len == len && if journal { descriptor.is_empty() } else { value.descriptor() == descriptor }
            };
            let may = shared.model.borrow().candidates(key, fits);
            if may.is_empty() {
                shared.fail(Law::WrongBytes, format!("{key:?} is described as nothing that it ever was"));
            } else {
                shared.saw(key, call, may);
            }
        }
        Err(StoreError::NotFound) => shared.saw(key, call, vec![None]),
        Err(error) => shared.judge_read(key, &error),
    }
}

pub(crate) async fn put(shared: &Shared, store: &StoreHandle, key: ShardKey, value: Value) {
    let journal = key.space == Space::Journal;
    let too_large =
        value.len as usize > PAYLOAD_MAX_BYTES || value.record_bytes(journal) > shared.config.extent_bytes as usize;
    let payload = value.payload();
    let ticket = shared.begin_write(key, Some(value));
    let done = match key.space {
        Space::Journal => store.append(PartitionId(key.owner), Lsn(key.id), payload).await,
        _ => store.put(key, value.descriptor(), payload).await,
    };
    shared.count("puts");
    match done {
        Ok(()) if too_large => shared.fail(Law::UnexpectedError, format!("{value:?} is too large and was taken")),
        Ok(()) => shared.acknowledged(&ticket),
        Err(StoreError::TooLarge { .. }) if too_large => shared.refused(&ticket),
        Err(StoreError::Full) => {
            shared.count("probe: full device refused a put");
            shared.refused_full.set(true);
            shared.refused(&ticket);
        }
        Err(error) => shared.judge_write("put", &error),
    }
}

pub(crate) async fn delete(shared: &Shared, store: &StoreHandle, keys: Vec<ShardKey>) {
    let tickets: Vec<_> = keys.iter().map(|key| shared.begin_write(*key, None)).collect();
    removed(shared, "delete", store.delete(keys).await, &tickets);
}

async fn trim(shared: &Shared, store: &StoreHandle, partition: u32, below: u64) {
    let mut keys = universe(shared);
    keys.retain(|key| key.space == Space::Journal && key.owner == partition && key.id < below);
    let tickets: Vec<_> = keys.iter().map(|key| shared.begin_write(*key, None)).collect();
    removed(shared, "trim", store.trim(PartitionId(partition), Lsn(below)).await, &tickets);
}

fn removed(shared: &Shared, what: &str, done: Result<(), StoreError>, tickets: &[crate::shared::Ticket]) {
    match done {
        Ok(()) => tickets.iter().for_each(|ticket| shared.acknowledged(ticket)),
        Err(StoreError::Full) => shared.fail(Law::ForwardProgress, format!("a full device refused a {what}")),
        Err(error) => shared.judge_write(what, &error),
    }
}

/// Pages through everything. Each page is a read of every key in the stretch that it covers.
pub(crate) async fn list(shared: &Shared, store: &StoreHandle, limit: usize) {
    let mut after: Option<ShardKey> = None;
    loop {
        let call = shared.tick();
        let page = match store.list(after, limit).await {
            Ok(page) => page,
            Err(StoreError::Closed) if shared.armed.closing.get() || shared.is_gone() => return,
            Err(error) => return shared.fail(Law::UnexpectedError, format!("list: {error}")),
        };
        let ordered = page.windows(2).all(|two| two[0].key < two[1].key);
        let above = page.first().is_none_or(|first| after.is_none_or(|after| first.key > after));
        if !ordered || !above || page.len() > limit {
            let keys: Vec<ShardKey> = page.iter().map(|info| info.key).collect();
            return shared.fail(Law::Listing, format!("a page after {after:?} of at most {limit} is {keys:?}"));
        }
        let last = page.last().filter(|_| page.len() == limit).map(|info| info.key);
        for info in &page {
            let may = shared.model.borrow().candidates(info.key, |value| value.len == info.len);
            if may.is_empty() {
                return shared.fail(Law::Listing, format!("{info:?} was never stored"));
            }
            shared.saw(info.key, call, may);
        }
        let covered = |key: &ShardKey| after.is_none_or(|after| *key > after) && last.is_none_or(|last| *key <= last);
        for key in universe(shared).into_iter().filter(covered) {
            if page.binary_search_by_key(&key, |info| info.key).is_err() {
                shared.saw(key, call, vec![None]);
            }
        }
        if last.is_none() {
            return;
        }
        after = last;
    }
}

fn note(shared: &Shared, what: &str, done: Result<(), StoreError>) {
    if let Err(error) = done {
        shared.judge_write(what, &error);
    }
}

async fn checkpoint(shared: &Shared, store: &StoreHandle) {
    shared.checkpoints_under_way.set(shared.checkpoints_under_way.get() + 1);
    let done = store.checkpoint().await;
    if !shared.is_gone() {
        shared.checkpoints_under_way.set(shared.checkpoints_under_way.get() - 1);
    }
    note(shared, "checkpoint", done);
}

async fn reclaim(shared: &Shared, store: &StoreHandle) {
    shared.reclaims_under_way.set(shared.reclaims_under_way.get() + 1);
    let done = store.reclaim().await;
    if !shared.is_gone() {
        shared.reclaims_under_way.set(shared.reclaims_under_way.get() - 1);
    }
    match done {
        Ok(_) => {}
        // A victim that cannot be read, or no room to move to: said by name, nothing lost.
        Err(StoreError::Full) => shared.count("reclaim found no room"),
        Err(StoreError::Corrupt { .. } | StoreError::Disk(disk::DiskError::Medium { .. }))
            if shared.may_be_damaged() =>
        {
            shared.count("reclaim met damage");
        }
        Err(error) => shared.judge_write("reclaim", &error),
    }
}

/// Verifies everything, in steps; gives how many records were met, when the end was reached.
pub(crate) async fn verify(shared: &Shared, store: &StoreHandle) -> Option<u64> {
    let (mut at, mut met) = (None, 0);
    for _ in 0..VERIFY_STEPS_MAX {
        match store.verify(at, VERIFY_STEP_BYTES).await {
            Ok(report) => {
                report.bad.iter().for_each(|(key, error)| shared.judge_read(*key, error));
                met += report.records + report.bad.len() as u64;
                at = report.next;
                if at.is_none() {
                    return Some(met);
                }
            }
            Err(StoreError::Closed) if shared.armed.closing.get() || shared.is_gone() => return None,
            Err(error) => {
                shared.fail(Law::UnexpectedError, format!("verify: {error}"));
                return None;
            }
        }
    }
    shared.fail(Law::ForwardProgress, format!("verifying has not ended after {VERIFY_STEPS_MAX} steps"));
    None
}
