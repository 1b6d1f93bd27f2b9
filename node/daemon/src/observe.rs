//! What the node shows of itself: readiness and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::DeviceId;
use futures::FutureExt;
use futures::future::BoxFuture;
use gateway::GatewayStats;
use object::{Intake, ObjectStats, ObjectStore};
use shards::{StoreHandle, StoreStats};

use crate::admin::{Observed, Readiness};
use crate::metrics::{Kind, MetricsText};

/// The node's condition, refreshed by a timer.
#[derive(Debug)]
pub(crate) struct Health {
    readiness: Mutex<Readiness>,
}

impl Health {
    pub(crate) fn starting() -> Arc<Self> {
        Arc::new(Self { readiness: Mutex::new(Readiness::NotReady("starting".into())) })
    }

    pub(crate) fn set(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner) = readiness;
    }

    pub(crate) fn look(&self, store: &ObjectStore, intake: Intake) {
        let writable = store.index_status().is_none_or(|status| status.journal.writable);
        self.set(match intake {
            _ if !writable => Readiness::NotReady("the journal has too few copies: reads only".into()),
            Intake::Open => Readiness::Ready,
            Intake::Full => Readiness::NotReady("the devices are full: reads and deletes only".into()),
            Intake::TooFewDevices => {
                Readiness::NotReady("too few devices take writes (missing or failed): reads and deletes only".into())
            }
        });
    }
}

/// One device, as the metrics name it.
pub(crate) struct ShownDevice {
    pub(crate) id: DeviceId,
    pub(crate) path: String,
    pub(crate) store: Option<StoreHandle>,
}

/// What the admin server shows.
pub(crate) struct Shown {
    pub(crate) health: Arc<Health>,
    pub(crate) objects: ObjectStore,
    pub(crate) gateway: Arc<GatewayStats>,
    pub(crate) devices: Vec<ShownDevice>,
}

impl Observed for Shown {
    fn readiness(&self) -> Readiness {
        self.health.readiness.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        async {
            let mut text = MetricsText::new();
            let ready = f64::from(u8::from(self.readiness() == Readiness::Ready));
            text.gauge("holdfast_ready", "Whether reads and writes are served.", ready);
            self.show_devices(&mut text).await;
            self.show_objects(&mut text).await;
            self.show_paces(&mut text);
            let mut out = text.finish();
            self.gateway.prometheus(&mut out);
            out
        }
        .boxed()
    }
}

type DeviceCounter = (&'static str, &'static str, fn(&StoreStats) -> u64);

const DEVICE_COUNTERS: [DeviceCounter; 13] = [
    ("holdfast_device_reads_total", "Reads sent to the device.", |s| s.reads),
    ("holdfast_device_writes_total", "Writes sent to the device.", |s| s.writes),
    ("holdfast_device_flushes_total", "Flushes sent to the device.", |s| s.flushes),
    ("holdfast_device_read_bytes_total", "Bytes read from the device.", |s| s.read_bytes),
    ("holdfast_device_written_bytes_total", "Bytes written to the device, everything included.", |s| s.written_bytes),
    ("holdfast_store_accepted_bytes_total", "Payload bytes accepted by the store.", |s| s.accepted_bytes),
    ("holdfast_store_moved_bytes_total", "Bytes moved by reclaim.", |s| s.moved_bytes),
    ("holdfast_store_puts_total", "Records put.", |s| s.puts),
    ("holdfast_store_gets_total", "Reads of records served.", |s| s.gets),
    ("holdfast_store_corrupt_total", "Records whose bytes did not verify.", |s| s.corrupt_found),
    ("holdfast_device_errors_total", "Errors of the device.", |s| s.device_errors),
    ("holdfast_store_extents_reclaimed_total", "Extents emptied by reclaim.", |s| s.extents_reclaimed),
    ("holdfast_store_checkpoints_total", "Checkpoints written.", |s| s.checkpoints),
];

const DEVICE_GAUGES: [DeviceCounter; 5] = [
    ("holdfast_store_capacity_bytes", "Bytes that the device's extents hold.", |s| s.capacity_bytes),
    ("holdfast_store_live_bytes", "Bytes of live records.", |s| s.live_bytes),
    ("holdfast_store_available_bytes", "Bytes that shards may still take.", |s| s.available_bytes),
    ("holdfast_store_records", "Live records.", |s| s.records),
    ("holdfast_store_poisoned", "Whether the store refuses writes since a failure.", |s| u64::from(s.poisoned)),
];

type ObjectCounter = (&'static str, &'static str, fn(&ObjectStats) -> &AtomicU64);

const OBJECT_COUNTERS: [ObjectCounter; 17] = [
    ("holdfast_stripes_written_total", "Stripes written.", |s| &s.stripes_written),
    ("holdfast_stripes_degraded_total", "Stripes acknowledged with shards missing.", |s| &s.stripes_degraded),
    ("holdfast_reads_degraded_total", "Reads that computed lost shards from others.", |s| &s.reads_degraded),
    ("holdfast_shards_unreadable_total", "Shards that could not be read.", |s| &s.shards_unreadable),
    ("holdfast_inline_puts_total", "Bodies that rode in the journal.", |s| &s.inline_puts),
    ("holdfast_packed_objects_total", "Small objects moved into packs.", |s| &s.packed_objects),
    ("holdfast_packs_written_total", "Packs written.", |s| &s.packs_written),
    ("holdfast_stripes_freed_total", "Stripes freed as garbage.", |s| &s.stripes_freed),
    ("holdfast_orphans_freed_total", "Stripes and shards of cut-off uploads freed.", |s| &s.orphans_freed),
    ("holdfast_encode_mismatches_total", "Stripes that failed the check by the inverse.", |s| &s.encode_mismatches),
    ("holdfast_grace_expired_total", "Stripes acknowledged without waiting longer for shards.", |s| &s.grace_expired),
    ("holdfast_late_shards_total", "Shards that arrived after their stripe was answered for.", |s| &s.late_shards),
    ("holdfast_shards_not_sent_total", "Shards not sent to devices that owe too many.", |s| &s.shards_not_sent),
    ("holdfast_hedges_begun_total", "Reads that asked other shards beside a slow one.", |s| &s.hedges_begun),
    ("holdfast_hedges_won_total", "Such reads that the other shards answered.", |s| &s.hedges_won),
    ("holdfast_hedges_denied_total", "Such reads that the budget did not allow.", |s| &s.hedges_denied),
    ("holdfast_views_renewed_total", "Requests that went on under a newer map.", |s| &s.views_renewed),
];

impl Shown {
    async fn show_devices(&self, text: &mut MetricsText) {
        let mut stats: Vec<(String, &str, Option<StoreStats>)> = Vec::new();
        for device in &self.devices {
            let counted = match &device.store {
                Some(store) => store.stats().await.ok(),
                None => None,
            };
            stats.push((device.id.to_string(), &device.path, counted));
        }
        let mut up = text.family("holdfast_device_up", Kind::Gauge, "Whether the device is served.");
        for (id, path, counted) in &stats {
            up.count(&[("device", id), ("path", path)], u64::from(counted.is_some()));
        }
        let counters = DEVICE_COUNTERS.iter().map(|row| (row, Kind::Counter));
        for ((name, help, value), kind) in counters.chain(DEVICE_GAUGES.iter().map(|row| (row, Kind::Gauge))) {
            let mut family = text.family(name, kind, help);
            for (id, _, counted) in &stats {
                if let Some(counted) = counted {
                    family.count(&[("device", id)], value(counted));
                }
            }
        }
    }

    fn show_paces(&self, text: &mut MetricsText) {
        let paces = self.objects.paces();
        let mut family = text.family("holdfast_device_slow", Kind::Gauge, "Whether it is slow beside the others.");
        for pace in &paces {
            let device = pace.device.to_string();
            family.count(&[("device", &device), ("op", "put")], u64::from(pace.slow_puts));
            family.count(&[("device", &device), ("op", "get")], u64::from(pace.slow_gets));
        }
        let name = "holdfast_device_latency_seconds";
        let mut family = text.family(name, Kind::Gauge, "Latency of the latest shards, by quantile.");
        for pace in &paces {
            let device = pace.device.to_string();
            let quantiles = [("put", "0.5", pace.put_p50), ("put", "0.95", pace.put_p95)];
            for (op, quantile, latency) in
                quantiles.into_iter().chain([("get", "0.5", pace.get_p50), ("get", "0.95", pace.get_p95)])
            {
                if let Some(latency) = latency {
                    let labels = [("device", device.as_str()), ("op", op), ("quantile", quantile)];
                    family.value(&labels, latency.as_secs_f64());
                }
            }
        }
    }

    async fn show_objects(&self, text: &mut MetricsText) {
        for (name, help, counter) in OBJECT_COUNTERS {
            text.counter(name, help, counter(self.objects.stats()).load(Ordering::Relaxed));
        }
        if let Some(status) = self.objects.index_status() {
            let change = status.journal.record.epoch.change;
            text.gauge("holdfast_journal_epoch_change", "Changes of the journal's members in this run.", change as f64);
            text.gauge("holdfast_journal_live_copies", "Copies of the journal.", status.journal.live.len() as f64);
            text.gauge("holdfast_journal_acked", "The newest acknowledged position.", status.journal.acked.0 as f64);
            text.gauge("holdfast_journal_floor", "The oldest position kept.", status.journal.floor.0 as f64);
        }
        if let Ok(counters) = self.objects.counters().await {
            text.gauge("holdfast_objects", "Objects.", counters.objects as f64);
            text.gauge("holdfast_object_bytes", "Bytes of all objects.", counters.object_bytes as f64);
        }
        if let Ok(owed) = self.objects.missing_shards(10_000).await {
            text.gauge("holdfast_shards_owed", "Shards that repair owes (counted up to 10,000).", owed as f64);
        }
    }
}
