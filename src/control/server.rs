//! The server side of the operator's API: it forwards requests to the supervise loop, which alone
//! knows the state. Only the logs are read without it.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::rpc::pb::node as pb;
use pb::control_server::Control;
use pb::status_feed_server::StatusFeed;

/// How many requests may wait for the supervise loop.
pub const QUEUE: usize = 64;

/// Where the response to one request goes.
pub type Responder<T> = oneshot::Sender<Result<T, Status>>;

/// A request to the supervise loop, with its responder.
#[derive(Debug)]
pub enum ControlRequest {
    Status {
        name: String,
        reply: Responder<pb::NodeStatus>,
    },
    /// The newest status, now and whenever it changes.
    WatchStatus {
        reply: oneshot::Sender<watch::Receiver<Arc<pb::NodeStatus>>>,
    },
    Verb {
        verb: Verb,
        request: pb::VerbRequest,
        reply: Responder<pb::VerbReply>,
    },
    Why {
        name: String,
        reply: Responder<pb::WhyReply>,
    },
    Security {
        name: String,
        reply: Responder<pb::SecurityReply>,
    },
    Reload {
        request: pb::ReloadRequest,
        reply: Responder<pb::ReplanReply>,
    },
    Scale {
        request: pb::ScaleRequest,
        reply: Responder<pb::ReplanReply>,
    },
    SetLimits {
        request: pb::SetLimitsRequest,
        reply: Responder<pb::ReplanReply>,
    },
    Upgrade {
        request: pb::UpgradeRequest,
        reply: Responder<pb::UpgradeReply>,
    },
    Shutdown {
        reply: oneshot::Sender<pb::ShutdownReply>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Restart,
}

pub type LogStream = Pin<Box<dyn Stream<Item = Result<pb::LogRecord, Status>> + Send>>;

pub type StatusStream = Pin<Box<dyn Stream<Item = Result<pb::NodeStatus, Status>> + Send>>;

/// Where log records come from.
pub trait LogSource: Send + Sync + 'static {
    /// `NOT_FOUND` when the name stands for nothing.
    fn records(&self, request: pb::LogsRequest) -> Result<LogStream, Status>;
}

/// Serves `Control` and `StatusFeed` by requests to the supervise loop.
#[derive(Debug, Clone)]
pub struct ControlService<L> {
    requests: mpsc::Sender<ControlRequest>,
    logs: L,
}

impl<L> ControlService<L> {
    pub fn new(requests: mpsc::Sender<ControlRequest>, logs: L) -> Self {
        Self { requests, logs }
    }

    async fn ask<T>(&self, ask: ControlRequest, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        let ending = || Status::unavailable("the node is ending");
        self.requests.send(ask).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    async fn verb(
        &self,
        verb: Verb,
        request: pb::VerbRequest,
    ) -> Result<Response<pb::VerbReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let reply = self.ask(ControlRequest::Verb { verb, request, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn status_of(&self, name: String) -> Result<Response<pb::NodeStatus>, Status> {
        let (reply, answer) = oneshot::channel();
        let status = self.ask(ControlRequest::Status { name, reply }, answer).await??;
        Ok(Response::new(status))
    }
}

#[tonic::async_trait]
impl<L: LogSource> Control for ControlService<L> {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::NodeStatus>, Status> {
        self.status_of(request.into_inner().name).await
    }

    async fn start(
        &self,
        request: Request<pb::VerbRequest>,
    ) -> Result<Response<pb::VerbReply>, Status> {
        self.verb(Verb::Start, request.into_inner()).await
    }

    async fn stop(
        &self,
        request: Request<pb::VerbRequest>,
    ) -> Result<Response<pb::VerbReply>, Status> {
        self.verb(Verb::Stop, request.into_inner()).await
    }

    async fn restart(
        &self,
        request: Request<pb::VerbRequest>,
    ) -> Result<Response<pb::VerbReply>, Status> {
        self.verb(Verb::Restart, request.into_inner()).await
    }

    async fn reload(
        &self,
        request: Request<pb::ReloadRequest>,
    ) -> Result<Response<pb::ReplanReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let request = request.into_inner();
        let reply = self.ask(ControlRequest::Reload { request, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn scale(
        &self,
        request: Request<pb::ScaleRequest>,
    ) -> Result<Response<pb::ReplanReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let request = request.into_inner();
        let reply = self.ask(ControlRequest::Scale { request, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn set_limits(
        &self,
        request: Request<pb::SetLimitsRequest>,
    ) -> Result<Response<pb::ReplanReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let request = request.into_inner();
        let reply = self.ask(ControlRequest::SetLimits { request, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn why(
        &self,
        request: Request<pb::WhyRequest>,
    ) -> Result<Response<pb::WhyReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let name = request.into_inner().name;
        let reply = self.ask(ControlRequest::Why { name, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn security(
        &self,
        request: Request<pb::SecurityRequest>,
    ) -> Result<Response<pb::SecurityReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let name = request.into_inner().name;
        let reply = self.ask(ControlRequest::Security { name, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn upgrade(
        &self,
        request: Request<pb::UpgradeRequest>,
    ) -> Result<Response<pb::UpgradeReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let request = request.into_inner();
        let reply = self.ask(ControlRequest::Upgrade { request, reply }, answer).await??;
        Ok(Response::new(reply))
    }

    async fn shutdown(
        &self,
        _: Request<pb::ShutdownRequest>,
    ) -> Result<Response<pb::ShutdownReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let reply = self.ask(ControlRequest::Shutdown { reply }, answer).await?;
        Ok(Response::new(reply))
    }

    type LogsStream = LogStream;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<LogStream>, Status> {
        Ok(Response::new(self.logs.records(request.into_inner())?))
    }
}

/// The read-only view that the gateway is given.
#[derive(Debug, Clone)]
pub struct StatusFeedService<L>(pub ControlService<L>);

#[tonic::async_trait]
impl<L: LogSource> StatusFeed for StatusFeedService<L> {
    async fn get(
        &self,
        _: Request<pb::StatusFeedRequest>,
    ) -> Result<Response<pb::NodeStatus>, Status> {
        self.0.status_of(String::new()).await
    }

    type WatchStream = StatusStream;

    async fn watch(
        &self,
        _: Request<pb::StatusFeedRequest>,
    ) -> Result<Response<StatusStream>, Status> {
        let (reply, answer) = oneshot::channel();
        let newest = self.0.ask(ControlRequest::WatchStatus { reply }, answer).await?;
        let statuses = WatchStream::new(newest).map(|status| Ok(status.as_ref().clone()));
        Ok(Response::new(Box::pin(statuses)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoLogs;

    impl LogSource for NoLogs {
        fn records(&self, _: pb::LogsRequest) -> Result<LogStream, Status> {
            Err(Status::not_found("there are none"))
        }
    }

    fn status(number: u64) -> Arc<pb::NodeStatus> {
        Arc::new(pb::NodeStatus { disabled: vec![number.to_string()], ..Default::default() })
    }

    #[tokio::test]
    async fn a_watcher_that_lags_is_told_the_newest_status() {
        let (requests, mut asked) = mpsc::channel(1);
        let newest = watch::Sender::new(status(0));
        let service = StatusFeedService(ControlService::new(requests, NoLogs));
        let loop_answers = async {
            match asked.recv().await {
                Some(ControlRequest::WatchStatus { reply }) => reply.send(newest.subscribe()),
                other => panic!("{other:?}"),
            }
        };
        let watching = service.watch(Request::new(pb::StatusFeedRequest {}));
        let (watching, answered) = tokio::join!(watching, loop_answers);
        answered.unwrap();
        let mut statuses = watching.unwrap().into_inner();
        assert_eq!(statuses.next().await.unwrap().unwrap(), *status(0));
        for number in 1..=3 {
            newest.send_replace(status(number));
        }
        assert_eq!(statuses.next().await.unwrap().unwrap(), *status(3));
        assert_eq!(newest.receiver_count(), 1);
        drop(statuses);
        assert_eq!(newest.receiver_count(), 0);
    }
}
