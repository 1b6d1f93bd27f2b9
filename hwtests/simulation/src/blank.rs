//! The devices that runs begin with.

use disk::ZoneFacts;
use format::Geometry;
use simdisk::{FaultAtlas, Shape, SimDisk};

use crate::plan::Config;

/// A device as it comes from its maker.
pub(crate) fn device(config: &Config, seed: u64) -> SimDisk {
    let extents = u64::from(config.extents) * u64::from(config.extent_bytes);
    let Some(zones) = config.zones else {
        return SimDisk::new(Geometry::EXTENTS_START + extents + Geometry::LABEL_BYTES as u64, seed);
    };
    let facts = ZoneFacts {
        zone_bytes: u64::from(config.extent_bytes) + u64::from(zones.hole_bytes),
        capacity_bytes: config.extent_bytes.into(),
        conventional_zones: zones.conventional,
        max_open: zones.max_open,
    };
    let size = (u64::from(config.extents) + Geometry::LOG_ZONES as u64) * facts.zone_bytes;
    let shape = Shape { sector_bytes: zones.sector_bytes, zones: Some(facts) };
    SimDisk::with_shape(size, seed, FaultAtlas::default(), shape)
}
