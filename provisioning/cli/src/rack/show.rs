//! What the controller answers, as people and programs read it.

use serde::Serialize;
use wire::controller::{DeviceRow, NodeRow, StatusReply, Token};

use super::table::{bytes, number, render, span, text};
use crate::output::utc;

/// Bytes as hexadecimal digits.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A node, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) site: String,
    pub(crate) rack: String,
    pub(crate) peer_addr: String,
    pub(crate) s3_addr: String,
    pub(crate) version: String,
    pub(crate) devices: u32,
    pub(crate) seen_ms_ago: u64,
    pub(crate) map_epoch: u64,
    pub(crate) load: f64,
    pub(crate) cpus: u32,
    pub(crate) memory_used_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) uptime_s: u64,
    pub(crate) clock_offset_ms: i64,
}

impl From<NodeRow> for Node {
    fn from(row: NodeRow) -> Self {
        let facts = row.facts.unwrap_or_default();
        Self {
            node: hex(&row.node),
            name: facts.name,
            state: row.state,
            site: facts.site,
            rack: facts.rack,
            peer_addr: facts.peer_addr,
            s3_addr: facts.s3_addr,
            version: facts.version,
            devices: row.devices,
            seen_ms_ago: row.seen_ms_ago,
            map_epoch: row.map_epoch,
            load: row.load,
            cpus: facts.cpus,
            memory_used_bytes: row.memory_used_bytes,
            memory_bytes: facts.memory_bytes,
            uptime_s: row.uptime_s,
            clock_offset_ms: row.clock_offset_ms,
        }
    }
}

/// Nodes as a table.
pub(crate) fn nodes(nodes: &[Node]) -> String {
    let columns = [
        text("NODE"),
        text("NAME"),
        text("STATE"),
        text("RACK"),
        text("S3"),
        number("DEVICES"),
        number("LOAD"),
        number("MEMORY"),
        number("UP"),
        number("SEEN AGO"),
    ];
    let row = |node: &Node| {
        [
            node.node[..8.min(node.node.len())].to_owned(),
            node.name.clone(),
            node.state.clone(),
            format!("{}/{}", node.site, node.rack),
            node.s3_addr.clone(),
            node.devices.to_string(),
            format!("{:.2}", node.load),
            bytes(node.memory_used_bytes),
            span(node.uptime_s),
            format!("{:.1} s", node.seen_ms_ago as f64 / 1e3),
        ]
    };
    render(&columns, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// A device, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Device {
    pub(crate) device: String,
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) state: String,
    pub(crate) path: String,
    pub(crate) model: String,
    pub(crate) serial: String,
    pub(crate) capacity_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) groups: u32,
    pub(crate) failed: bool,
    pub(crate) slow: bool,
    pub(crate) corrupt_found: u64,
    pub(crate) device_errors: u64,
    pub(crate) put_p50_ms: f64,
    pub(crate) get_p50_ms: f64,
}

impl From<DeviceRow> for Device {
    fn from(row: DeviceRow) -> Self {
        let facts = row.facts.unwrap_or_default();
        Self {
            device: hex(&facts.device),
            node: hex(&row.node),
            node_name: row.node_name,
            state: row.state,
            path: facts.path,
            model: facts.model,
            serial: facts.serial,
            capacity_bytes: facts.capacity_bytes,
            live_bytes: facts.live_bytes,
            available_bytes: facts.available_bytes,
            groups: row.groups,
            failed: facts.failed,
            slow: facts.slow,
            corrupt_found: facts.corrupt_found,
            device_errors: facts.device_errors,
            put_p50_ms: facts.put_p50_ms,
            get_p50_ms: facts.get_p50_ms,
        }
    }
}

/// Devices as a table.
pub(crate) fn devices(devices: &[Device]) -> String {
    let columns = [
        text("DEVICE"),
        text("NODE"),
        text("STATE"),
        number("CAPACITY"),
        number("USED"),
        number("%"),
        number("GROUPS"),
        number("ERRORS"),
        text("PATH"),
    ];
    let row = |device: &Device| {
        let percent = 100 * device.live_bytes / device.capacity_bytes.max(1);
        let state = match (device.failed, device.slow) {
            (true, _) => format!("{} (failed)", device.state),
            (_, true) => format!("{} (slow)", device.state),
            _ => device.state.clone(),
        };
        [
            device.device[..8.min(device.device.len())].to_owned(),
            device.node_name.clone(),
            state,
            bytes(device.capacity_bytes),
            bytes(device.live_bytes),
            percent.to_string(),
            device.groups.to_string(),
            (device.device_errors + device.corrupt_found).to_string(),
            device.path.clone(),
        ]
    };
    render(&columns, &devices.iter().map(row).collect::<Vec<_>>())
}

/// A join token, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct JoinToken {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) token: String,
    pub(crate) expires_ms: u64,
    pub(crate) comment: String,
    pub(crate) used: bool,
}

impl From<Token> for JoinToken {
    fn from(token: Token) -> Self {
        let Token { token, id, expires_ms, comment, used } = token;
        Self { id, token, expires_ms, comment, used }
    }
}

/// Tokens as a table.
pub(crate) fn tokens(tokens: &[JoinToken]) -> String {
    let columns = [text("TOKEN"), text("EXPIRES"), text("USED"), text("COMMENT")];
    let row = |token: &JoinToken| {
        let used = if token.used { "yes" } else { "no" };
        [token.id.clone(), utc(token.expires_ms), used.to_owned(), token.comment.clone()]
    };
    render(&columns, &tokens.iter().map(row).collect::<Vec<_>>())
}

/// The rack's state, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) cluster: String,
    pub(crate) at_risk: bool,
    pub(crate) map_epoch: u64,
    pub(crate) policy: String,
    pub(crate) nodes: u32,
    pub(crate) nodes_up: u32,
    pub(crate) devices: u32,
    pub(crate) devices_healthy: u32,
    pub(crate) groups: u32,
    pub(crate) groups_missing: Vec<u32>,
    pub(crate) capacity_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) controller: String,
    pub(crate) risks: Vec<String>,
    pub(crate) doing: Vec<String>,
}

impl From<StatusReply> for Status {
    fn from(reply: StatusReply) -> Self {
        Self {
            cluster: hex(&reply.cluster),
            at_risk: !reply.risks.is_empty(),
            map_epoch: reply.map_epoch,
            policy: format!("{}+{}", reply.data_shards, reply.parity_shards),
            nodes: reply.nodes,
            nodes_up: reply.nodes_up,
            devices: reply.devices,
            devices_healthy: reply.devices_healthy,
            groups: reply.groups,
            groups_missing: reply.groups_missing,
            capacity_bytes: reply.capacity_bytes,
            live_bytes: reply.live_bytes,
            available_bytes: reply.available_bytes,
            controller: reply.leader,
            risks: reply.risks,
            doing: reply.doing,
        }
    }
}

/// One screen: is anything at risk, and what is being done.
pub(crate) fn status(status: &Status) -> String {
    let mut lines = vec![
        match status.risks.len() {
            0 => "nothing is at risk".to_owned(),
            1 => "AT RISK: 1 thing needs attention".to_owned(),
            n => format!("AT RISK: {n} things need attention"),
        },
        String::new(),
    ];
    lines.extend(status.risks.iter().map(|risk| format!("  ! {risk}")));
    lines.extend(status.doing.iter().map(|doing| format!("  > {doing}")));
    if lines.len() > 2 {
        lines.push(String::new());
    }
    let missing: Vec<String> = (0usize..)
        .zip(&status.groups_missing)
        .filter(|(missing, count)| *missing == 0 || **count > 0)
        .map(|(missing, count)| match missing {
            0 => format!("{count} whole"),
            n => format!("{count} without {n}"),
        })
        .collect();
    let used = 100 * status.live_bytes / status.capacity_bytes.max(1);
    let rows = [
        ("cluster", format!("{}, map {}, controller {}", status.cluster, status.map_epoch, status.controller)),
        ("nodes", format!("{} of {} up", status.nodes_up, status.nodes)),
        ("devices", format!("{} of {} healthy", status.devices_healthy, status.devices)),
        ("groups", format!("{} of {} shards each: {}", status.groups, status.policy, missing.join(", "))),
        (
            "space",
            format!(
                "{} of {} used ({used} %), {} free for shards",
                bytes(status.live_bytes),
                bytes(status.capacity_bytes),
                bytes(status.available_bytes)
            ),
        ),
    ];
    lines.extend(rows.iter().map(|(name, value)| format!("{name:<8} {value}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_first_whether_anything_is_at_risk() {
        let calm = StatusReply {
            cluster: vec![0xab; 16].into(),
            map_epoch: 7,
            nodes: 3,
            nodes_up: 3,
            devices: 9,
            devices_healthy: 9,
            groups: 9,
            groups_missing: vec![9],
            capacity_bytes: 9 << 30,
            live_bytes: 1 << 30,
            available_bytes: 7 << 30,
            leader: "c1".into(),
            data_shards: 4,
            parity_shards: 2,
            ..StatusReply::default()
        };
        let text = status(&Status::from(calm.clone()));
        assert!(text.starts_with("nothing is at risk\n"), "{text}");
        assert!(text.contains("groups   9 of 4+2 shards each: 9 whole\n"), "{text}");
        let worse = StatusReply {
            risks: vec!["node n2 is down".into()],
            groups_missing: vec![3, 6],
            doing: vec!["waiting".into()],
            ..calm
        };
        let text = status(&Status::from(worse));
        assert!(text.starts_with("AT RISK: 1 thing needs attention\n\n  ! node n2 is down\n  > waiting\n"), "{text}");
        assert!(text.contains("3 whole, 6 without 1"), "{text}");
    }
}
