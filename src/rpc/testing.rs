//! For tests: routes served in this process over a Unix socket in a folder of their own.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::codegen::http::Uri;
use tonic::service::Routes;
use tonic::transport::Channel;
use tower::service_fn;

use super::{Health, Peers, ServeError, Sockets, client, serve, with_reflection};

/// Longer than any test: a drain that comes to its end is a failed test.
pub const NEVER: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub struct Served {
    pub dir: tempfile::TempDir,
    pub health: Health,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    /// With health and reflection, as a service does it.
    pub fn start(routes: Routes, names: &'static [&'static str], drain: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::serving(names);
        let routes = with_reflection(routes.add_service(health.service()), names).unwrap();
        let listeners = vec![UnixListener::bind(dir.path().join("grpc.sock")).unwrap()];
        let (end, told) = oneshot::channel();
        let switch = health.clone();
        let told = async move {
            let _ = told.await;
            switch.begin_drain();
        };
        let sockets = Sockets { listeners, ..Sockets::default() };
        let task = tokio::spawn(serve(sockets, routes, Peers::SameUserOrRoot, drain, told));
        Self { dir, health, end, task }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("grpc.sock")
    }

    pub fn channel(&self) -> Channel {
        client::channel_to(&self.socket())
    }

    /// Begins the end without waiting for it.
    pub fn tell(self) -> JoinHandle<Result<(), ServeError>> {
        self.end.send(()).unwrap();
        self.task
    }

    pub async fn end(self) {
        let dir = self.dir.path().to_owned();
        self.tell().await.unwrap().unwrap();
        let _ = dir;
    }
}

/// A channel over this one connection. The call that finds it lost fails, and every further one
/// ends as UNAVAILABLE.
pub fn channel_over(stream: StdStream) -> io::Result<Channel> {
    stream.set_nonblocking(true)?;
    let only = Arc::new(Mutex::new(Some(stream)));
    let connect = move |_: Uri| {
        let taken = only.lock().unwrap().take();
        async move {
            let lost = || io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
            UnixStream::from_std(taken.ok_or_else(lost)?).map(TokioIo::new)
        }
    };
    Ok(client::endpoint().connect_with_connector_lazy(service_fn(connect)))
}
