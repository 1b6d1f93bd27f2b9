//! Zoned devices: an extent is a zone. It is emptied when it is first written after having been free, written one write
//! at a time, and finished when it is sealed before it is full: as many zones may be written in part as the device says.
//!
//! A zone that was freed keeps its bytes until it is used again: recovery may still need them until then, and does not
//! mind them afterwards, since they are of an earlier generation. A crash may leave more zones written in part than the
//! store ever has at once; opening finishes them, which takes nothing away.
//!
//! Zones at the start of the device that can be written anywhere hold extents like any other.

use std::rc::Rc;

use disk::{BlockDevice, DeviceFacts, DiskResult, IO_ALIGN, ZoneFacts};
use format::{FormatError, Geometry, Label, Stream, UNIT_BYTES};

use crate::core::Core;
use crate::state::State;
use crate::{StoreError, StoreResult};

/// Zones that the store has written in part at once: one of each stream of records, a checkpoint's, and those of the
/// anchor log.
pub(crate) const IN_PART_MAX: u32 = Stream::ALL.len() as u32 + Geometry::LOG_ZONES as u32;

/// The zones of a device that can hold a store; none of a device without zones.
pub(crate) fn usable(facts: &DeviceFacts) -> StoreResult<Option<ZoneFacts>> {
    let Some(zones) = facts.zones else {
        let unknown = StoreError::Zoned { what: "nothing is known of its zones" };
        return if facts.zoned { Err(unknown) } else { Ok(None) };
    };
    let log = Geometry::log_offsets_of(facts.size_bytes, zones.zone_bytes);
    let what = if zones.capacity_bytes < Geometry::MIN_ZONE_BYTES.into() {
        "its zones hold too little"
    } else if zones.max_open.is_some_and(|max| max < IN_PART_MAX) {
        "too few of its zones may be written in part at once"
    } else if log.is_some_and(|log| !zones.is_sequential(log[0])) {
        "its last zones have no write pointers"
    } else if facts.read_align_bytes > facts.sector_bytes {
        "it cannot be read by the sector, as a write pointer after a crash asks for"
    } else {
        return Ok(Some(zones));
    };
    Err(StoreError::Zoned { what })
}

/// As [`usable`], of a device that was formatted with `label`.
pub(crate) fn of_label(facts: &DeviceFacts, label: &Label) -> StoreResult<Option<ZoneFacts>> {
    let zones = usable(facts)?;
    let same = zones.map(|zones| zones.zone_bytes) == label.geometry.zone_bytes;
    if same && zones.is_none_or(|zones| zones.capacity_bytes >= label.geometry.extent_bytes.into()) {
        return Ok(zones);
    }
    let field = "its zones are not those it was formatted with";
    Err(StoreError::Unusable(FormatError::Invalid { what: "device label", field }))
}

/// Finishes every zone of an extent that is written in part, where the device minds how many are.
pub(crate) async fn finish_parts<D: BlockDevice>(device: &D, geometry: &Geometry) -> DiskResult<()> {
    let Some(zones) = device.facts().zones.filter(|zones| zones.max_open.is_some()) else { return Ok(()) };
    for extent in 0..geometry.extents {
        let start = geometry.extent_offset(extent);
        if !zones.is_sequential(start) {
            continue;
        }
        // A zone that cannot say where its pointer is takes no writes and counts nowhere.
        let Ok(pointer) = device.write_pointer(start).await else { continue };
        if start < pointer && pointer < zones.writable_end_of(start) {
            device.finish_zone(start).await?;
        }
    }
    Ok(())
}

impl State {
    /// The zones of the device when the extent is one of those with a write pointer.
    fn zone_of(&self, extent: u32) -> Option<ZoneFacts> {
        self.zones.filter(|zones| zones.is_sequential(self.offset(extent, 0)))
    }

    /// Tells the present use of the zone that holds the byte at `offset` from others.
    pub(crate) fn use_of_zone(&self, offset: u64) -> Option<u64> {
        let number = usize::try_from(self.zones?.zone_of(offset)).ok()?;
        self.extents.get(number).map(|extent| extent.generation)
    }

    /// Whether the stream's next write must wait: for the one under way, since the device may pass them on in any order,
    /// or for the zone before to be finished.
    pub(crate) fn is_zone_busy(&self, stream: Stream) -> bool {
        let open = self.open.get(&stream).filter(|extent| self.zone_of(**extent).is_some());
        let track = open.and_then(|extent| self.tracks.get(extent));
        let writing = track.is_some_and(|track| track.segments.iter().any(|segment| !segment.written));
        writing || self.unfinished.contains_key(&stream)
    }

    /// Whether a zone that will not be written any further must be finished.
    pub(crate) fn must_finish(&self, extent: u32) -> bool {
        let Some(zones) = self.zone_of(extent).filter(|zones| zones.max_open.is_some()) else { return false };
        let written = self.extents[extent as usize].written_units as usize * UNIT_BYTES;
        (written.next_multiple_of(IO_ALIGN) as u64) < zones.capacity_bytes
    }
}

impl<D: BlockDevice> Core<D> {
    /// Units of an extent that can be read: in a zone, those before the write pointer. All of them, down to the sector:
    /// what is not looked at now would come to light when the zone has been finished.
    pub(crate) async fn readable_units(&self, extent: u32) -> u32 {
        let (start, units, in_zone) = {
            let state = self.state.borrow();
            (state.offset(extent, 0), state.extent_units(), state.zone_of(extent).is_some())
        };
        if !in_zone {
            return units;
        }
        match self.device.write_pointer(start).await {
            Ok(pointer) => u64::from(units).min(pointer.saturating_sub(start) / UNIT_BYTES as u64) as u32,
            // The reads will fail too, and say so.
            Err(_) => units,
        }
    }

    /// Empties the zone of an extent before its first write.
    pub(crate) async fn empty_extent(&self, extent: u32) -> DiskResult<()> {
        let (start, in_zone) = {
            let state = self.state.borrow();
            (state.offset(extent, 0), state.zone_of(extent).is_some())
        };
        if in_zone { self.device.reset_zone(start).await } else { Ok(()) }
    }

    /// Finishes the zone that a stream has sealed.
    pub(crate) async fn finish_sealed(self: Rc<Self>, stream: Stream) {
        let Some(extent) = self.state.borrow().unfinished.get(&stream).copied() else { return };
        match self.finish_extent(extent).await {
            Ok(()) => {
                let mut state = self.state.borrow_mut();
                state.unfinished.remove(&stream);
                state.free_dead();
            }
            Err(error) => self.fail(&error),
        }
        self.touch();
    }

    /// Finishes the zone of an extent.
    pub(crate) async fn finish_extent(&self, extent: u32) -> DiskResult<()> {
        let start = self.state.borrow().offset(extent, 0);
        self.device.finish_zone(start).await
    }
}
