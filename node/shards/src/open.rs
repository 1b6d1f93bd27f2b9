//! Formatting a device, recognising one, and opening it as a store.

use std::rc::Rc;

use base::{ClusterId, DeviceId};
use disk::{AlignedBuf, BlockDevice};
use format::{ANCHOR_MAX_OPENED, Anchor, FormatError, Geometry, Label};

use crate::core::Core;
use crate::fault::FaultKind;
use crate::recover::RecoveryReport;
use crate::state::State;
use crate::{Limits, StoreError, StoreResult};
use crate::{anchors, zones};

/// Sequence numbers up to here leave room for more than any device can write.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// What a device becomes when it is formatted.
#[derive(Debug, Clone, Copy)]
pub struct FormatOptions {
    /// The cluster it joins.
    pub cluster: ClusterId,
    /// Its identifier.
    pub device: DeviceId,
    /// Seed of its header checksums; random.
    pub salt: u32,
    /// Now; milliseconds since 1970.
    pub now_ms: u64,
    /// Bytes of an extent; chosen by the device's size and kind when `None`. A zoned device's are its zones, whatever is
    /// wished for.
    pub extent_bytes: Option<u32>,
}

/// The store of one device, on the thread that owns it.
pub struct Store<D> {
    pub(crate) core: Rc<Core<D>>,
    report: RecoveryReport,
}

/// The device's label; the second copy when the first is damaged.
///
/// # Errors
/// [`StoreError::Unusable`] when neither copy is a label that this program reads.
pub async fn identify<D: BlockDevice>(device: &D) -> StoreResult<Label> {
    let size_bytes = device.facts().size_bytes;
    let mut first_error = None;
    let zones = device.facts().zones;
    let log = zones.and_then(|zones| Geometry::log_offsets_of(size_bytes, zones.zone_bytes));
    let ends = [0, size_bytes.saturating_sub(Geometry::LABEL_BYTES as u64)];
    for offset in log.as_ref().map_or(&ends[..], |log| &log[..]) {
        match label_at(device, *offset, log.is_some()).await {
            Ok(label) if label.geometry.size_bytes > size_bytes => {
                first_error.get_or_insert(StoreError::Unusable(FormatError::Invalid {
                    what: "device label",
                    field: "the device is smaller than when it was formatted",
                }));
            }
            Ok(label) => return Ok(label),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Err(first_error.expect("every copy was tried"))
}

/// The label copy at `offset`; one in a zone counts when there is an anchor page with it.
async fn label_at<D: BlockDevice>(device: &D, offset: u64, in_zone: bool) -> StoreResult<Label> {
    let least = offset + (Geometry::LABEL_BYTES + Geometry::ANCHOR_BYTES) as u64;
    if in_zone && device.write_pointer(offset).await? < least {
        return Err(StoreError::Unusable(FormatError::Absent("device label")));
    }
    let buf = device.read(offset, AlignedBuf::zeroed(Geometry::LABEL_BYTES)).await?;
    Ok(Label::decode(&buf)?)
}

impl<D: BlockDevice> Store<D> {
    /// Makes the device an empty store; whatever was on it is lost. The label is written last: a device
    /// whose formatting was cut short is not a store.
    ///
    /// # Errors
    /// [`StoreError::TooSmall`], [`StoreError::Zoned`] where its zones are not what a store needs, or the device's error.
    pub async fn format(device: &D, options: &FormatOptions) -> StoreResult<Label> {
        let facts = device.facts();
        let zones = zones::usable(facts)?;
        let geometry = match (zones, options.extent_bytes) {
            (Some(zones), _) => Geometry::in_zones(facts.size_bytes, zones.zone_bytes, zones.capacity_bytes),
            (None, Some(extent_bytes)) => Geometry::new(facts.size_bytes, extent_bytes),
            (None, None) => Geometry::for_device(facts.size_bytes, facts.rotational),
        };
        let min_bytes = match zones {
            Some(zones) => (u64::from(Geometry::MIN_EXTENTS) + Geometry::LOG_ZONES as u64) * zones.zone_bytes,
            None => {
                Geometry::EXTENTS_START
                    + u64::from(Geometry::MIN_EXTENTS) * u64::from(Geometry::USUAL_MIN_EXTENT_BYTES)
                    + Geometry::LABEL_BYTES as u64
            }
        };
        let geometry = geometry.ok_or(StoreError::TooSmall { size_bytes: facts.size_bytes, min_bytes })?;
        let label = Label {
            cluster: options.cluster,
            device: options.device,
            geometry,
            salt: options.salt,
            created_ms: options.now_ms,
        };
        let anchor = Anchor { sequence: 1, boot: 0, checkpoint: None, opened: Vec::new(), partial: false };
        let page = AlignedBuf::from_bytes(&anchor.encode(label.device, label.salt)).freeze();
        if zones.is_some() {
            zones::finish_parts(device, &geometry).await?;
            anchors::format_log(device, &label, page).await?;
            return Ok(label);
        }
        let blank = AlignedBuf::zeroed(Geometry::LABEL_BYTES).freeze();
        for offset in geometry.label_offsets() {
            device.write(offset, vec![blank.clone()]).await?;
        }
        device.flush().await?;
        let rings = AlignedBuf::zeroed(Geometry::ANCHOR_BYTES * Geometry::ANCHOR_SLOTS as usize).freeze();
        for ring in Geometry::ANCHOR_RINGS {
            device.write(ring, vec![rings.clone()]).await?;
        }
        for offset in Geometry::anchor_offsets(anchor.sequence) {
            device.write(offset, vec![page.clone()]).await?;
        }
        device.flush().await?;
        let bytes = AlignedBuf::from_bytes(&label.encode()).freeze();
        for offset in geometry.label_offsets() {
            device.write(offset, vec![bytes.clone()]).await?;
        }
        device.flush().await?;
        Ok(label)
    }

    /// Opens the device's store: recovers its state and, unless `read_only`, readies it for writing.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Lost`] only when opened for writing. A read-only opening writes nothing.
    pub async fn open(device: D, read_only: bool) -> StoreResult<Self> {
        Self::open_with(device, read_only, Limits::default()).await
    }

    /// As [`Self::open`], within bounds other than the usual ones.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(device: D, read_only: bool, limits: Limits) -> StoreResult<Self> {
        let label = identify(&device).await?;
        let mut state = State::new(label, read_only, limits);
        state.zones = zones::of_label(device.facts(), &label)?;
        let core = Core::new(device, state);
        let report = core.recover().await?;
        for (offset, what) in &report.damage {
            tracing::error!(device = %label.device, offset, what, "damage found while opening the device");
            core.state.borrow_mut().faults.note(FaultKind::Recovery, Some(*offset), what.clone());
        }
        if !read_only {
            if let Some(reason) = &report.lost {
                return Err(StoreError::Lost { reason: reason.clone() });
            }
            let spent = {
                let state = core.state.borrow();
                state.boot == u32::MAX || state.sequence.max(state.anchor_sequence) > SEQUENCE_MAX
            };
            if spent {
                let (what, field) = ("device", "its numbers are used up, which honest writing never does");
                return Err(StoreError::Unusable(FormatError::Invalid { what, field }));
            }
            core.begin_boot().await?;
        }
        Ok(Self { core, report })
    }

    /// Who the device is.
    #[must_use]
    pub fn label(&self) -> Label {
        self.core.state.borrow().label
    }

    /// What recovery found.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }
}

impl<D: BlockDevice> Core<D> {
    /// Starts a new life of the device: its number is durable before any generation is drawn under it.
    async fn begin_boot(&self) -> StoreResult<()> {
        let geometry = self.state.borrow().label.geometry;
        zones::finish_parts(&self.device, &geometry).await?;
        let (sequence, page) = {
            let mut state = self.state.borrow_mut();
            state.boot = state.boot.checked_add(1).expect("a device is opened fewer than 2^32 times");
            state.generations = 0;
            // What was scanned is scanned again until a checkpoint covers it.
            state.checkpoint_wanted = !state.opened.is_empty();
            if state.opened.len() > ANCHOR_MAX_OPENED {
                // More than a page can name, after every extent was looked into.
                state.checkpoint = None;
                state.opened.clear();
                state.opened_partial = true;
            }
            let anchor = state.anchor();
            (anchor.sequence, AlignedBuf::from_bytes(&anchor.encode(state.label.device, state.label.salt)))
        };
        let page = page.freeze();
        self.put_anchor(sequence, page).await?;
        self.device.flush().await?;
        // Whatever recovery read is on the medium now.
        self.state.borrow_mut().free_dead();
        Ok(())
    }
}
