//! The model against the simplest store there is, under crashes: it must allow what that store does, and must not
//! allow what it does not do. A model that is wrong on purpose must be found.

use format::ShardKey;
use simulation::content::{Held, Value};
use simulation::harness::model_disagrees;
use simulation::model::{Model, ModelBug};
use simulation::register::{Event, Kind};

#[test]
fn the_model_explains_a_store_that_keeps_its_promises() {
    for seed in 0..2_000 {
        assert!(!model_disagrees(Model::default(), seed), "seed {seed}");
    }
}

#[test]
fn a_model_that_forgets_a_crash_during_reclaim_is_found() {
    let found = (0..2_000).find(|seed| model_disagrees(Model::with_bug(ModelBug::ForgetsCrashDuringReclaim), *seed));
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
