//! The threads behind a partition: one task gathers commands into batches and appends them, one thread
//! applies them to the serving view and answers, one thread per view follows.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use base::Lsn;
use replica::{BODY_OFFSET, Journal, JournalError, Pending};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, Batch, Sealed};
use crate::error::{IndexError, ViewError};
use crate::model::Outcome;
use crate::partition::{Inner, record_of};
use crate::view::View;

/// Batches being made durable at once: enough to keep a device busy while another batch is applied, few
/// enough that commands gather into large batches when devices are slow.
const PIPELINE_DEPTH: usize = 4;
/// Batches that wait for a following view; behind that it reads the journal itself.
const FOLLOW_QUEUE_LEN: usize = 64;

type Reply = oneshot::Sender<Result<Outcome, IndexError>>;

/// What callers send.
#[derive(Debug)]
pub(crate) enum Submission {
    Command { sealed: Box<Sealed>, reply: Reply },
    Drain { reply: oneshot::Sender<()> },
}

/// A batch on its way to a following view.
#[derive(Debug)]
pub(crate) struct Followed {
    lsn: Lsn,
    batch: Arc<Batch>,
}

#[derive(Debug)]
enum Work {
    Batch { pending: Pending, batch: Batch, replies: Vec<Reply> },
    Drain { reply: oneshot::Sender<()> },
}

/// Starts the gathering task and the applying thread.
pub(crate) fn start(inner: Arc<Inner>, queue: mpsc::Receiver<Submission>) {
    let (tx, rx) = mpsc::channel(PIPELINE_DEPTH);
    let journal = inner.journal.clone();
    tokio::spawn(gather(journal, queue, tx));
    spawn_thread("index-apply", move || apply_all(&inner, rx));
}

fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    // As at start-up anywhere: a machine that cannot start a thread cannot serve.
    thread.expect("the system starts a thread");
}

async fn gather(journal: Journal, mut queue: mpsc::Receiver<Submission>, work: mpsc::Sender<Work>) {
    let mut waiting = Vec::new();
    loop {
        if queue.recv_many(&mut waiting, BATCH_COMMANDS_MAX).await == 0 {
            return;
        }
        let mut commands = Vec::new();
        let mut replies = Vec::new();
        let mut bytes = 0;
        for submission in waiting.drain(..) {
            match submission {
                Submission::Command { sealed, reply } => {
                    if bytes + sealed.bytes() > BATCH_BYTES_MAX && !commands.is_empty() {
                        let full = (std::mem::take(&mut commands), std::mem::take(&mut replies));
                        if !append(&journal, &work, full.0, full.1).await {
                            return;
                        }
                        bytes = 0;
                    }
                    bytes += sealed.bytes();
                    commands.push(*sealed);
                    replies.push(reply);
                }
                Submission::Drain { reply } => {
                    queue.close();
                    let full = (std::mem::take(&mut commands), std::mem::take(&mut replies));
                    if !append(&journal, &work, full.0, full.1).await || work.send(Work::Drain { reply }).await.is_err()
                    {
                        return;
                    }
                }
            }
        }
        if !append(&journal, &work, commands, replies).await {
            return;
        }
    }
}

/// Appends one batch; false when nobody applies any more.
async fn append(journal: &Journal, work: &mpsc::Sender<Work>, commands: Vec<Sealed>, replies: Vec<Reply>) -> bool {
    if commands.is_empty() {
        return true;
    }
    // A place in the pipeline first: what is in the journal must be applied.
    let Ok(permit) = work.reserve().await else { return false };
    let (batch, parts) = Batch::encode(commands, BODY_OFFSET);
    match journal.begin_append(&parts) {
        Ok(pending) => permit.send(Work::Batch { pending, batch, replies }),
        Err(error) => answer_all(replies, &IndexError::Journal(error)),
    }
    true
}

fn answer_all(replies: Vec<Reply>, error: &IndexError) {
    for reply in replies {
        // A caller that went away needs no answer, here and below.
        let _ = reply.send(Err(error.clone()));
    }
}

fn apply_all(inner: &Inner, mut work: mpsc::Receiver<Work>) {
    while let Some(item) = work.blocking_recv() {
        match item {
            Work::Drain { reply } => drop(reply.send(())),
            Work::Batch { pending, batch, replies } => match pending.wait_blocking() {
                Ok(lsn) => apply_one(inner, lsn, batch, replies),
                Err(error) => answer_all(replies, &IndexError::Journal(error)),
            },
        }
    }
}

fn apply_one(inner: &Inner, lsn: Lsn, batch: Batch, replies: Vec<Reply>) {
    match inner.apply(lsn, &batch) {
        Ok(outcomes) => {
            assert_eq!(outcomes.len(), replies.len(), "every command has an outcome");
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                let _ = reply.send(Ok(outcome));
            }
        }
        Err(error) => {
            tracing::error!(lsn = lsn.0, %error, "a durable batch cannot be applied");
            answer_all(replies, &error);
        }
    }
    let batch = Arc::new(batch);
    let serving = inner.serving_index();
    for (_, follower) in inner.followers.iter().enumerate().filter(|(i, _)| *i != serving) {
        match follower.try_send(Followed { lsn, batch: Arc::clone(&batch) }) {
            // Full: the view sees the gap with the next batch, or at the next checkpoint, and reads the journal.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Starts the thread that keeps a view close behind the serving one.
pub(crate) fn follow(journal: Journal, view: Arc<View>) -> SyncSender<Followed> {
    let (tx, rx) = sync_channel(FOLLOW_QUEUE_LEN);
    spawn_thread("index-follow", move || follow_all(&journal, &view, &rx));
    tx
}

fn follow_all(journal: &Journal, view: &View, queue: &Receiver<Followed>) {
    while let Ok(Followed { lsn, batch }) = queue.recv() {
        if view.is_failed() {
            continue;
        }
        match view.apply(lsn, &batch) {
            Ok(_) => {}
            Err(ViewError::Gap { .. }) => {
                if let Err(error) = catch_up(journal, view, lsn) {
                    tracing::warn!(device = %view.device(), %error, "an index view cannot catch up");
                }
            }
            Err(error) => drop(view.fail(&error)),
        }
    }
}

/// Applies the journal to a view up to `to`. On an error the view is out of use. Blocks.
pub(crate) fn catch_up(journal: &Journal, view: &View, to: Lsn) -> Result<(), IndexError> {
    let mut previous = None;
    while view.applied() < to {
        let lsn = view.applied().next();
        let step = record_of(journal, previous.as_ref(), lsn).and_then(|record| {
            let batch =
                Batch::decode(&record.body(), BODY_OFFSET).map_err(|what| IndexError::BadBatch { lsn, what })?;
            previous = Some(record);
            match view.apply(lsn, &batch) {
                // Another thread may have come first.
                Ok(_) | Err(ViewError::Gap { .. }) => Ok(()),
                Err(error) => Err(view.fail(&error)),
            }
        });
        if let Err(error) = step {
            view.fail(&ViewError::CatchUp(error.to_string()));
            return Err(error);
        }
    }
    Ok(())
}

/// Brings a view up to `target` and makes it durable. Blocks.
pub(crate) fn checkpoint(journal: &Journal, view: &View, target: Lsn) {
    if view.is_failed() {
        return;
    }
    match catch_up(journal, view, target) {
        Ok(()) => {
            if let Err(error) = view.checkpoint() {
                view.fail(&error);
            }
        }
        Err(IndexError::Journal(JournalError::Closed)) => {}
        Err(error) => tracing::error!(device = %view.device(), %error, "an index view cannot catch up"),
    }
}
