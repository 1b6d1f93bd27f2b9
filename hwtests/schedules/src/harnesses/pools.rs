//! Pools that hold one: nothing may need two of anything to go on. A store that does is a deadlock.

use shuttle::future::block_on;

use super::space::{half_dead, tidy_up};
use crate::chance;
use crate::client::{REGIONS, STRIPES, Tolerates};
use crate::history::Key;
use crate::payload::Size;
use crate::world::{Ending, World};

pub(super) fn pools_of_one() {
    block_on(async {
        const KEYS: [Key; 7] = [STRIPES, STRIPES + 1, STRIPES + 2, STRIPES + 3, STRIPES + 4, STRIPES + 5, REGIONS];
        let world = World::new(KEYS).await;
        let mut life = world.open(chance::limits_of_one()).await;
        half_dead(&life).await;
        life.race();
        for name in ["put 1", "put 2"] {
            life.spawn(name, Tolerates::Nothing, |client| async move {
                client.put_all(&[STRIPES + 1, REGIONS, STRIPES + 3], Size::Small).await?;
                client.put(chance::pick(&KEYS), Size::Large).await
            });
        }
        life.spawn("delete", Tolerates::Nothing, |client| async move {
            client.delete(&KEYS[..3]).await?;
            client.delete(&KEYS).await
        });
        life.spawn("sync", Tolerates::Nothing, |client| async move {
            for _ in 0..2 {
                client.ask(|store| async move { store.sync().await }).await?;
            }
            Ok(())
        });
        for name in ["tidy up 1", "tidy up 2"] {
            life.spawn(name, Tolerates::Nothing, |client| tidy_up(client, 2));
        }
        life.spawn("get", Tolerates::Nothing, |client| async move {
            for _ in 0..3 {
                let _ = client.get(chance::pick(&KEYS)).await?;
            }
            let _ = client.list(2).await?;
            Ok(())
        });
        life.end(Ending::any()).await;
        world.conclude().await;
    });
}
