//! The model against the simplest store there is, under crashes: it must allow what that store does, and must not
//! allow what it does not do. A model that is wrong on purpose must be found.

use base::SeededEntropy;
use format::ShardKey;
use simulation::content::{Held, Value};
use simulation::mock::MockStore;
use simulation::model::{Model, ModelBug};
use simulation::register::{Event, Kind};

/// Runs the model beside the mock; true when the model could not explain what the mock did.
fn disagree(mut model: Model, seed: u64) -> bool {
    let rng = SeededEntropy::new(seed);
    let mut store = MockStore::default();
    let (mut now, mut ids) = (0, 0);
    let mut called: Vec<(ShardKey, u64, Held)> = Vec::new();
    let mut tick = || {
        now += 1;
        now
    };
    for _ in 0..60 {
        let key = ShardKey::region(0, rng.below(3));
        match rng.below(12) {
            0..=3 => {
                ids += 1;
                let value = Value { id: ids, len: 20 };
                let held = (!rng.one_in(4)).then_some(value);
                model.announce(key, value);
                store.begin(key, held);
                called.push((key, tick(), held));
            }
            4..=6 => {
                if let Some((key, held)) = store.finish_one() {
                    let (_, call, _) = called.remove(0);
                    let event = Event { call, ret: Some(tick()), kind: Kind::Write(held) };
                    if model.settle(key, vec![event]).is_err() {
                        return true;
                    }
                }
            }
            7 => store.begin_reclaim(),
            8 => store.end_reclaim(),
            9 => {
                for (key, call, held) in called.drain(..) {
                    let event = Event { call, ret: None, kind: Kind::Write(held) };
                    if model.settle(key, vec![event]).is_err() {
                        return true;
                    }
                }
                model.crash(store.is_reclaiming());
                store.crash(&rng);
            }
            _ => {
                // Reads come where nothing of the key is under way.
                if called.iter().all(|(other, ..)| *other != key) {
                    let event = Event { call: tick(), ret: Some(tick()), kind: Kind::Read(vec![store.get(key)]) };
                    if model.settle(key, vec![event]).is_err() {
                        return true;
                    }
                }
            }
        }
    }
    false
}

#[test]
fn the_model_explains_a_store_that_keeps_its_promises() {
    for seed in 0..2_000 {
        assert!(!disagree(Model::default(), seed), "seed {seed}");
    }
}

#[test]
fn a_model_that_forgets_a_crash_during_reclaim_is_found() {
    let found = (0..2_000).find(|seed| disagree(Model::with_bug(ModelBug::ForgetsCrashDuringReclaim), *seed));
    println!("found by seed {found:?}");
    assert!(found.is_some_and(|seed| seed < 100));
}

fn key() -> ShardKey {
    ShardKey::region(0, 1)
}

fn value(id: u64) -> Value {
    Value { id, len: 20 }
}

fn write(model: &mut Model, at: u64, held: Held, answered: bool) {
    held.into_iter().for_each(|value| model.announce(key(), value));
    let event = Event { call: at, ret: answered.then_some(at), kind: Kind::Write(held) };
    model.settle(key(), vec![event]).expect("a write is always explained");
}

fn read(model: &mut Model, at: u64, held: Held) -> bool {
    model.settle(key(), vec![Event { call: at, ret: Some(at), kind: Kind::Read(vec![held]) }]).is_ok()
}

#[test]
fn an_acknowledged_write_survives_every_crash() {
    let mut model = Model::default();
    write(&mut model, 1, Some(value(1)), true);
    for at in 2..5 {
        model.crash(false);
        assert!(read(&mut model, at, Some(value(1))));
        assert!(!read(&mut model.clone(), at, None), "lost");
    }
    write(&mut model, 9, None, true);
    model.crash(false);
    assert!(!read(&mut model, 10, Some(value(1))), "a deleted record came back");
}

#[test]
fn an_unanswered_write_is_decided_by_the_first_look_after_the_crash() {
    let mut model = Model::default();
    write(&mut model, 1, Some(value(1)), true);
    write(&mut model, 2, Some(value(2)), false);
    model.crash(false);
    model.crash(false);
    let mut other = model.clone();
    assert!(read(&mut model, 3, Some(value(2))));
    model.crash(false);
    assert!(!read(&mut model, 4, Some(value(1))), "once seen it is fixed");
    assert!(read(&mut other, 3, Some(value(1))));
    other.crash(false);
    assert!(!read(&mut other, 4, Some(value(2))), "once ruled out it stays out");
}

#[test]
fn damage_lets_reads_fail_and_doubt_lets_older_values_back_until_a_put() {
    let mut model = Model::default();
    write(&mut model, 1, Some(value(1)), true);
    write(&mut model, 2, Some(value(2)), true);
    model.damage(key());
    assert!(model.may_fail(key()) && !read(&mut model.clone(), 3, Some(value(1))));
    model.doubt(key());
    assert!(!read(&mut model.clone(), 3, Some(value(7))), "never a value that was not written");
    assert!(read(&mut model.clone(), 3, None) && read(&mut model, 3, Some(value(1))));
    assert!(!read(&mut model, 4, Some(value(2))), "once seen it is fixed");
    write(&mut model, 5, Some(value(3)), true);
    assert!(!model.may_fail(key()) && !read(&mut model, 6, Some(value(1))));
}
