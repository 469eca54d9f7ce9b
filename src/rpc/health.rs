//! `grpc.health.v1` for one process: SERVING from the start, NOT_SERVING once it drains.
//!
//! Unlike the ready-made service, a `Watch` ends after it has told NOT_SERVING at the drain, so
//! that a watcher never holds up the end of the process.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The switch: cloneable, and all clones are one.
#[derive(Debug, Clone)]
pub struct Health {
    names: Arc<[String]>,
    status: Arc<watch::Sender<Phase>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
}

impl Health {
    /// Answers for "" (the whole process) and for `names` (fully qualified gRPC services).
    pub fn serving(names: &[&str]) -> Self {
        let all = std::iter::once("").chain(names.iter().copied());
        let names = all.map(str::to_owned).collect();
        Self { names, status: Arc::new(watch::Sender::new(Phase::Serving)) }
    }

    /// From here on NOT_SERVING, for good.
    pub fn begin_drain(&self) {
        self.status.send_replace(Phase::Draining);
    }

    pub fn service(&self) -> HealthServer<impl HealthApi> {
        HealthServer::new(self.clone())
    }

    fn knows(&self, service: &str) -> bool {
        self.names.iter().any(|name| name == service)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn of(phase: Phase) -> ServingStatus {
    match phase {
        Phase::Serving => ServingStatus::Serving,
        Phase::Draining => ServingStatus::NotServing,
    }
}

type Watching = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl HealthApi for Health {
    type WatchStream = Watching;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !self.knows(service) {
            return Err(Status::not_found(format!("{service:?} is not served here")));
        }
        Ok(Response::new(answer(of(*self.status.borrow()))))
    }

    /// A service that is not known here is told as SERVICE_UNKNOWN, as the protocol asks.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Watching>, Status> {
        let known = self.knows(&request.get_ref().service);
        let told =
            move |status| Ok(answer(if known { status } else { ServingStatus::ServiceUnknown }));
        let serving = WatchStream::new(self.status.subscribe())
            .take_while(|phase| *phase == Phase::Serving)
            .map(move |phase| told(of(phase)));
        let answers = serving.chain(tokio_stream::once(told(of(Phase::Draining))));
        Ok(Response::new(Box::pin(answers)))
    }
}
