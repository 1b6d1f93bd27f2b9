//! Records of the wire and the membership's own.

use base::{ClusterId, DeviceId, NodeId};
use membership::{DeviceFacts, DeviceIdentity, DeviceView, NodeFacts, NodeReport, NodeView, Status};
use placement::map::{DeviceState, NodeState};
use wire::Fault;
use wire::controller as pb;

/// A fraction of the wire as whole thousandths (milliseconds as microseconds); nonsense is nothing.
fn thousandths(value: f64) -> u64 {
    if value.is_finite() && value > 0.0 { (value * 1e3).min(1e15) as u64 } else { 0 }
}

fn id(bytes: &[u8]) -> Result<[u8; 16], Fault> {
    bytes.try_into().map_err(|_| Fault::Invalid("an id has 16 bytes".into()))
}

pub(crate) fn node_facts(facts: Option<pb::NodeFacts>) -> Result<NodeFacts, Fault> {
    let facts = facts.ok_or_else(|| Fault::Invalid("a report names its node's facts".into()))?;
    Ok(NodeFacts {
        name: facts.name,
        site: facts.site,
        rack: facts.rack,
        peer_addr: facts.peer_addr,
        s3_addr: facts.s3_addr,
        version: facts.version,
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        kernel: facts.kernel,
    })
}

fn device_facts(facts: pb::DeviceFacts) -> Result<DeviceFacts, Fault> {
    Ok(DeviceFacts {
        device: DeviceId(id(&facts.device)?),
        cluster: ClusterId(id(&facts.cluster)?),
        identity: DeviceIdentity {
            path: facts.path,
            model: facts.model,
            serial: facts.serial,
            size_bytes: facts.size_bytes,
            rotational: facts.rotational,
        },
        capacity_bytes: facts.capacity_bytes,
        live_bytes: facts.live_bytes,
        available_bytes: facts.available_bytes,
        failed: facts.failed,
        slow: facts.slow,
        corrupt_found: facts.corrupt_found,
        device_errors: facts.device_errors,
        put_p50_us: thousandths(facts.put_p50_ms),
        get_p50_us: thousandths(facts.get_p50_ms),
    })
}

pub(crate) fn report(node: NodeId, report: pb::NodeReport) -> Result<NodeReport, Fault> {
    Ok(NodeReport {
        node,
        facts: node_facts(report.facts)?,
        devices: report.devices.into_iter().map(device_facts).collect::<Result<_, _>>()?,
        clock_ms: report.clock_ms,
        protocol: report.protocol,
        map_epoch: report.map_epoch,
        load_permille: thousandths(report.load),
        memory_used_bytes: report.memory_used_bytes,
        uptime_s: report.uptime_s,
    })
}

pub(crate) fn node_row(view: NodeView) -> pb::NodeRow {
    let facts = view.facts;
    pb::NodeRow {
        node: view.node.0.to_vec().into(),
        state: node_state(view.state).to_owned(),
        facts: Some(pb::NodeFacts {
            name: facts.name,
            site: facts.site,
            rack: facts.rack,
            peer_addr: facts.peer_addr,
            s3_addr: facts.s3_addr,
            version: facts.version,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            kernel: facts.kernel,
        }),
        seen_ms_ago: view.seen_ms_ago,
        map_epoch: view.map_epoch,
        devices: view.devices,
        load: view.load_permille as f64 / 1e3,
        memory_used_bytes: view.memory_used_bytes,
        uptime_s: view.uptime_s,
        clock_offset_ms: view.clock_offset_ms,
    }
}

pub(crate) fn device_row(view: DeviceView) -> pb::DeviceRow {
    let facts = view.facts;
    pb::DeviceRow {
        node: view.node.0.to_vec().into(),
        node_name: view.node_name,
        state: view.state.map_or("new", device_state).to_owned(),
        why: view.why,
        facts: Some(pb::DeviceFacts {
            device: facts.device.0.to_vec().into(),
            cluster: facts.cluster.0.to_vec().into(),
            path: facts.identity.path,
            model: facts.identity.model,
            serial: facts.identity.serial,
            size_bytes: facts.identity.size_bytes,
            rotational: facts.identity.rotational,
            capacity_bytes: facts.capacity_bytes,
            live_bytes: facts.live_bytes,
            available_bytes: facts.available_bytes,
            failed: facts.failed,
            slow: facts.slow,
            corrupt_found: facts.corrupt_found,
            device_errors: facts.device_errors,
            put_p50_ms: facts.put_p50_us as f64 / 1e3,
            get_p50_ms: facts.get_p50_us as f64 / 1e3,
        }),
        groups: view.groups,
    }
}

pub(crate) fn status(status: Status, leader: String) -> pb::StatusReply {
    pb::StatusReply {
        cluster: status.cluster.map_or_else(Vec::new, |cluster| cluster.0.to_vec()).into(),
        map_epoch: status.map_epoch,
        nodes: status.nodes,
        nodes_up: status.nodes_up,
        devices: status.devices,
        devices_healthy: status.devices_healthy,
        groups: status.groups,
        groups_missing: status.groups_missing,
        capacity_bytes: status.capacity_bytes,
        live_bytes: status.live_bytes,
        available_bytes: status.available_bytes,
        risks: status.risks.iter().map(ToString::to_string).collect(),
        doing: status.doing.iter().map(ToString::to_string).collect(),
        leader,
        data_shards: status.data_shards.into(),
        parity_shards: status.parity_shards.into(),
    }
}

fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
        NodeState::Draining => "draining",
        NodeState::Removed => "removed",
    }
}

fn device_state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Healthy => "healthy",
        DeviceState::Suspect => "suspect",
        DeviceState::Draining => "draining",
        DeviceState::Removed => "removed",
    }
}
