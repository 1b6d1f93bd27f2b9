//! Lives that end while requests are under way: every request is answered, and what was acknowledged stays.

use shuttle::future::block_on;

use super::space::{half_dead, tidy_up};
use crate::client::{REGIONS, STRIPES, Tolerates};
use crate::history::Key;
use crate::payload::Size;
use crate::world::{Ending, World};
use crate::{chance, probe};

/// A world whose store has had a life before, or not: what is opened for the first time is not all there is.
async fn grown<const N: usize>(keys: [Key; N]) -> World {
    let mut world = World::new(keys).await;
    if chance::one_in(2) {
        let life = world.open(chance::limits()).await;
        life.fill([keys[0]], Size::Small).await;
        life.end(Ending::any()).await;
        world.reopen();
    }
    world
}

pub(super) fn flush() {
    block_on(async {
        const KEYS: [Key; 4] = [STRIPES, STRIPES + 1, STRIPES + 2, REGIONS];
        let world = grown(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        life.race();
        // Sometimes before everything has been acknowledged.
        world.cut_power_after(chance::below(40));
        for (name, keys) in [("put 1", [KEYS[0], KEYS[1]]), ("put 2", [KEYS[2], KEYS[3]])] {
            life.spawn(name, Tolerates::PowerLoss, move |client| async move {
                for key in keys {
                    client.put(key, chance::pick(&[Size::Small, Size::Medium])).await?;
                    // Nobody else writes to the key: what was acknowledged is what is read.
                    for _ in 0..2 {
                        let _ = client.get(key).await?;
                    }
                }
                Ok(())
            });
        }
        life.spawn("sync", Tolerates::PowerLoss, |client| async move {
            for _ in 0..5 {
                client.ask(|store| async move { store.sync().await }).await?;
            }
            Ok(())
        });
        life.end(Ending::PowerLoss).await;
        world.conclude().await;
    });
}

pub(super) fn close() {
    block_on(async {
        const KEYS: [Key; 3] = [STRIPES, STRIPES + 1, REGIONS];
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        life.race();
        for name in ["change 1", "change 2", "change 3"] {
            life.spawn(name, Tolerates::Closing, |client| async move {
                for _ in 0..3 {
                    let key = chance::pick(&KEYS);
                    let done = match chance::below(4) {
                        0 => client.delete(&[key]).await,
                        1 => client.get(key).await.map(drop),
                        2 => tidy_up(client.clone(), 1).await,
                        _ => client.put(key, chance::pick(&[Size::Small, Size::Large])).await,
                    };
                    done.inspect_err(|_| probe::hit("requests refused", 1))?;
                }
                Ok(())
            });
        }
        for name in ["close 1", "close 2"] {
            life.spawn(name, Tolerates::Closing, |client| async move {
                for _ in 0..chance::below(20) {
                    chance::pause().await;
                }
                client.ask(|store| async move { store.close().await }).await
            });
        }
        life.end(Ending::Abandon).await;
        world.conclude().await;
    });
}

pub(super) fn power() {
    block_on(async {
        const KEYS: [Key; 7] = [STRIPES, STRIPES + 1, STRIPES + 2, STRIPES + 3, STRIPES + 4, STRIPES + 5, REGIONS];
        let world = grown(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        half_dead(&life).await;
        life.race();
        world.cut_power_after(chance::below(60));
        for name in ["change 1", "change 2"] {
            life.spawn(name, Tolerates::PowerLoss, |client| async move {
                for _ in 0..4 {
                    let key = chance::pick(&KEYS);
                    match chance::below(4) {
                        0 => client.delete(&[key, chance::pick(&KEYS)]).await?,
                        1 => client.put_all(&[key, REGIONS], Size::Small).await?,
                        _ => client.put(key, chance::pick(&[Size::Small, Size::Large])).await?,
                    }
                }
                Ok(())
            });
        }
        life.spawn("get", Tolerates::PowerLoss, |client| async move {
            for _ in 0..4 {
                let _ = client.get(chance::pick(&KEYS)).await?;
            }
            let _ = client.list(3).await?;
            Ok(())
        });
        life.spawn("tidy up", Tolerates::PowerLoss, |client| tidy_up(client, 3));
        life.end(Ending::PowerLoss).await;
        world.conclude().await;
    });
}
