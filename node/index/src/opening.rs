//! Opening a partition: the journal first, then a view on each of its members, all brought up to date.
//!
//! A view that cannot be opened, or whose next position the journal no longer keeps, is made anew from
//! the rows of one that can. One good view is enough; none is needed while the journal is whole.

use std::sync::Arc;

use base::Lsn;
use replica::{Journal, JournalConfig, Mirror};

use crate::error::IndexError;
use crate::partition::PartitionConfig;
use crate::region::RegionBackend;
use crate::view::View;
use crate::writer::catch_up;

pub(crate) async fn open(
    config: &PartitionConfig,
    stores: Vec<Mirror>,
    missing: usize,
) -> Result<(Journal, Vec<Arc<View>>), IndexError> {
    let journal_config = JournalConfig { partition: config.partition, policy: config.policy };
    let journal = Journal::open(journal_config, stores, missing).await?;
    let status = journal.status();
    let members: Vec<Mirror> = status.live.iter().filter_map(|device| journal.store(*device)).collect();
    let config = config.clone();
    let for_views = journal.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let opener = Opener { config, journal: for_views, floor: status.floor, acked: status.acked };
        opener.views(&members)
    });
    match opened.await {
        Ok(views) => Ok((journal, views?)),
        Err(panicked) => Err(IndexError::NoView { reason: panicked.to_string() }),
    }
}

struct Opener {
    config: PartitionConfig,
    journal: Journal,
    floor: Lsn,
    acked: Lsn,
}

impl Opener {
    fn region(&self) -> u32 {
        self.config.partition.0
    }

    fn views(&self, members: &[Mirror]) -> Result<Vec<Arc<View>>, IndexError> {
        let mut last = "there is no view".to_owned();
        let mut views: Vec<Option<Arc<View>>> = std::thread::scope(|scope| {
            let tasks: Vec<_> = members.iter().map(|store| scope.spawn(|| self.try_view(store))).collect();
            let done =
                tasks.into_iter().zip(members).map(|(task, store)| {
                    let outcome = task.join().unwrap_or_else(|_| Err("opening it panicked".to_owned()));
                    outcome.map(Arc::new).inspect_err(|reason| {
                    tracing::warn!(device = %store.device(), %reason, "an index view is of no use; making it anew");
                    last.clone_from(reason);
                }).ok()
                });
            done.collect()
        });
        let donor = views.iter().flatten().next().cloned();
        for (slot, store) in views.iter_mut().zip(members).filter(|(slot, _)| slot.is_none()) {
            match self.renew(store, donor.as_deref()) {
                Ok(view) => *slot = Some(Arc::new(view)),
                Err(reason) => {
                    tracing::error!(device = %store.device(), %reason, "an index view cannot be made anew");
                    last = reason;
                }
            }
        }
        let views: Vec<Arc<View>> = views.into_iter().flatten().collect();
        if views.is_empty() { Err(IndexError::NoView { reason: last }) } else { Ok(views) }
    }

    /// The view that is in a store, up to date.
    fn try_view(&self, store: &Mirror) -> Result<View, String> {
        let view = View::open(store, self.region(), self.config.view_cache_bytes).map_err(|e| e.to_string())?;
        let at = view.applied();
        if at.next() < self.floor {
            return Err(format!("it ends at position {}, the journal begins at {}", at.0, self.floor.0));
        }
        if at > self.acked {
            return Err(format!("it ends at position {}, behind the journal's end {}", at.0, self.acked.0));
        }
        catch_up(&self.journal, &view, self.acked).map_err(|e| e.to_string())?;
        Ok(view)
    }

    /// A new view in place of one that is of no use.
    fn renew(&self, store: &Mirror, donor: Option<&View>) -> Result<View, String> {
        match donor {
            Some(donor) => {
                let view = View::rebuild(store, self.region(), self.config.view_cache_bytes, donor);
                view.map_err(|e| e.to_string())
            }
            None => {
                // Nothing to copy from: all rows are in the journal, or lost.
                if self.floor > Lsn(1) {
                    return Err("no view can be read, and the journal was trimmed".to_owned());
                }
                RegionBackend::wipe(store, self.region()).map_err(|e| e.to_string())?;
                self.try_view(store)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{Entropy, PartitionId, SeededEntropy};
    use bytes::Bytes;
    use replica::testing::MemoryStore;
    use replica::{BODY_OFFSET, Policy};

    use super::*;
    use crate::batch::{Batch, Sealed, WITH_COMMAND};
    use crate::model::{BucketRow, Command, Condition, ETag, ObjectMeta, ObjectRow};

    fn batch(entropy: &SeededEntropy) -> Batch {
        let (body, _) = body(entropy);
        Batch::decode(&body.concat(), BODY_OFFSET).unwrap()
    }

    fn body(entropy: &SeededEntropy) -> (Vec<Bytes>, usize) {
        let count = 1 + entropy.below(5) as usize;
        let sealed = (0..count).map(|_| {
            let (bucket, key) = (format!("b{}", entropy.below(2)), format!("k{}", entropy.below(9)));
            let data = vec![7; entropy.below(30) as usize];
            let (command, data) = match entropy.below(5) {
                0 => {
                    let row = BucketRow { owner: "me".into(), created_ms: entropy.below(9), region: String::new() };
                    (Command::CreateBucket { name: bucket, row }, vec![])
                }
                1 => (Command::DeleteObject { bucket, key, condition: Condition::default() }, vec![]),
                _ => {
                    let row = ObjectRow {
                        size: data.len() as u64,
                        etag: ETag::Whole([entropy.next_u64() as u8; 16]),
                        modified_ms: entropy.below(99),
                        meta: ObjectMeta::default(),
                        checksum: None,
                        layout: WITH_COMMAND,
                    };
                    let condition = Condition { must_not_exist: entropy.one_in(3), ..Condition::default() };
                    (Command::PutObject { bucket, key, row, condition, missing: vec![] }, data)
                }
            };
            Sealed::new(command, vec![Bytes::from(data)]).unwrap()
        });
        (Batch::encode(sealed.collect(), BODY_OFFSET).1, count)
    }

    #[test]
    fn views_fed_the_same_batches_have_equal_rows_and_outcomes() {
        let entropy = SeededEntropy::new(11);
        let stores: Vec<Mirror> = (1..=3).map(|n| MemoryStore::new(n) as Mirror).collect();
        let mut views: Vec<View> = stores[..2].iter().map(|s| View::open(s, 1, 1 << 20).unwrap()).collect();
        for lsn in 1..200 {
            let batch = batch(&entropy);
            let outcomes: Vec<_> = views.iter().map(|v| v.apply(Lsn(lsn), &batch).unwrap()).collect();
            assert_eq!(outcomes[0], outcomes[1]);
            assert_eq!(views[0].apply(Lsn(lsn), &batch).unwrap(), None, "a batch counts once");
            assert!(views[0].apply(Lsn(lsn + 2), &batch).is_err(), "no batch is skipped");
            if entropy.one_in(20) {
                // One view goes through a checkpoint and an opening, the other does not.
                views[1].checkpoint().unwrap();
                drop(views.pop());
                views.push(View::open(&stores[1], 1, 1 << 20).unwrap());
            }
        }
        let copy = View::rebuild(&stores[2], 1, 1 << 20, &views[0]).unwrap();
        let dump = views[0].dump().unwrap();
        assert!(dump.len() > 20, "{} rows", dump.len());
        assert_eq!(dump, views[1].dump().unwrap());
        assert_eq!(dump, copy.dump().unwrap());
        assert_eq!(copy.durable(), views[0].applied());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_journal_record_that_is_no_batch_takes_the_view_out_of_use() {
        let stores: Vec<Mirror> = (1..=3).map(|n| MemoryStore::new(n) as Mirror).collect();
        let policy = Policy::for_tolerance(3, 1);
        let config = PartitionConfig { partition: PartitionId(2), policy, view_cache_bytes: 1 << 20 };
        let journal = JournalConfig { partition: PartitionId(2), policy };
        let journal = Journal::open(journal, stores.clone(), 0).await.unwrap();
        journal.append(body(&SeededEntropy::new(1)).0).await.unwrap();
        journal.append(vec![Bytes::from_static(b"nonsense")]).await.unwrap();
        journal.close();
        let refused = open(&config, stores, 0).await.unwrap_err();
        assert!(matches!(refused, IndexError::NoView { .. }), "{refused}");
        assert!(refused.to_string().contains("position 2 is no batch"), "{refused}");
    }
}
