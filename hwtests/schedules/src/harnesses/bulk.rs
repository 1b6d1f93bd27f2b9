//! Creates of many keys against deletes of many keys. A delete of many keys is one moment for all of them, so the
//! whole history must have an order, not each key alone; the last reads make the final state part of it.

use shuttle::future::block_on;

use crate::client::{REGIONS, STRIPES, Tolerates};
use crate::history::{Key, Op, Value, What};
use crate::payload::Size;
use crate::world::{Ending, World};
use crate::{chance, linear};

pub(super) fn bulk() {
    block_on(async {
        const KEYS: [Key; 4] = [STRIPES, STRIPES + 1, STRIPES + 2, REGIONS];
        const REVERSED: [Key; 4] = [REGIONS, STRIPES + 2, STRIPES + 1, STRIPES];
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        life.race();
        for (name, keys) in [("create 1", KEYS), ("create 2", REVERSED)] {
            life.spawn(name, Tolerates::Nothing, move |client| async move {
                client.put_all(&keys, Size::Small).await?;
                client.put_all(&keys[..2], chance::pick(&[Size::Small, Size::Medium])).await
            });
        }
        for (name, keys) in [("delete 1", REVERSED), ("delete 2", KEYS)] {
            life.spawn(name, Tolerates::Nothing, move |client| async move {
                client.delete(&keys[1..]).await?;
                client.delete(&keys).await
            });
        }
        life.spawn("read", Tolerates::Nothing, |client| async move {
            let _ = client.list(10).await?;
            let _ = client.get(chance::pick(&KEYS)).await?;
            Ok(())
        });
        life.join();
        let reader = life.client("afterwards", Tolerates::Nothing);
        let left = reader.list(10).await.expect("an open store answers");
        drop(reader);
        life.end(Ending::any()).await;
        let ops = world.ops();
        if let Err(told) = linear::check_whole(&ops) {
            panic!("all keys together are not linearizable:\n{told}");
        }
        assert_written(&ops, &left);
        world.conclude().await;
    });
}

/// What is left was written, to that key.
fn assert_written(ops: &[Op], left: &[(Key, Value)]) {
    for (key, value) in left {
        assert!(ops.iter().any(|op| op.what == What::Put(*key, *value)), "key {key} has a value {value} of no put");
    }
}
