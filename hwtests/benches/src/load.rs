//! Closed-loop load: so many clients, each sending its next request when the last was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, ClientError, Endpoint};
use crate::payload::Objects;

/// Time a client waits after it was asked to slow down.
const BACK_OFF: Duration = Duration::from_millis(20);

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Put the next object, over the oldest when all numbers are used up.
    Put,
    /// Get any object and check it.
    Get,
    /// Ask for the head of any object.
    Head,
    /// Delete the next object.
    Delete,
}

/// One measurement.
#[derive(Clone)]
pub struct Cell {
    /// What.
    pub op: Op,
    /// On which objects.
    pub objects: Objects,
    /// Path before the object's number: `/bucket/prefix/`.
    pub prefix: String,
    /// Numbers `0..keys` are used.
    pub keys: u64,
    /// By how many.
    pub clients: u64,
    /// No request is begun after so long.
    pub duration: Duration,
    /// Nor more than so many.
    pub requests_max: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Milliseconds of every good answer, to the end of its body, ascending.
    pub latencies_ms: Vec<f32>,
    /// Requests that were asked to slow down; they count for nothing else.
    pub slow_downs: u64,
    /// Requests that failed otherwise.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<ClientError>,
}

impl Outcome {
    /// The latency that a share of the requests kept within, milliseconds.
    #[must_use]
    pub fn percentile_ms(&self, share: f64) -> Option<f64> {
        let rank = (self.latencies_ms.len() as f64 * share).ceil() as usize;
        self.latencies_ms.get(rank.saturating_sub(1)).map(|ms| f64::from(*ms))
    }

    fn merge(&mut self, other: Outcome) {
        self.latencies_ms.extend(other.latencies_ms);
        self.slow_downs += other.slow_downs;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// The path of an object.
#[must_use]
pub fn path(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:08}")
}

/// Runs a cell to its end.
pub async fn run(endpoint: &Endpoint, cell: Cell) -> Outcome {
    let cell = Arc::new(cell);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let clients: Vec<_> = (0..cell.clients)
        .map(|seed| {
            let client = Client::new(endpoint.clone());
            tokio::spawn(work(client, Arc::clone(&cell), Arc::clone(&next), start, seed))
        })
        .collect();
    let mut outcome = Outcome::default();
    for client in clients {
        outcome.merge(client.await.expect("a client does not panic"));
    }
    outcome.elapsed = start.elapsed();
    outcome.latencies_ms.sort_by(f32::total_cmp);
    outcome
}

async fn work(mut client: Client, cell: Arc<Cell>, next: Arc<AtomicU64>, start: Instant, seed: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while start.elapsed() < cell.duration {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        if turn >= cell.requests_max {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = match cell.op {
            Op::Put | Op::Delete => turn % cell.keys,
            Op::Get | Op::Head => random % cell.keys,
        };
        let path = path(&cell.prefix, number);
        let begun = Instant::now();
        let answer = match cell.op {
            Op::Put => client.put(&path, &cell.objects, number).await,
            Op::Get => client.get(&path, &cell.objects, number).await,
            Op::Head => client.head(&path).await,
            Op::Delete => client.delete(&path).await,
        };
        match answer {
            Ok(()) => outcome.latencies_ms.push(begun.elapsed().as_secs_f32() * 1e3),
            Err(error) if error.is_slow_down() => {
                outcome.slow_downs += 1;
                tokio::time::sleep(BACK_OFF).await;
            }
            Err(error) => {
                outcome.errors += 1;
                outcome.first_error.get_or_insert(error);
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_requests_made() {
        let outcome = Outcome { latencies_ms: (1..=200).map(|i| i as f32).collect(), ..Outcome::default() };
        assert_eq!(outcome.percentile_ms(0.5), Some(100.0));
        assert_eq!(outcome.percentile_ms(0.99), Some(198.0));
        assert_eq!(outcome.percentile_ms(1.0), Some(200.0));
        assert_eq!(Outcome::default().percentile_ms(0.5), None);
    }
}
