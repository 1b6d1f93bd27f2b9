//! What the machine is told: facts that nodes report, and what operators ask.
//!
//! Plain structs of our own; the controller fills them from the wire's messages. Fractions travel as whole numbers
//! (microseconds, thousandths), so that everything here can be compared.

use base::{ClusterId, DeviceId, NodeId};
use placement::map::Policy;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    /// For people.
    pub name: String,
    /// The site it stands in.
    pub site: String,
    /// The rack within the site.
    pub rack: String,
    /// Where other nodes reach it: `address:port`.
    pub peer_addr: String,
    /// Where S3 clients reach it.
    pub s3_addr: String,
    /// Release of the daemon.
    pub version: String,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
}

impl NodeFacts {
    pub(crate) fn texts(&self) -> [&str; 7] {
        [&self.name, &self.site, &self.rack, &self.peer_addr, &self.s3_addr, &self.version, &self.kernel]
    }
}

/// What of a device does not change from one report to the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct DeviceIdentity {
    /// Where the node has it.
    pub path: String,
    /// Maker's name for the kind.
    pub model: String,
    /// Maker's number.
    pub serial: String,
    /// The medium.
    pub size_bytes: u64,
    /// Whether it turns.
    pub rotational: bool,
}

/// What a node says of one of its devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// By its label.
    pub device: DeviceId,
    /// The cluster on its label.
    pub cluster: ClusterId,
    /// What does not change.
    pub identity: DeviceIdentity,
    /// What its extents hold.
    pub capacity_bytes: u64,
    /// Bytes of records that count.
    pub live_bytes: u64,
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Takes no writes until it has been opened again.
    pub failed: bool,
    /// Slow beside its twins.
    pub slow: bool,
    /// Blocks that did not fit their checksum, since the daemon's start.
    pub corrupt_found: u64,
    /// Errors of the device, since the daemon's start.
    pub device_errors: u64,
    /// Median of a put.
    pub put_p50_us: u64,
    /// Median of a get.
    pub get_p50_us: u64,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeReport {
    /// Who reports: by its certificate, not by its word.
    pub node: NodeId,
    /// Of itself.
    pub facts: NodeFacts,
    /// Of every device that it has open or found failed.
    pub devices: Vec<DeviceFacts>,
    /// Its clock, since 1970.
    pub clock_ms: u64,
    /// The protocol it speaks.
    pub protocol: u32,
    /// The map it goes by.
    pub map_epoch: u64,
    /// Load average, in thousandths.
    pub load_permille: u64,
    /// Memory in use.
    pub memory_used_bytes: u64,
    /// Since its start: tells one run from another.
    pub uptime_s: u64,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An operator made the cluster.
    ClusterCreated {
        /// Its id.
        cluster: ClusterId,
        /// How stripes are kept; never changes.
        policy: Policy,
        /// The rest.
        limits: Limits,
    },
    /// A node was given its certificate.
    NodeJoined {
        /// The id in the certificate.
        node: NodeId,
        /// Of itself.
        facts: NodeFacts,
        /// Its clock.
        clock_ms: u64,
        /// What it speaks.
        protocol: u32,
    },
    /// A node reported.
    NodeReported(NodeReport),
    /// Time passed; comes about once a second. What reports say is acted upon here.
    Tick,
    /// Empty a node.
    DrainNode(NodeId),
    /// Do not empty it.
    UndrainNode(NodeId),
    /// It is no member any more.
    RemoveNode {
        /// Which.
        node: NodeId,
        /// Although it holds slots of groups; never when readable data would be lost by it.
        force: bool,
    },
    /// Empty a device.
    DrainDevice(DeviceId),
    /// Do not empty it.
    UndrainDevice(DeviceId),
    /// It is gone for ever.
    RemoveDevice {
        /// Which.
        device: DeviceId,
        /// Although it holds slots of groups; never when readable data would be lost by it.
        force: bool,
    },
    /// Let a new device in, or say which node has the true one of two with the same label.
    ClaimDevice {
        /// Which.
        device: DeviceId,
        /// The node that has it.
        node: NodeId,
    },
}
