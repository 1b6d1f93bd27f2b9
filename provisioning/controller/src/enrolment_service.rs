//! Joining: the one service that asks for no certificate. The token is what is judged.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wire::controller::{Enrolment, JoinReply, JoinRequest};

use crate::shared::Shared;

/// See the file's header.
pub(crate) struct EnrolmentService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        self.0.require_lead()?;
        Ok(Response::new(self.0.authority.join(request.into_inner()).await?))
    }
}
