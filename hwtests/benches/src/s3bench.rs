//! The S3 benchmark: which cells are run, in which order, and the report.
//!
//! Every figure is of requests answered well; bodies that come back are checked. Before each cell the same
//! load runs for a fifth of its time, unmeasured.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::{Client, ClientError, Endpoint};
use crate::load::{Cell, Op, Outcome, run};
use crate::observe::{Reading, Server};
use crate::payload::Objects;
use crate::size::Size;
use crate::table::{aligned, figure};

/// Clients that create and delete what is not measured, or measured as a whole.
const HELPERS: u64 = 64;
/// Keys that a page of a listing holds.
const PAGE_KEYS: u64 = 1000;
/// Bytes of an object that is only there to be listed: the smallest that can be checked.
const LISTED_BYTES: u64 = 16;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Time of a cell.
    pub duration: Duration,
    /// Object sizes.
    pub sizes: Vec<Size>,
    /// Clients at once.
    pub clients: Vec<u64>,
    /// Keys created and listed; none when 0.
    pub list_keys: u64,
    /// Bytes that one cell may put: bounds what a fast server has to hold.
    pub put_bytes_max: u64,
    /// The bucket; made at the start. Listed objects stay in it, the others are deleted.
    pub bucket: String,
}

/// One line of the report. Absent figures could not be had.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// `PUT`, `GET`, `HEAD`, `create`, `list`.
    pub op: String,
    /// Bytes of an object.
    pub size_bytes: u64,
    /// Clients at once.
    pub clients: u64,
    /// Requests answered well.
    pub requests: u64,
    /// Payload.
    pub mib_per_s: f64,
    /// Requests, or pages of a listing, a second.
    pub requests_per_s: f64,
    /// Median latency.
    pub p50_ms: Option<f64>,
    /// Latency of all but a hundredth.
    pub p99_ms: Option<f64>,
    /// The server's CPU for a GiB of payload.
    pub server_cpu_s_per_gib: Option<f64>,
    /// The server's CPU for 1,000 requests.
    pub server_cpu_s_per_1000: Option<f64>,
    /// Device flushes for each request, for requests that write.
    pub flushes_per_request: Option<f64>,
    /// Requests asked to slow down.
    pub slow_downs: u64,
    /// Requests that failed.
    pub errors: u64,
    /// What the first failure said.
    pub first_error: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Measurements in the order they were made.
    pub lines: Vec<Line>,
    /// Keys a second of the listing.
    pub listed_keys_per_s: Option<f64>,
    /// The server's largest resident set.
    pub peak_rss_mib: Option<f64>,
}

/// Runs the plan. `say` hears what is being measured.
///
/// # Errors
/// [`ClientError`] when the bucket cannot be made or a listing is wrong. Failed requests are in the report.
pub async fn measure(
    endpoint: &Endpoint,
    server: &Server,
    plan: &Plan,
    mut say: impl FnMut(&str),
) -> Result<Report, ClientError> {
    Client::new(endpoint.clone()).make_bucket(&plan.bucket).await?;
    let bench = Bench { endpoint, server, plan };
    let mut report = Report::default();
    for size in &plan.sizes {
        bench.size(*size, &mut report.lines, &mut say).await;
    }
    if plan.list_keys > 0 {
        say(&format!("creating and listing {} keys", plan.list_keys));
        report.listed_keys_per_s = Some(bench.listing(&mut report.lines).await?);
    }
    report.peak_rss_mib = server.peak_rss_mib();
    Ok(report)
}

struct Bench<'a> {
    endpoint: &'a Endpoint,
    server: &'a Server,
    plan: &'a Plan,
}

impl Bench<'_> {
    /// PUT and GET at one size, for every number of clients; HEAD at the smallest; then all is deleted.
    async fn size(&self, size: Size, lines: &mut Vec<Line>, say: &mut impl FnMut(&str)) {
        let objects = Objects::of(size.0);
        // Enough that neighbours differ, few enough that 64 MiB objects are soon all there.
        let keys = ((256 << 20) / objects.size_bytes()).clamp(32, 1000);
        let base = Cell {
            op: Op::Put,
            prefix: format!("/{}/{}/", self.plan.bucket, size.0),
            keys,
            clients: HELPERS.min(keys / 2),
            duration: Duration::MAX,
            requests_max: keys,
            objects,
        };
        say(&format!("PUT and GET, {size}"));
        // All keys are there before anything is read.
        run(self.endpoint, base.clone()).await;
        let mut ops = vec![Op::Put, Op::Get];
        if Some(&size) == self.plan.sizes.iter().min() {
            ops.push(Op::Head);
        }
        for op in ops {
            for clients in &self.plan.clients {
                let requests_max =
                    if op == Op::Put { (self.plan.put_bytes_max / size.0).max(2 * clients) } else { u64::MAX };
                let cell = Cell { op, clients: *clients, duration: self.plan.duration, requests_max, ..base.clone() };
                lines.push(self.cell(cell).await);
            }
        }
        run(self.endpoint, Cell { op: Op::Delete, ..base }).await;
    }

    async fn cell(&self, cell: Cell) -> Line {
        let warm_up = Cell {
            duration: cell.duration / 5,
            requests_max: (cell.requests_max / 5).max(cell.clients),
            ..cell.clone()
        };
        run(self.endpoint, warm_up).await;
        let before = self.server.read().await;
        let outcome = run(self.endpoint, cell.clone()).await;
        let after = self.server.read().await;
        let (name, has_body, is_write) = match cell.op {
            Op::Put => ("PUT", true, true),
            Op::Get => ("GET", true, false),
            Op::Head => ("HEAD", false, false),
            Op::Delete => ("DELETE", false, true),
        };
        let bytes = if has_body { cell.objects.size_bytes() } else { 0 };
        let mut line = line(name, bytes, cell.clients, &outcome, before, after);
        line.size_bytes = cell.objects.size_bytes();
        if !is_write {
            line.flushes_per_request = None;
        }
        line
    }

    /// Creates the keys, then lists them all; keys a second.
    async fn listing(&self, lines: &mut Vec<Line>) -> Result<f64, ClientError> {
        let (bucket, keys) = (&self.plan.bucket, self.plan.list_keys);
        let create = Cell {
            op: Op::Put,
            objects: Objects::of(LISTED_BYTES),
            prefix: format!("/{bucket}/list/"),
            keys,
            clients: HELPERS,
            duration: Duration::MAX,
            requests_max: keys,
        };
        let before = self.server.read().await;
        let created = run(self.endpoint, create).await;
        let after = self.server.read().await;
        lines.push(line("create", LISTED_BYTES, HELPERS, &created, before, after));

        let before = self.server.read().await;
        let (listed, mut pages) = self.list_all().await?;
        let after = self.server.read().await;
        // Every key that was created, once, in order: anything else is an error of the server.
        let expected = created.latencies_ms.len() as u64;
        let is_sorted = listed.is_sorted_by(|a, b| a < b);
        if !is_sorted || listed.len() as u64 != expected {
            pages.errors += 1;
        }
        let rate = listed.len() as f64 / pages.elapsed.as_secs_f64();
        let mut line = line("list", 0, 1, &pages, before, after);
        line.flushes_per_request = None;
        if line.errors > 0 {
            let (found, order) = (listed.len(), if is_sorted { "in order" } else { "out of order" });
            line.first_error = Some(format!("{found} keys {order} where {expected} were created"));
        }
        lines.push(line);
        Ok(rate)
    }

    async fn list_all(&self) -> Result<(Vec<String>, Outcome), ClientError> {
        let mut client = Client::new(self.endpoint.clone());
        let (mut keys, mut pages) = (Vec::new(), Outcome::default());
        let start = Instant::now();
        let mut token: Option<String> = None;
        // One page more than there can be: a server that never ends its listing does not hold us for ever.
        for _ in 0..self.plan.list_keys.div_ceil(PAGE_KEYS) + 2 {
            let begun = Instant::now();
            let (page, next) = client.list(&self.plan.bucket, "list/", token.as_deref()).await?;
            pages.latencies_ms.push(begun.elapsed().as_secs_f32() * 1e3);
            keys.extend(page);
            token = next;
            if token.is_none() {
                break;
            }
        }
        pages.elapsed = start.elapsed();
        pages.latencies_ms.sort_by(f32::total_cmp);
        Ok((keys, pages))
    }
}

fn line(op: &str, bytes_each: u64, clients: u64, outcome: &Outcome, before: Reading, after: Reading) -> Line {
    let requests = outcome.latencies_ms.len() as u64;
    let seconds = outcome.elapsed.as_secs_f64();
    let bytes = (requests * bytes_each) as f64;
    let grown = |before: Option<f64>, after: Option<f64>| before.zip(after).map(|(b, a)| a - b);
    let per = |total: Option<f64>, count: f64| total.filter(|_| count > 0.0).map(|total| total / count);
    let cpu_s = grown(before.cpu_s, after.cpu_s);
    Line {
        op: op.to_owned(),
        size_bytes: bytes_each,
        clients,
        requests,
        mib_per_s: bytes / seconds / f64::from(1 << 20),
        requests_per_s: requests as f64 / seconds,
        p50_ms: outcome.percentile_ms(0.5),
        p99_ms: outcome.percentile_ms(0.99),
        server_cpu_s_per_gib: per(cpu_s, bytes / f64::from(1 << 30)),
        server_cpu_s_per_1000: per(cpu_s, requests as f64 / 1e3),
        flushes_per_request: per(grown(before.flushes, after.flushes), requests as f64),
        slow_downs: outcome.slow_downs,
        errors: outcome.errors,
        first_error: outcome.first_error.as_ref().map(ToString::to_string),
    }
}

impl Report {
    /// Requests that failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.lines.iter().map(|line| line.errors).sum()
    }

    /// The line of that operation, size and number of clients.
    #[must_use]
    pub fn line(&self, op: &str, size_bytes: u64, clients: u64) -> Option<&Line> {
        self.lines.iter().find(|line| line.op == op && line.size_bytes == size_bytes && line.clients == clients)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let heads = [
            "op",
            "size",
            "clients",
            "MiB/s",
            "req/s",
            "p50 ms",
            "p99 ms",
            "CPU s/GiB",
            "CPU s/1000",
            "flushes/req",
            "slow",
            "errors",
        ];
        let row = |line: &Line| {
            let has_payload = line.mib_per_s > 0.0 && line.size_bytes >= 1024;
            vec![
                line.op.clone(),
                if line.size_bytes == 0 { "-".to_owned() } else { Size(line.size_bytes).to_string() },
                line.clients.to_string(),
                figure(has_payload.then_some(line.mib_per_s), 1),
                format!("{:.0}", line.requests_per_s),
                figure(line.p50_ms, 2),
                figure(line.p99_ms, 2),
                figure(line.server_cpu_s_per_gib.filter(|_| has_payload), 2),
                figure(line.server_cpu_s_per_1000, 3),
                figure(line.flushes_per_request, 2),
                line.slow_downs.to_string(),
                line.errors.to_string(),
            ]
        };
        let mut text = aligned(&heads, &self.lines.iter().map(row).collect::<Vec<_>>());
        if let Some(rate) = self.listed_keys_per_s {
            text += &format!("listing: {rate:.0} keys/s\n");
        }
        if let Some(rss) = self.peak_rss_mib {
            text += &format!("server's peak resident set: {rss:.0} MiB\n");
        }
        for line in &self.lines {
            if let Some(error) = &line.first_error {
                text += &format!("first error of {} {} x{}: {error}\n", line.op, Size(line.size_bytes), line.clients);
            }
        }
        text
    }
}
