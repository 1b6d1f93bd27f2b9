//! A partition behind messages: every request, answer and error goes through its encoding, as between hosts.

use std::ops::Range;

use base::Lsn;
use bytes::Bytes;
use futures::future::BoxFuture;
use index::model::{Command, Outcome};
use index::{Answer, IndexError, Partition, PartitionClient, Question};

/// The caller's side and the host's side of the wire in one.
#[derive(Debug)]
pub(crate) struct Messages {
    partition: Partition,
    /// Whether the caller is on the partition's host all the same, where the services that clean up run.
    is_local: bool,
}

impl Messages {
    pub(crate) fn to(partition: Partition) -> Self {
        Self { partition, is_local: true }
    }

    /// As a node sees it that holds no copy of it.
    pub(crate) fn from_afar(partition: Partition) -> Self {
        Self { partition, is_local: false }
    }
}

/// What a host sends: the encoded answer, or the encoded error.
type Sent = Result<Vec<u8>, Vec<u8>>;

fn sent<T>(answer: Result<T, IndexError>, encode: impl FnOnce(&T) -> Vec<u8>) -> Sent {
    answer.map(|answer| encode(&answer)).map_err(|error| error.encode())
}

fn received<T>(sent: Sent, decode: impl FnOnce(&[u8]) -> Result<T, index::Malformed>) -> Result<T, IndexError> {
    match sent {
        Ok(bytes) => decode(&bytes).map_err(|malformed| IndexError::Malformed(malformed.0)),
        Err(bytes) => Err(IndexError::decode(&bytes)),
    }
}

impl PartitionClient for Messages {
    fn submit(&self, command: Command, data: Vec<Bytes>) -> BoxFuture<'_, Result<Outcome, IndexError>> {
        let (command, data) = (command.encode(), data.concat());
        Box::pin(async move {
            let command = Command::decode(&command).expect("a command arrives");
            // Pieces come as they fit into frames, not as they were given.
            let data = data.chunks(10_000).map(Bytes::copy_from_slice).collect();
            received(sent(self.partition.submit(command, data).await, Outcome::encode), Outcome::decode)
        })
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, IndexError>> {
        let question = question.encode();
        Box::pin(async move {
            let question = Question::decode(&question).expect("a question arrives");
            let answer = PartitionClient::ask(&self.partition, question).await;
            received(sent(answer, Answer::encode), Answer::decode)
        })
    }

    fn read_data(&self, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, IndexError>> {
        Box::pin(async move {
            let read = self.partition.read_data(lsn, range).await;
            received(sent(read, |bytes| bytes.to_vec()), |bytes| Ok(Bytes::copy_from_slice(bytes)))
        })
    }

    fn local(&self) -> Option<&Partition> {
        self.is_local.then_some(&self.partition)
    }
}
