//! Asks a running node over its control socket: one connection for one verb. Every way in which
//! that can fail has its own error, in a sentence that an operator can act on.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::linux::pidfd::Pidfd;
use crate::rpc::pb::node::control_client::ControlClient;
use crate::rpc::pb::node::{
    InstanceHistory, InstanceSecurity, InstanceStatus, LogRecord, LogsRequest, NodeInfo,
    NodeStatus, ReloadRequest, ReplanReply, ScaleRequest, SecurityRequest, SetLimitsRequest,
    ShutdownRequest, StatusRequest, UpgradeReply, UpgradeRequest, VerbRequest, WhyRequest,
};

use super::{SOCKET, Wait};
use crate::units::Pid;

/// How long a node may take to say how it is. The verbs that wait for a service have no bound of
/// their own: the node's start and stop timeouts end them.
const STATUS_WITHIN: Duration = Duration::from_secs(10);

/// How long the next orchestrator may take to answer, and how often it is tried.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(60);
const SUCCESSOR_AGAIN: Duration = Duration::from_millis(20);

/// Why a node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no node is running at {} ({why}); start it with: blackhole-node", .dir.display())]
    NotRunning { dir: PathBuf, why: &'static str },
    #[error("no permission to use {}; run this as the node's user or as root", .socket.display())]
    NoPermission { socket: PathBuf },
    #[error("cannot connect to {}: {source}; check --runtime-dir", .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the node at {} went away; its output, or journalctl -u blackhole, tells why",
        .dir.display())]
    WentAway { dir: PathBuf },
    #[error("the node at {} did not answer within {} s; it is stopped or overloaded",
        .dir.display(), STATUS_WITHIN.as_secs())]
    Silent { dir: PathBuf },
    #[error("the node at {} was to become another and did not within {} s; its log tells why",
        .dir.display(), SUCCESSOR_WITHIN.as_secs())]
    NoSuccessor { dir: PathBuf },
    #[error("{0}")]
    NoSuchService(String),
    #[error("{0}")]
    Failed(String),
    #[error("the configuration is wrong, and nothing was changed:\n{0}")]
    Configuration(String),
    #[error("the node refused the request: {0}")]
    Invalid(String),
    #[error("the node did not allow it: {0}")]
    Denied(String),
    #[error("the node could not do it: {1} ({0:?})")]
    Internal(Code, String),
    #[error("cannot wait for the node's end: {0}")]
    Watch(#[from] crate::linux::Error),
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
    Restart,
}

/// The orchestrator that runs after an upgrade.
#[derive(Debug)]
pub struct NextOrchestrator {
    pub info: NodeInfo,
    pub instances: usize,
}

/// A connection to a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    node: ControlClient<Channel>,
    dir: PathBuf,
    /// The process that listens on the socket, as the kernel knows it here.
    listener: Option<i32>,
    closed: watch::Receiver<()>,
}

impl Client {
    /// Connects to the node whose sockets are in `runtime_dir`.
    pub async fn connect(runtime_dir: &Path) -> Result<Self, Error> {
        let stream = open(runtime_dir).await?;
        let listener = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let (open, closed) = watch::channel(());
        let mut once = Some(TokioIo::new(Watched { stream, _open: open }));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        // HTTP/2 wants an authority; the socket is already chosen.
        let endpoint = Endpoint::from_static("http://control");
        let channel = endpoint.connect_with_connector(connector).await;
        let dir = runtime_dir.to_owned();
        let channel = channel.map_err(|_| Error::WentAway { dir: dir.clone() })?;
        Ok(Self { node: ControlClient::new(channel), dir, listener, closed })
    }

    /// How the node is; `name` is a service, an instance, or empty for all.
    pub async fn status(&mut self, name: &str) -> Result<NodeStatus, Error> {
        let request = StatusRequest { name: name.to_owned() };
        let answer = timeout(STATUS_WITHIN, self.node.status(request)).await;
        let answer = answer.map_err(|_| Error::Silent { dir: self.dir.clone() })?;
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }

    /// What the services are kept from; `name` as for `status`.
    pub async fn security(&mut self, name: &str) -> Result<Vec<InstanceSecurity>, Error> {
        let request = SecurityRequest { name: name.to_owned() };
        let answer = timeout(STATUS_WITHIN, self.node.security(request)).await;
        let answer = answer.map_err(|_| Error::Silent { dir: self.dir.clone() })?;
        let reply = answer.map(tonic::Response::into_inner);
        reply.map(|reply| reply.instances).map_err(|status| self.error(&status))
    }

    /// Starts, stops or restarts a service or an instance and gives what became of it.
    pub async fn act(
        &mut self,
        action: Action,
        name: &str,
        wait: Wait,
    ) -> Result<Vec<InstanceStatus>, Error> {
        let request = VerbRequest { name: name.to_owned(), no_block: wait == Wait::Accepted };
        let answer = match action {
            Action::Start => self.node.start(request).await,
            Action::Stop => self.node.stop(request).await,
            Action::Restart => self.node.restart(request).await,
        };
        let reply = answer.map_err(|status| self.error(&status))?;
        Ok(reply.into_inner().instances)
    }

    /// Has the node reload its configuration, and gives what changed.
    pub async fn reload(&mut self, wait: Wait) -> Result<ReplanReply, Error> {
        let request = ReloadRequest { no_block: wait == Wait::Accepted };
        let answer = self.node.reload(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| {
            if status.code() == Code::InvalidArgument {
                return Error::Configuration(status.message().to_owned());
            }
            self.error(&status)
        })
    }

    /// Gives a service another number of instances.
    pub async fn scale(
        &mut self,
        service: &str,
        instances: u32,
        wait: Wait,
    ) -> Result<ReplanReply, Error> {
        let service = service.to_owned();
        let no_block = wait == Wait::Accepted;
        let answer = self.node.scale(ScaleRequest { service, instances, no_block }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }

    /// Changes what a service may use.
    pub async fn set_limits(
        &mut self,
        service: &str,
        assignments: &[String],
        wait: Wait,
    ) -> Result<ReplanReply, Error> {
        let request = SetLimitsRequest {
            service: service.to_owned(),
            assignments: assignments.to_vec(),
            no_block: wait == Wait::Accepted,
        };
        let answer = self.node.set_limits(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }

    /// Upgrades the orchestrator to another program in place; an empty path: the file that now has
    /// the name of the running one. Returns when that program has passed its rehearsal;
    /// `successor` waits until it answers.
    pub async fn upgrade(&mut self, program: &str) -> Result<UpgradeReply, Error> {
        let request = UpgradeRequest { program: program.to_owned() };
        let answer = self.node.upgrade(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| {
            if status.code() == Code::InvalidArgument {
                return Error::Configuration(status.message().to_owned());
            }
            self.error(&status)
        })
    }

    /// Waits until an orchestrator of a later generation than this one answers.
    pub async fn successor(&self, generation: u32) -> Result<NextOrchestrator, Error> {
        let asking = async {
            loop {
                if let Ok(mut next) = Self::connect(&self.dir).await
                    && let Ok(status) = next.status("").await
                    && let Some(info) = status.node
                    && info.generation > generation
                {
                    return NextOrchestrator { info, instances: status.instances.len() };
                }
                sleep(SUCCESSOR_AGAIN).await;
            }
        };
        let found = timeout(SUCCESSOR_WITHIN, asking).await;
        found.map_err(|_| Error::NoSuccessor { dir: self.dir.clone() })
    }

    /// What happened to a service or an instance, and by which rule.
    pub async fn why(&mut self, name: &str) -> Result<Vec<InstanceHistory>, Error> {
        let answer = self.node.why(WhyRequest { name: name.to_owned() }).await;
        let reply = answer.map_err(|status| self.error(&status))?;
        Ok(reply.into_inner().instances)
    }

    /// Tells the node to end; returns when the stop has begun.
    pub async fn shutdown(&mut self) -> Result<(), Error> {
        let answer = self.node.shutdown(ShutdownRequest {}).await;
        answer.map(|_| ()).map_err(|status| self.error(&status))
    }

    /// Log records, oldest first.
    pub async fn logs(&mut self, request: LogsRequest) -> Result<Records, Error> {
        let answer = self.node.logs(request).await;
        let stream = answer.map_err(|status| self.error(&status))?.into_inner();
        Ok(Records { stream, dir: self.dir.clone() })
    }

    /// Prepares to wait for the end of the node, whose own process id is `pid`. To be called
    /// before `shutdown`, while the process id still means that process.
    pub fn ending(&self, pid: i32) -> Result<Ending, Error> {
        // Another number for the same process means another process id namespace: a container.
        let same = Some(pid) == self.listener;
        let process = if same { Pidfd::open(Pid(pid))? } else { None };
        Ok(Ending { process, dir: self.dir.clone(), closed: self.closed.clone() })
    }

    /// The error of a stream that ended although it was to go on.
    pub fn went_away(&self) -> Error {
        Error::WentAway { dir: self.dir.clone() }
    }

    fn error(&self, status: &Status) -> Error {
        error(&self.dir, status)
    }
}

/// The records of one `logs` call.
#[derive(Debug)]
pub struct Records {
    stream: tonic::Streaming<LogRecord>,
    dir: PathBuf,
}

impl Records {
    /// The next one; `None` after the last. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        self.stream.message().await.map_err(|status| error(&self.dir, &status))
    }
}

/// The end of a node's process.
#[derive(Debug)]
pub struct Ending {
    process: Option<Pidfd>,
    dir: PathBuf,
    closed: watch::Receiver<()>,
}

impl Ending {
    /// Returns when the process is gone, or, where the kernel does not let us see it, when nothing
    /// listens on the control socket any more.
    pub async fn wait(self) -> Result<(), Error> {
        if let Some(process) = self.process {
            return Ok(process.exited().await?);
        }
        let mut closed = self.closed;
        loop {
            let Err(_all_senders_are_gone) = closed.changed().await else { continue };
            match Client::connect(&self.dir).await {
                Ok(client) => closed = client.closed,
                Err(_) => return Ok(()),
            }
        }
    }
}

async fn open(runtime_dir: &Path) -> Result<UnixStream, Error> {
    let socket = runtime_dir.join(SOCKET);
    let dir = runtime_dir.to_owned();
    UnixStream::connect(&socket).await.map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            Error::NotRunning { dir, why: "no control socket" }
        } else if source.kind() == io::ErrorKind::ConnectionRefused {
            Error::NotRunning { dir, why: "nothing listens on the control socket" }
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            Error::NoPermission { socket }
        } else {
            Error::Connect { socket, source }
        }
    })
}

fn error(dir: &Path, status: &Status) -> Error {
    // Only statuses that tonic made on this side, for a broken connection, have a source.
    if std::error::Error::source(status).is_some() {
        return Error::WentAway { dir: dir.to_owned() };
    }
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable => Error::WentAway { dir: dir.to_owned() },
        Code::NotFound => Error::NoSuchService(message),
        Code::FailedPrecondition => Error::Failed(message),
        Code::InvalidArgument | Code::OutOfRange => Error::Invalid(message),
        Code::PermissionDenied | Code::Unauthenticated => Error::Denied(message),
        code @ (Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss) => Error::Internal(code, message),
    }
}

/// A stream whose end can be waited for: the sender lives exactly as long as it does.
#[derive(Debug)]
struct Watched {
    stream: UnixStream,
    _open: watch::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::control::fake::{Fake, Script};

    #[tokio::test]
    async fn a_folder_without_a_socket_has_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::connect(dir.path()).await.unwrap_err();
        let text = format!(
            "no node is running at {} (no control socket); start it with: blackhole-node",
            dir.path().display()
        );
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_node_left_has_no_node() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let error = Client::connect(dir.path()).await.unwrap_err();
        assert!(matches!(error, Error::NotRunning { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_an_error_and_not_a_missing_node() {
        let dir = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error = Client::connect(&dir).await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_closed_folder_is_a_matter_of_permission() {
        if rustix::process::geteuid().is_root() {
            eprintln!("skipped: root may open everything");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o000)).unwrap();
        let error = Client::connect(dir.path()).await.unwrap_err();
        assert!(matches!(error, Error::NoPermission { .. }), "{error}");
    }

    #[tokio::test]
    async fn only_the_process_that_really_listens_is_watched() {
        let fake = Fake::start(Script::default());
        let client = Client::connect(fake.dir()).await.unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(client.ending(own).unwrap().process.is_some());
        assert!(client.ending(own + 1).unwrap().process.is_none());
    }

    #[tokio::test]
    async fn a_node_that_breaks_off_went_away() {
        let mut fake = Fake::start(Script::default());
        let mut client = Client::connect(fake.dir()).await.unwrap();
        let ending = client.ending(0).unwrap();
        fake.crash();
        ending.wait().await.unwrap();
        let error = client.status("").await.unwrap_err();
        assert!(matches!(error, Error::WentAway { .. }), "{error:?}");
    }

    #[test]
    fn every_answer_of_the_node_has_its_own_error() {
        let of = |code| error(Path::new("/run/b"), &Status::new(code, "why"));
        assert!(matches!(of(Code::NotFound), Error::NoSuchService(_)));
        assert!(matches!(of(Code::FailedPrecondition), Error::Failed(_)));
        assert!(matches!(of(Code::InvalidArgument), Error::Invalid(_)));
        assert!(matches!(of(Code::PermissionDenied), Error::Denied(_)));
        assert!(matches!(of(Code::Unavailable), Error::WentAway { .. }));
        assert_eq!(of(Code::Internal).to_string(), "the node could not do it: why (Internal)");
    }
}
