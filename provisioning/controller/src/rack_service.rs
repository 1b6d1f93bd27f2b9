//! What nodes ask: reports in, the map and the access keys out.
//!
//! A controller that does not lead says so, and the node asks another one.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use membership::{Input, Output};
use tonic::{Request, Response, Status};
use wire::controller::{
    KeysUpdate, MapUpdate, NodeReport, Rack, RenewReply, RenewRequest, ReportReply, WatchKeysRequest, WatchMapRequest,
};
use wire::tls_conn::{require_identity, require_node};

use crate::convert;
use crate::shared::Shared;

/// See the file's header.
pub(crate) struct RackService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Rack for RackService {
    type WatchMapStream = BoxStream<'static, Result<MapUpdate, Status>>;
    type WatchKeysStream = BoxStream<'static, Result<KeysUpdate, Status>>;

    async fn report(&self, request: Request<NodeReport>) -> Result<Response<ReportReply>, Status> {
        let node = require_node(&request)?;
        let report = convert::report(node, request.into_inner())?;
        let said = self.0.state.ask(Input::NodeReported(report)).await?;
        let next = said.iter().find_map(|output| match output {
            Output::SetReportInterval { node: of, ms } if *of == node => Some(*ms),
            _ => None,
        });
        let map_epoch = self.0.state.map().borrow().epoch;
        Ok(Response::new(ReportReply { map_epoch, next_report_ms: next.unwrap_or(0) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        require_node(&request)?;
        let peer = require_identity(&request)?.clone();
        Ok(Response::new(self.0.authority.renew(&peer, &request.into_inner().csr).await?))
    }

    async fn watch_map(&self, request: Request<WatchMapRequest>) -> Result<Response<Self::WatchMapStream>, Status> {
        require_node(&request)?;
        self.0.require_lead()?;
        let (map, have) = (self.0.state.map(), request.into_inner().have_epoch);
        let leads = self.0.state.leads();
        let updates = stream::unfold((map, leads, have), |(mut map, mut leads, have)| async move {
            let newer = tokio::select! {
                newer = map.wait_for(|map| map.epoch > have) => newer.ok().map(|map| Arc::clone(&map)),
                // The stream ends with the lead: the node looks for whoever has it now.
                _ = leads.wait_for(|leads| !*leads) => None,
            }?;
            let update = MapUpdate { epoch: newer.epoch, map: newer.bytes.clone(), revoked: Vec::new() };
            Some((Ok(update), (map, leads, newer.epoch)))
        });
        Ok(Response::new(updates.boxed()))
    }

    async fn watch_keys(&self, request: Request<WatchKeysRequest>) -> Result<Response<Self::WatchKeysStream>, Status> {
        require_node(&request)?;
        self.0.require_lead()?;
        let (mut keys, leads) = (self.0.keys.watch(), self.0.state.leads());
        keys.mark_changed();
        let updates = stream::unfold((keys, leads), |(mut keys, mut leads)| async move {
            tokio::select! {
                changed = keys.changed() => changed.ok()?,
                _ = leads.wait_for(|leads| !*leads) => return None,
            }
            let all = keys.borrow_and_update().clone();
            Some((Ok(KeysUpdate { keys: all.iter().map(crate::keys::to_wire).collect() }), (keys, leads)))
        });
        Ok(Response::new(updates.boxed()))
    }
}
