//! Pages of the list against creates and removes: no key that was never there, none skipped that always was.

use shuttle::future::block_on;

use crate::chance;
use crate::client::{STRIPES, Tolerates};
use crate::history::Key;
use crate::payload::Size;
use crate::world::{Ending, World};

pub(super) fn listing() {
    block_on(async {
        const KEYS: std::ops::Range<Key> = STRIPES..STRIPES + 10;
        let stays = |key: &Key| key % 3 == 2;
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        life.fill(KEYS.filter(|key| key % 2 == 0 || stays(key)), Size::Small).await;
        life.race();
        for (name, parity) in [("change 1", 0), ("change 2", 1)] {
            life.spawn(name, Tolerates::Nothing, move |client| async move {
                for key in KEYS.filter(|key| key % 2 == parity && !stays(key)) {
                    if parity == 0 {
                        client.delete(&[key]).await?;
                    } else {
                        client.put(key, Size::Small).await?;
                    }
                }
                Ok(())
            });
        }
        for name in ["list 1", "list 2"] {
            life.spawn(name, Tolerates::Nothing, move |client| async move {
                let listed = client.list(chance::pick(&[1, 2, 3])).await?;
                for key in KEYS.filter(stays) {
                    let times = listed.iter().filter(|(listed, _)| *listed == key).count();
                    assert_eq!(times, 1, "key {key}, which nobody touched, was listed {times} times: {listed:?}");
                }
                Ok(())
            });
        }
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}
