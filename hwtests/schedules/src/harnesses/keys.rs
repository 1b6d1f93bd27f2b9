//! Races on the same keys.

use shuttle::future::block_on;

use crate::chance;
use crate::client::{JOURNAL, REGIONS, STRIPES, Tolerates};
use crate::history::Key;
use crate::payload::Size;
use crate::world::{Ending, World};

const SIZES: [Size; 3] = [Size::Small, Size::Medium, Size::Large];

pub(super) fn same_keys() {
    block_on(async {
        // Of two streams, so that a put and the tombstone of its key are in different extents, or in one.
        const KEYS: [Key; 3] = [STRIPES, STRIPES + 1, REGIONS];
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        life.race();
        for name in ["put 1", "put 2"] {
            life.spawn(name, Tolerates::Nothing, |client| async move {
                for _ in 0..3 {
                    client.put(chance::pick(&KEYS), chance::pick(&SIZES)).await?;
                }
                Ok(())
            });
        }
        life.spawn("delete", Tolerates::Nothing, |client| async move {
            for _ in 0..3 {
                client.delete(&[chance::pick(&KEYS)]).await?;
            }
            Ok(())
        });
        for name in ["get 1", "get 2"] {
            life.spawn(name, Tolerates::Nothing, |client| async move {
                for _ in 0..3 {
                    let _ = client.get(chance::pick(&KEYS)).await?;
                }
                let _ = client.list(chance::pick(&[1, 2, 10])).await?;
                Ok(())
            });
        }
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}

pub(super) fn journal() {
    block_on(async {
        const FIRST: Key = JOURNAL;
        const LAST: Key = JOURNAL + 8;
        let world = World::new(FIRST..LAST).await;
        let mut life = world.open(chance::limits()).await;
        life.race();
        for (name, from) in [("append 1", FIRST), ("append 2", FIRST + 1)] {
            life.spawn(name, Tolerates::Nothing, move |client| async move {
                for key in (from..LAST).step_by(2) {
                    client.put(key, Size::Small).await?;
                }
                Ok(())
            });
        }
        life.spawn("trim", Tolerates::Nothing, |client| async move {
            for below in [FIRST + 2, FIRST + 5, LAST] {
                client.trim(below).await?;
            }
            Ok(())
        });
        life.spawn("read", Tolerates::Nothing, |client| async move {
            for _ in 0..2 {
                let _ = client.list(4).await?;
                let _ = client.get(FIRST + chance::below(8) as Key).await?;
            }
            Ok(())
        });
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}

pub(super) fn impatient() {
    block_on(async {
        const KEYS: [Key; 2] = [STRIPES, REGIONS];
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        life.race();
        for name in ["leaves 1", "leaves 2"] {
            life.spawn(name, Tolerates::Nothing, |client| async move {
                for _ in 0..3 {
                    client.put_and_leave(chance::pick(&KEYS), chance::pick(&SIZES)).await;
                }
                Ok(())
            });
        }
        life.spawn("stays", Tolerates::Nothing, |client| async move {
            for key in [KEYS[0], KEYS[1], KEYS[0]] {
                client.put(key, Size::Small).await?;
                let _ = client.get(key).await?;
                client.delete(&[key]).await?;
            }
            Ok(())
        });
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}
