//! The partitions that this node serves to the others.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base::{Lsn, PartitionId};
use bytes::Bytes;
use futures::future::BoxFuture;
use index::model::Command;
use index::{IndexError, PartitionClient, Question};
use wire::Fault;
use wire::index::{IndexHost, Target};

/// First byte of an answer: what the index said, or why it did not.
pub(crate) const SAID: u8 = 0;
pub(crate) const FAILED: u8 = 1;

/// See the file's header. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LocalIndex {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    partition: RwLock<Option<(PartitionId, Arc<dyn PartitionClient>)>>,
    fence: AtomicU64,
}

impl LocalIndex {
    /// Serves this partition from now on; nothing when `None`.
    pub fn serve(&self, partition: Option<(PartitionId, Arc<dyn PartitionClient>)>) {
        *self.inner.partition.write().unwrap_or_else(PoisonError::into_inner) = partition;
    }

    /// Refuses senders that go by a map older than `epoch`.
    pub fn fence(&self, epoch: u64) {
        self.inner.fence.fetch_max(epoch, Ordering::SeqCst);
    }

    fn partition(&self, target: Target) -> Result<Arc<dyn PartitionClient>, Fault> {
        let fence = self.inner.fence.load(Ordering::SeqCst);
        if target.map_epoch < fence {
            return Err(Fault::StaleMap { epoch: fence });
        }
        match &*self.inner.partition.read().unwrap_or_else(PoisonError::into_inner) {
            Some((id, partition)) if *id == target.partition => Ok(Arc::clone(partition)),
            _ => Err(Fault::NoSuchPartition),
        }
    }
}

fn answer<T>(answer: Result<T, IndexError>, encode: impl FnOnce(&T) -> Vec<u8>) -> Bytes {
    let (kind, body) = match answer {
        Ok(said) => (SAID, encode(&said)),
        Err(error) => (FAILED, error.encode()),
    };
    let mut bytes = Vec::with_capacity(body.len() + 1);
    bytes.push(kind);
    bytes.extend_from_slice(&body);
    bytes.into()
}

impl IndexHost for LocalIndex {
    fn submit(&self, to: Target, command: Bytes, data: Vec<Bytes>) -> BoxFuture<'_, Result<Bytes, Fault>> {
        Box::pin(async move {
            let partition = self.partition(to)?;
            let command = Command::decode(&command).map_err(|e| Fault::Invalid(e.to_string()))?;
            Ok(answer(partition.submit(command, data).await, |outcome| outcome.encode()))
        })
    }

    fn ask(&self, of: Target, question: Bytes) -> BoxFuture<'_, Result<Bytes, Fault>> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            let question = Question::decode(&question).map_err(|e| Fault::Invalid(e.to_string()))?;
            Ok(answer(partition.ask(question).await, |said| said.encode()))
        })
    }

    fn read_data(&self, of: Target, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, Fault>> {
        Box::pin(async move {
            let partition = self.partition(of)?;
            partition.read_data(lsn, range).await.map_err(|error| Fault::Device(error.to_string()))
        })
    }
}
