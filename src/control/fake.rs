//! A control server with a script instead of a node, on its own thread, for the tests of the
//! client and of the verbs.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{Notify, oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::control::SOCKET;
use crate::rpc::pb::node::control_server::{Control, ControlServer};
use crate::rpc::pb::node::{
    Change, Happening, InstanceHistory, InstancePhase, InstanceSecurity, InstanceStatus, LogRecord,
    LogsRequest, NodeStatus, ReloadRequest, ReplanReply, ScaleRequest, SecurityReply,
    SecurityRequest, SetLimitsRequest, ShutdownReply, ShutdownRequest, StatusRequest, UpgradeReply,
    UpgradeRequest, VerbReply, VerbRequest, WhyReply, WhyRequest,
};

/// What the fake node says.
#[derive(Clone, Default)]
pub struct Script {
    pub status: NodeStatus,
    pub records: Vec<LogRecord>,
    /// What `reload` is refused with.
    pub wrong_configuration: Option<String>,
}

/// A fake node in a folder of its own. Dropping it ends it as a crash would.
pub struct Fake {
    dir: TempDir,
    thread: Option<JoinHandle<()>>,
    crash: Option<oneshot::Sender<()>>,
}

impl Fake {
    pub fn start(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let (crash, crashed) = oneshot::channel();
        let (listening, heard) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = UnixListener::bind(&socket).unwrap();
                listening.send(()).unwrap();
                tokio::select! {
                    () = serve(script, listener, socket) => {}
                    _ = crashed => {}
                }
            });
        });
        heard.recv().unwrap();
        Self { dir, thread: Some(thread), crash: Some(crash) }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it without a word: every connection breaks.
    pub fn crash(&mut self) {
        drop(self.crash.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.crash();
    }
}

async fn serve(script: Script, listener: UnixListener, socket: PathBuf) {
    let ended = Arc::new(Notify::new());
    let control = ControlServer::new(Scripted { script, ended: ended.clone() });
    let incoming = UnixListenerStream::new(listener);
    let server = Server::builder().add_service(control);
    server.serve_with_incoming_shutdown(incoming, ended.notified()).await.unwrap();
    std::fs::remove_file(socket).unwrap();
}

struct Scripted {
    script: Script,
    ended: Arc<Notify>,
}

impl Scripted {
    fn named(&self, name: &str) -> Result<Vec<InstanceStatus>, Status> {
        let all = self.script.status.instances.iter();
        let named =
            |one: &&InstanceStatus| name.is_empty() || one.service == name || one.instance == name;
        let found: Vec<_> = all.filter(named).cloned().collect();
        let disabled = self.script.status.disabled.iter().any(|service| service == name);
        if found.is_empty() && !name.is_empty() && !disabled {
            return Err(Status::not_found(format!("there is no service {name}")));
        }
        Ok(found)
    }

    fn become_of(
        &self,
        request: Request<VerbRequest>,
        phase: &str,
    ) -> Result<Response<VerbReply>, Status> {
        let request = request.into_inner();
        let mut instances = self.named(&request.name)?;
        let phase = if request.no_block { "accepted" } else { phase };
        for instance in &mut instances {
            if instance.phase == "failed" && phase != "stopped" {
                let why = format!("{} failed: exit code 1", instance.instance);
                return Err(Status::failed_precondition(why));
            }
            let named = InstancePhase::ALL.into_iter().find(|one| one.word() == phase);
            instance.phase = phase.to_owned();
            instance.instance_phase = named.unwrap_or_default().into();
        }
        Ok(Response::new(VerbReply { instances }))
    }
}

#[tonic::async_trait]
impl Control for Scripted {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<NodeStatus>, Status> {
        let instances = self.named(&request.into_inner().name)?;
        Ok(Response::new(NodeStatus { instances, ..self.script.status.clone() }))
    }

    async fn start(&self, request: Request<VerbRequest>) -> Result<Response<VerbReply>, Status> {
        self.become_of(request, "ready")
    }

    async fn stop(&self, request: Request<VerbRequest>) -> Result<Response<VerbReply>, Status> {
        self.become_of(request, "stopped")
    }

    async fn restart(&self, request: Request<VerbRequest>) -> Result<Response<VerbReply>, Status> {
        self.become_of(request, "ready")
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Result<Response<ReplanReply>, Status> {
        if let Some(wrong) = &self.script.wrong_configuration {
            return Err(Status::invalid_argument(wrong.clone()));
        }
        let origin = "node.toml".to_owned();
        let instances = self.script.status.instances.clone();
        let change = |one: &InstanceStatus| Change {
            instance: one.instance.clone(),
            what: "restarted".to_owned(),
            differs: vec!["command".to_owned()],
        };
        let changes = instances.iter().map(change).collect();
        let known = ReplanReply { origin, changes, instances, ..ReplanReply::default() };
        Ok(Response::new(known))
    }

    async fn upgrade(
        &self,
        request: Request<UpgradeRequest>,
    ) -> Result<Response<UpgradeReply>, Status> {
        let program = request.into_inner().program;
        Err(Status::failed_precondition(format!("{program} cannot take our place")))
    }

    async fn scale(&self, request: Request<ScaleRequest>) -> Result<Response<ReplanReply>, Status> {
        let request = request.into_inner();
        let before = u32::try_from(self.named(&request.service)?.len()).unwrap_or(u32::MAX);
        let change = |index: u32| Change {
            instance: format!("{}-{index}", request.service),
            what: "added".to_owned(),
            differs: Vec::new(),
        };
        let changes = (before..request.instances).map(change).collect();
        Ok(Response::new(ReplanReply { changes, ..ReplanReply::default() }))
    }

    async fn set_limits(
        &self,
        request: Request<SetLimitsRequest>,
    ) -> Result<Response<ReplanReply>, Status> {
        let request = request.into_inner();
        let instances = self.named(&request.service)?;
        if request.assignments.iter().any(|assignment| assignment == "memory=1MiB") {
            let what = format!("{}-0: its memory does not come down to 1MiB", request.service);
            return Err(Status::failed_precondition(what));
        }
        let change = |one: &InstanceStatus| Change {
            instance: one.instance.clone(),
            what: "adjusted".to_owned(),
            differs: vec!["limits".to_owned()],
        };
        let changes = instances.iter().map(change).collect();
        Ok(Response::new(ReplanReply { changes, instances, ..ReplanReply::default() }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyReply>, Status> {
        let instances = self.named(&request.into_inner().name)?.into_iter();
        let history = |status: InstanceStatus| InstanceHistory {
            waits_for: vec!["db-0 (failed)".to_owned()],
            rules: vec!["restart policy always".to_owned()],
            happenings: vec![Happening {
                unix_us: 1_705_314_600_000_123,
                run: 3,
                level: "error".to_owned(),
                what: format!("ended: {}", status.reason),
            }],
            status: Some(status),
        };
        Ok(Response::new(WhyReply { instances: instances.map(history).collect() }))
    }

    async fn security(
        &self,
        request: Request<SecurityRequest>,
    ) -> Result<Response<SecurityReply>, Status> {
        let instances = self.named(&request.into_inner().name)?.into_iter();
        let security = |status: InstanceStatus| InstanceSecurity {
            service: status.service,
            instance: status.instance,
            profile: "program".to_owned(),
            pid: status.pid,
            system_calls: "filtered".to_owned(),
            ..InstanceSecurity::default()
        };
        Ok(Response::new(SecurityReply { instances: instances.map(security).collect() }))
    }

    async fn shutdown(
        &self,
        _request: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownReply>, Status> {
        self.ended.notify_one();
        Ok(Response::new(ShutdownReply { pid: 4242 }))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogRecord, Status>> + Send>>;

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        if request.name != "node" {
            self.named(&request.name)?;
        }
        let mut records = self.script.records.clone();
        let name = &request.name;
        records.retain(|one| name.is_empty() || &one.service == name || &one.instance == name);
        records.retain(|one| one.unix_us >= request.since_unix_us);
        let tail = request.tail.and_then(|tail| usize::try_from(tail).ok());
        let first = records.len().saturating_sub(tail.unwrap_or(usize::MAX));
        let kept = tokio_stream::iter(records.split_off(first)).map(Ok);
        if request.follow {
            return Ok(Response::new(Box::pin(kept.chain(tokio_stream::pending()))));
        }
        Ok(Response::new(Box::pin(kept)))
    }
}
