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
