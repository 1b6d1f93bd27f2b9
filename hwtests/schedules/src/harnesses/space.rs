//! Races with reclaim and checkpoints, on a device so small that extents are used again within a run.

use shuttle::future::block_on;

use crate::chance;
use crate::client::{Client, Gone, REGIONS, STRIPES, Tolerates};
use crate::history::Key;
use crate::payload::Size;
use crate::world::{Ending, Life, World};

/// Reclaims and writes checkpoints; two of these free an extent.
pub(super) async fn tidy_up(client: Client, rounds: u64) -> Result<(), Gone> {
    for _ in 0..rounds {
        if chance::one_in(2) {
            let _ = client.ask(|store| async move { store.reclaim().await }).await?;
        }
        client.ask(|store| async move { store.checkpoint().await }).await?;
    }
    Ok(())
}

/// Keys 0 to 5 in three extents; then every other one again, so that the first three are half dead.
pub(super) async fn half_dead(life: &Life<'_>) {
    life.fill(STRIPES..STRIPES + 6, Size::Large).await;
    life.fill((STRIPES..STRIPES + 6).step_by(2), Size::Large).await;
}

pub(super) fn reclaim() {
    block_on(async {
        const KEYS: [Key; 8] =
            [STRIPES, STRIPES + 1, STRIPES + 2, STRIPES + 3, STRIPES + 4, STRIPES + 5, REGIONS, REGIONS + 1];
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits()).await;
        half_dead(&life).await;
        life.fill([REGIONS], Size::Small).await;
        life.race();
        life.spawn("put", Tolerates::Nothing, |client| async move {
            for _ in 0..5 {
                client.put(chance::pick(&KEYS), chance::pick(&[Size::Small, Size::Large])).await?;
            }
            Ok(())
        });
        life.spawn("delete", Tolerates::Nothing, |client| async move {
            for _ in 0..2 {
                client.delete(&[chance::pick(&KEYS), chance::pick(&KEYS)]).await?;
            }
            Ok(())
        });
        life.spawn("tidy up", Tolerates::Nothing, |client| tidy_up(client, 3));
        for name in ["get 1", "get 2"] {
            life.spawn(name, Tolerates::Nothing, |client| async move {
                for _ in 0..5 {
                    let _ = client.get(chance::pick(&KEYS)).await?;
                }
                Ok(())
            });
        }
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}

pub(super) fn overwrite() {
    block_on(async {
        let world = World::new(STRIPES..STRIPES + 6).await;
        let mut life = world.open(chance::limits()).await;
        half_dead(&life).await;
        life.race();
        // The records at odd keys are the live ones of the first extents.
        const MOVED: [Key; 3] = [STRIPES + 1, STRIPES + 3, STRIPES + 5];
        life.spawn("overwrite", Tolerates::Nothing, |client| async move {
            for _ in 0..3 {
                let key = chance::pick(&MOVED);
                client.put(key, chance::pick(&[Size::Small, Size::Large])).await?;
                let _ = client.get(key).await?;
            }
            Ok(())
        });
        life.spawn("reclaim", Tolerates::Nothing, |client| async move {
            for _ in 0..3 {
                let _ = client.ask(|store| async move { store.reclaim().await }).await?;
            }
            Ok(())
        });
        life.spawn("checkpoint", Tolerates::Nothing, |client| async move {
            for _ in 0..3 {
                client.ask(|store| async move { store.checkpoint().await }).await?;
            }
            Ok(())
        });
        life.spawn("get", Tolerates::Nothing, |client| async move {
            for _ in 0..6 {
                let _ = client.get(chance::pick(&MOVED)).await?;
            }
            Ok(())
        });
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}
