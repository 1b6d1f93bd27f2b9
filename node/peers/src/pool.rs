//! One connection to each node of the map. A connection is made when it is first used and made again by itself after
//! it has broken; a node that has moved gets a new one with the map that says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base::NodeId;
use placement::map::{ClusterMap, NodeState};
use tonic::transport::Channel;

/// Makes the channel to a node at an address; connects lazily. `None`: the address is none.
pub type Dial = Arc<dyn Fn(NodeId, &str) -> Option<Channel> + Send + Sync>;

/// See the file's header. Clones share it.
#[derive(Clone)]
pub struct Pool {
    dial: Dial,
    channels: Arc<Mutex<BTreeMap<NodeId, (String, Channel)>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool(..)")
    }
}

impl Pool {
    /// Without any connection.
    #[must_use]
    pub fn new(dial: Dial) -> Self {
        Self { dial, channels: Arc::default() }
    }

    /// The connection to a node of the map.
    #[must_use]
    pub fn channel(&self, id: NodeId, peer_addr: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        match channels.get(&id) {
            Some((addr, channel)) if addr == peer_addr => Some(channel.clone()),
            _ => {
                let channel = (self.dial)(id, peer_addr)?;
                channels.insert(id, (peer_addr.to_owned(), channel.clone()));
                Some(channel)
            }
        }
    }

    /// Lets go of nodes that the map no longer has as members.
    pub fn keep_members(&self, map: &ClusterMap) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let member = |id: &NodeId| map.node(*id).is_some_and(|(_, node)| node.state != NodeState::Removed);
        channels.retain(|id, _| member(id));
    }
}
