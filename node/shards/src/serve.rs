//! The serving loop: takes requests, runs them side by side on one thread, starts device operations.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use disk::BlockDevice;
use format::{DESCRIPTOR_MAX_BYTES, PAYLOAD_MAX_BYTES, RecordLayout, ShardKey, Space, Stream, TOMBSTONE_MAX_KEYS};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::core::Core;
use crate::extent::{Change, Location};
use crate::handle::{Payload, Request, ShardInfo, StoreHandle};
use crate::mutant::{self, Mutant};
use crate::open::Store;
use crate::state::stream_of;
use crate::{StoreError, StoreResult};

impl<D: BlockDevice> Store<D> {
    /// Serves requests until the store is closed or every handle is gone; then writes a checkpoint and
    /// gives the device up. The handle is passed to `ready` first.
    pub async fn serve(self, ready: impl FnOnce(StoreHandle)) {
        let (tx, mut requests) = mpsc::channel(self.core.state.borrow().limits.queue_len);
        let core = self.core;
        let device = core.state.borrow().label.device;
        ready(StoreHandle::new(device, tx));
        let mut tasks: Tasks = FuturesUnordered::new();
        let mut closing = None;
        poll_fn(|cx| poll_serve(&core, &mut requests, &mut tasks, &mut closing, cx)).await;
        let result = finish(&core, &mut tasks).await;
        if let Some(reply) = closing {
            let _ = reply.send(result);
        }
    }
}

type Tasks = FuturesUnordered<LocalBoxFuture<'static, ()>>;

/// Starts what the state calls for and moves what is under way; gives whether anything happened.
fn advance<D: BlockDevice>(core: &Rc<Core<D>>, tasks: &mut Tasks, cx: &mut Context<'_>) -> bool {
    let mut progress = core.take_dirty();
    if progress {
        core.pump();
    }
    let tasks_max = core.state.borrow().limits.tasks_max;
    for task in core.take_spawned() {
        if mutant::on(Mutant::BackgroundNeedsSlot) && tasks.len() >= tasks_max {
            core.hold(task);
            continue;
        }
        tasks.push(task);
        progress = true;
    }
    while let Poll::Ready(Some(())) = tasks.poll_next_unpin(cx) {
        progress = true;
    }
    progress
}

type Closing = Option<oneshot::Sender<StoreResult<()>>>;

/// Ready when the store is to close and nothing is under way any more.
fn poll_serve<D: BlockDevice>(
    core: &Rc<Core<D>>,
    requests: &mut mpsc::Receiver<Request>,
    tasks: &mut Tasks,
    closing: &mut Closing,
    cx: &mut Context<'_>,
) -> Poll<()> {
    core.park(cx.waker());
    let tasks_max = core.state.borrow().limits.tasks_max;
    let mut open = true;
    loop {
        let mut progress = false;
        while open && closing.is_none() && tasks.len() < tasks_max {
            match requests.poll_recv(cx) {
                Poll::Ready(Some(Request::Close { reply })) => *closing = Some(reply),
                Poll::Ready(Some(request)) => {
                    tasks.push(handle(Rc::clone(core), request));
                    progress = true;
                }
                Poll::Ready(None) => open = false,
                Poll::Pending => break,
            }
        }
        progress |= advance(core, tasks, cx);
        if tasks.is_empty() && (closing.is_some() || !open) && !progress {
            return Poll::Ready(());
        }
        if !progress {
            return Poll::Pending;
        }
    }
}

/// The last checkpoint, so that the next opening has nothing to roll forward.
async fn finish<D: BlockDevice>(core: &Rc<Core<D>>, tasks: &mut Tasks) -> StoreResult<()> {
    assert!(core.locks.is_idle(), "no key is held when nothing is under way");
    if core.state.borrow().read_only {
        return Ok(());
    }
    if mutant::on(Mutant::ShutdownForgetsAfterReset) && core.state.borrow().stats.extents_reclaimed > 0 {
        core.state.borrow_mut().opened.clear();
        Rc::clone(core).write_anchor().await;
        return core.device.flush().await.map_err(StoreError::from);
    }
    let task_core = Rc::clone(core);
    let (tell, mut done) = oneshot::channel();
    tasks.push(Box::pin(async move {
        let _ = tell.send(task_core.checkpoint_now().await);
    }));
    poll_fn(|cx| {
        core.park(cx.waker());
        loop {
            let progress = advance(core, tasks, cx);
            if tasks.is_empty() && !progress {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await;
    done.try_recv().unwrap_or(Err(StoreError::Closed))
}

fn handle<D: BlockDevice>(core: Rc<Core<D>>, request: Request) -> LocalBoxFuture<'static, ()> {
    match request {
        Request::Put { key, descriptor, payload, reply } => {
            let foreground = core.in_foreground();
            Box::pin(async move {
                let _foreground = foreground;
                answer(reply, core.put(key, descriptor, payload).await);
            })
        }
        Request::Get { key, range, reply } => {
            let foreground = core.in_foreground();
            Box::pin(async move {
                let _foreground = foreground;
                answer(reply, core.get(key, range).await);
            })
        }
        Request::Describe { key, reply } => Box::pin(async move { answer(reply, core.describe(key).await) }),
        Request::Delete { keys, reply } => {
            let foreground = core.in_foreground();
            Box::pin(async move {
                let _foreground = foreground;
                answer(reply, core.delete(keys).await);
            })
        }
        Request::List { after, limit, reply } => {
            answer(reply, Ok(core.list(after, limit)));
            Box::pin(async {})
        }
        Request::Trim { partition, below, reply } => Box::pin(async move {
            let keys = core.journal_keys(partition.0, below.0);
            answer(reply, core.delete(keys).await);
        }),
        Request::Verify { from, budget_bytes, reply } => {
            Box::pin(async move { answer(reply, core.verify(from, budget_bytes).await) })
        }
        Request::Sync { reply } => Box::pin(async move { answer(reply, core.flush().await) }),
        Request::Checkpoint { reply } => Box::pin(async move { answer(reply, core.checkpoint_now().await) }),
        Request::Reclaim { reply } => Box::pin(async move { answer(reply, core.reclaim_now().await) }),
        Request::Faults { reply } => {
            answer(reply, Ok(core.state.borrow().faults.list()));
            Box::pin(async {})
        }
        Request::Stats { reply } => {
            answer(reply, Ok(core.state.borrow().counted()));
            Box::pin(async {})
        }
        Request::Close { .. } => unreachable!("closing is taken out before"),
    }
}

/// A caller that has gone away needs no answer.
fn answer<T>(reply: oneshot::Sender<StoreResult<T>>, result: StoreResult<T>) {
    let _ = reply.send(result);
}

impl<D: BlockDevice> Core<D> {
    async fn put(&self, key: ShardKey, descriptor: Bytes, payload: Payload) -> StoreResult<()> {
        let len = payload.len();
        let record_bytes = RecordLayout::new(descriptor.len(), len).record_bytes;
        let extent_bytes = self.state.borrow().label.geometry.extent_bytes as usize;
        if len > PAYLOAD_MAX_BYTES || descriptor.len() > DESCRIPTOR_MAX_BYTES || record_bytes > extent_bytes {
            return Err(StoreError::TooLarge { len, descriptor_len: descriptor.len() });
        }
        if let Payload::Aligned { bytes, len } = &payload {
            assert_eq!(bytes.len(), len.next_multiple_of(disk::IO_ALIGN), "an aligned payload is padded to the unit");
        }
        self.locks.lock(key).await;
        let done = self.write(stream_of(&key), Change::Put(key), descriptor, payload).await;
        if done.is_ok() || !mutant::on(Mutant::KeyLockLeaked) {
            self.locks.unlock(key);
        }
        if done.is_ok() {
            self.state.borrow_mut().stats.accepted_bytes += len as u64;
        }
        done
    }

    async fn delete(&self, mut keys: Vec<ShardKey>) -> StoreResult<()> {
        self.state.borrow().check_writable()?;
        keys.sort_unstable();
        keys.dedup();
        for chunk in keys.chunks(TOMBSTONE_MAX_KEYS) {
            // In key order, so that two deletes never wait for each other.
            let locks = !mutant::on(Mutant::BulkDeleteWithoutLocks);
            for key in chunk.iter().filter(|_| locks) {
                self.locks.lock(*key).await;
            }
            let present: Vec<ShardKey> = {
                let state = self.state.borrow();
                chunk.iter().filter(|key| state.index.contains(key)).copied().collect()
            };
            let done = if present.is_empty() { Ok(()) } else { self.bury(present).await };
            chunk.iter().filter(|_| locks).for_each(|key| self.locks.unlock(*key));
            done?;
        }
        Ok(())
    }

    async fn bury(&self, keys: Vec<ShardKey>) -> StoreResult<()> {
        let payload = Payload::Parts(vec![format::encode_tombstone(&keys).into()]);
        self.write(Stream::Meta, Change::Remove(keys), Bytes::new(), payload).await
    }

    fn list(&self, after: Option<ShardKey>, limit: usize) -> Vec<ShardInfo> {
        let state = self.state.borrow();
        let info = |(key, location): (ShardKey, Location)| ShardInfo { key, len: location.payload_bytes };
        let page: Vec<ShardInfo> = state.index.after(after).take(limit).map(info).collect();
        #[cfg(feature = "mutants")]
        if mutant::on(Mutant::ListByPosition) {
            let from = mutant::position(after, None, 0);
            let from = if from > 0 { from } else { state.index.len() as usize - state.index.after(after).count() };
            let page: Vec<ShardInfo> = state.index.after(None).skip(from).take(limit).map(info).collect();
            mutant::position(after, page.last().map(|info| info.key), page.len());
            return page;
        }
        page
    }

    /// A partition's journal records below `below`.
    fn journal_keys(&self, owner: u32, below: u64) -> Vec<ShardKey> {
        let key = |id| ShardKey { space: Space::Journal, owner, id, slot: 0 };
        let state = self.state.borrow();
        let first = state.index.get(&key(0)).map(|_| key(0));
        let rest = state.index.after(Some(key(0))).map(|(key, _)| key);
        first.into_iter().chain(rest).take_while(|found| *found < key(below)).collect()
    }
}
