//! What operators ask. Viewers look; operators drain and admit; administrators remove, and hand out keys and
//! certificates. Every change is logged with who asked for it.

use std::sync::Arc;

use base::{DeviceId, NodeId};
use membership::Input;
use tonic::{Request, Response, Status};
use wire::Fault;
use wire::controller::{
    AccessKey, Admin, CreateKeyRequest, CreateTokenRequest, DeleteKeyRequest, DeviceList, DeviceRow, DrainRequest,
    Empty, IssueOperatorRequest, KeyList, NodeList, NodeRow, RemoveRequest, RenewReply, StatusReply, Token, TokenList,
};
use wire::identity::Role;
use wire::tls_conn::require_operator;

use crate::convert;
use crate::keys::to_wire;
use crate::shared::Shared;

/// See the file's header.
pub(crate) struct AdminService(pub(crate) Arc<Shared>);

fn node_id(text: &str) -> Result<NodeId, Fault> {
    text.parse().map_err(|_| Fault::Invalid(format!("{text} is no node's id")))
}

fn device_id(text: &str) -> Result<DeviceId, Fault> {
    text.parse().map_err(|_| Fault::Invalid(format!("{text} is no device's id")))
}

impl AdminService {
    async fn node(&self, node: NodeId) -> Result<NodeRow, Fault> {
        let now_ms = self.0.state.clock.unix_ms();
        let nodes = self.0.state.look(|membership| membership.nodes(now_ms)).await?;
        nodes.into_iter().find(|view| view.node == node).map(convert::node_row).ok_or(Fault::NotFound)
    }

    async fn device(&self, device: DeviceId) -> Result<DeviceRow, Fault> {
        let devices = self.0.state.look(membership::Membership::devices).await?;
        devices.into_iter().find(|view| view.facts.device == device).map(convert::device_row).ok_or(Fault::NotFound)
    }
}

/// Who asks, when it may; the log says what for.
fn asked<T: std::fmt::Debug>(request: &Request<T>, role: Role, verb: &str) -> Result<(), Status> {
    let name = require_operator(request, role)?;
    if role > Role::Viewer {
        tracing::info!(operator = name, verb, ask = ?request.get_ref(), "asked");
    }
    Ok(())
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, request: Request<Empty>) -> Result<Response<StatusReply>, Status> {
        asked(&request, Role::Viewer, "status")?;
        let now_ms = self.0.state.clock.unix_ms();
        let status = self.0.state.look(|membership| membership.status(now_ms)).await?;
        Ok(Response::new(convert::status(status, self.0.state.name.clone())))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Result<Response<Token>, Status> {
        asked(&request, Role::Operator, "token create")?;
        let ask = request.into_inner();
        Ok(Response::new(self.0.authority.create_token(ask.ttl_s, &ask.comment).await?))
    }

    async fn list_tokens(&self, request: Request<Empty>) -> Result<Response<TokenList>, Status> {
        asked(&request, Role::Viewer, "token list")?;
        Ok(Response::new(TokenList { tokens: self.0.authority.tokens().await? }))
    }

    async fn list_nodes(&self, request: Request<Empty>) -> Result<Response<NodeList>, Status> {
        asked(&request, Role::Viewer, "node list")?;
        let now_ms = self.0.state.clock.unix_ms();
        let nodes = self.0.state.look(|membership| membership.nodes(now_ms)).await?;
        Ok(Response::new(NodeList { nodes: nodes.into_iter().map(convert::node_row).collect() }))
    }

    async fn drain_node(&self, request: Request<DrainRequest>) -> Result<Response<NodeRow>, Status> {
        asked(&request, Role::Operator, "node drain")?;
        let ask = request.into_inner();
        let node = node_id(&ask.target)?;
        let input = if ask.undo { Input::UndrainNode(node) } else { Input::DrainNode(node) };
        self.0.state.ask(input).await?;
        Ok(Response::new(self.node(node).await?))
    }

    async fn remove_node(&self, request: Request<RemoveRequest>) -> Result<Response<NodeRow>, Status> {
        asked(&request, Role::Admin, "node remove")?;
        let ask = request.into_inner();
        let node = node_id(&ask.target)?;
        self.0.state.ask(Input::RemoveNode { node, force: ask.force }).await?;
        self.0.authority.refuse_node(node).await?;
        Ok(Response::new(self.node(node).await?))
    }

    async fn list_devices(&self, request: Request<Empty>) -> Result<Response<DeviceList>, Status> {
        asked(&request, Role::Viewer, "device list")?;
        let devices = self.0.state.look(membership::Membership::devices).await?;
        Ok(Response::new(DeviceList { devices: devices.into_iter().map(convert::device_row).collect() }))
    }

    async fn drain_device(&self, request: Request<DrainRequest>) -> Result<Response<DeviceRow>, Status> {
        asked(&request, Role::Operator, "device drain")?;
        let ask = request.into_inner();
        let device = device_id(&ask.target)?;
        let input = if ask.undo { Input::UndrainDevice(device) } else { Input::DrainDevice(device) };
        self.0.state.ask(input).await?;
        Ok(Response::new(self.device(device).await?))
    }

    async fn remove_device(&self, request: Request<RemoveRequest>) -> Result<Response<DeviceRow>, Status> {
        asked(&request, Role::Admin, "device remove")?;
        let ask = request.into_inner();
        let device = device_id(&ask.target)?;
        self.0.state.ask(Input::RemoveDevice { device, force: ask.force }).await?;
        Ok(Response::new(self.device(device).await?))
    }

    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Result<Response<AccessKey>, Status> {
        asked(&request, Role::Admin, "key create")?;
        let state = &self.0.state;
        let key = self.0.keys.create(&request.into_inner().name, &*state.clock, &*state.entropy).await?;
        Ok(Response::new(to_wire(&key)))
    }

    async fn list_keys(&self, request: Request<Empty>) -> Result<Response<KeyList>, Status> {
        asked(&request, Role::Viewer, "key list")?;
        self.0.keys.refresh().await?;
        let all = self.0.keys.watch().borrow().clone();
        let shown = |key| AccessKey { secret: String::new(), ..to_wire(key) };
        Ok(Response::new(KeyList { keys: all.iter().map(shown).collect() }))
    }

    async fn delete_key(&self, request: Request<DeleteKeyRequest>) -> Result<Response<Empty>, Status> {
        asked(&request, Role::Admin, "key delete")?;
        self.0.keys.delete(&request.into_inner().id).await?;
        Ok(Response::new(Empty {}))
    }

    async fn issue_operator(&self, request: Request<IssueOperatorRequest>) -> Result<Response<RenewReply>, Status> {
        asked(&request, Role::Admin, "operator issue")?;
        let ask = request.into_inner();
        Ok(Response::new(self.0.authority.issue_operator(&ask.csr, &ask.name, &ask.role).await?))
    }
}
