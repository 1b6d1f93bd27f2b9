//! How every run ends: the device behaves from here on, and the store must take work and keep all of it.

use std::rc::Rc;

use format::ShardKey;
use shards::StoreError;

use crate::client::{self, universe};
use crate::content::Value;
use crate::failure::{Failure, Law};
use crate::runner::{Life, World};

/// Numbers of the values written here; plans draw smaller ones.
const FIRST_ID: u64 = 1 << 40;
/// Length of the values written here.
const LEN: u32 = 9_000;
/// Reclaims and checkpoints within which deleted space must be usable again.
const ROUNDS_MAX: u32 = 8;

/// Ends a run.
pub(crate) fn finish(world: &mut World, life: Life) -> Result<(), Failure> {
    world.shared.count("epilogues");
    let power = world.exec.polls().is_multiple_of(2);
    let Some(life) = world.last_turn(life, power)? else { return Ok(()) };
    world.disarm_reads();
    world.look(&life, Law::Persistence)?;
    let mut refused = Vec::new();
    for (key, id) in universe(&world.shared).into_iter().zip(FIRST_ID..) {
        if !put(world, &life, key, id)? {
            if refused.is_empty() {
                judge(world, &life)?;
            }
            refused.push(key);
        }
    }
    world.shared.settle(Law::Linearizability);
    world.shared.check()?;
    if let Some(key) = refused.first() {
        comes_back(world, &life, *key)?;
    }
    world.look(&life, Law::Linearizability)?;
    let Some(life) = world.close_well(life, !power)? else { return Ok(()) };
    world.look(&life, Law::Persistence)
}

/// Puts a value; false when the device is full.
fn put(world: &mut World, life: &Life, key: ShardKey, id: u64) -> Result<bool, Failure> {
    let shared = Rc::clone(&world.shared);
    shared.refused_full.set(false);
    world.ask(life, move |store| async move { client::put(&shared, &store, key, Value { id, len: LEN }).await })?;
    world.shared.check()?;
    Ok(!world.shared.refused_full.get())
}

/// A refusal must have a reason at the moment it is given: what is put next may replace what fills the device.
fn judge(world: &mut World, life: &Life) -> Result<(), Failure> {
    let stats = world.ask(life, |store| async move { store.stats().await })?;
    if let Ok(stats) = stats {
        crate::look::judge_refusal(&world.shared, &stats);
    }
    world.shared.check()
}

/// A full device takes deletes, and puts again after them.
fn comes_back(world: &mut World, life: &Life, key: ShardKey) -> Result<(), Failure> {
    let shared = Rc::clone(&world.shared);
    let keys = universe(&shared);
    world.ask(life, move |store| async move { client::delete(&shared, &store, keys).await })?;
    world.shared.settle(Law::Linearizability);
    world.shared.check()?;
    for round in 0..ROUNDS_MAX {
        if put(world, life, key, 2 * FIRST_ID + u64::from(round))? {
            world.shared.count("probe: full device came back");
            return Ok(());
        }
        let reclaimed = world.ask(life, |store| async move { store.reclaim().await })?;
        let written = world.ask(life, |store| async move { store.checkpoint().await })?;
        for done in [reclaimed.map(|_| ()), written] {
            match done {
                Ok(()) | Err(StoreError::Full | StoreError::Corrupt { .. }) => {}
                Err(error) => world.shared.judge_write("making room", &error),
            }
        }
        world.shared.check()?;
    }
    Err(Failure::new(Law::ForwardProgress, "everything was deleted and the device is still full"))
}
