//! The parts of `cargo xtask bench supervise` that speak gRPC. Built as an example, so that it has
//! the profile of the raced binary.
//!
//! - `race serve SOCKET ID`: a service that answers `grpc.health.v1` on descriptor 3 and says over
//!   the datagram socket that it runs.
//! - `race probe NODE RUNTIME_DIR SCRATCH`: for each line `kill` on standard input kills storage of
//!   the node at RUNTIME_DIR, for each `bare` starts `NODE service storage` itself; prints the
//!   nanoseconds until a client that connects at once is answered SERVING.

use std::ffi::CString;
use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackhole_node::control::client::Client;
use blackhole_node::linux::fds::{self, SocketAccess};
use blackhole_node::linux::pidfd::Pidfd;
use blackhole_node::linux::sandbox::Sandbox;
use blackhole_node::linux::spawn::{Launch, Program, spawn};
use blackhole_node::linux::{listen_fds, process};
use blackhole_node::rpc;
use blackhole_node::rpc::pb::node::setting::Value;
use blackhole_node::rpc::pb::node::{LaunchSheet, Setting};
use blackhole_node::units::{Pid, Signal};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long storage may take to serve.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before a further attempt to be answered SERVING.
const AGAIN: Duration = Duration::from_micros(50);

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", ears, id] => runtime.block_on(serve(Path::new(ears), id)),
        ["probe", node, runtime_dir, scratch] => {
            let (runtime_dir, scratch) = (Path::new(runtime_dir), Path::new(scratch));
            runtime.block_on(probe(node, runtime_dir, scratch))
        }
        // `cargo test` runs examples' tests, not this; a bare call is a mistake.
        _ => Err("usage: race serve SOCKET ID | race probe NODE RUNTIME_DIR SCRATCH".into()),
    }
}

async fn serve(ears: &Path, id: &str) -> Outcome {
    let say = format!("run {id} {} {}", process::own_pid(), now());
    let listener = listen_fds::take()?.remove("socket").ok_or("no descriptor named socket")?;
    UnixDatagram::unbound()?.send_to(say.as_bytes(), ears)?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let calls = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
    let (_reporter, health) = tonic_health::server::health_reporter();
    tonic::transport::Server::builder().add_service(health).serve_with_incoming(calls).await?;
    Ok(())
}

async fn probe(node: &str, runtime_dir: &Path, scratch: &Path) -> Outcome {
    let bare = Bare::prepare(node, scratch)?;
    for line in io::stdin().lock().lines() {
        let took = match line?.as_str() {
            "kill" => kill(runtime_dir).await?,
            "bare" => bare.start().await?,
            other => return Err(format!("there is no {other:?}").into()),
        };
        println!("{took}");
    }
    Ok(())
}

/// Storage is killed through a pidfd that is opened before.
async fn kill(runtime_dir: &Path) -> Result<u64, Box<dyn std::error::Error>> {
    let status = Client::connect(runtime_dir).await?.status("storage").await?;
    let storage = status.instances.first().ok_or("the node has no storage")?;
    let socket = runtime_dir.join("sockets/storage-0.sock");
    let process = Pidfd::open(Pid(storage.pid))?.ok_or("storage does not run")?;
    let began = now();
    process.send(Signal::KILL)?;
    await_serving(&socket, began).await
}

/// Storage without a supervisor: the same program, sheet and listener.
struct Bare {
    program: CString,
    socket: PathBuf,
    listeners: [UnixListener; 2],
    folder: PathBuf,
}

impl Bare {
    fn prepare(node: &str, scratch: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = scratch.join("bare");
        std::fs::create_dir_all(&folder)?;
        let socket = scratch.join("bare.sock");
        let listener = |path: &Path| fds::unix_listener(path, SocketAccess::Owner);
        let listeners = [listener(&socket)?, listener(&scratch.join("shared.sock"))?];
        Ok(Self { program: CString::new(node)?, socket, listeners, folder })
    }

    async fn start(&self) -> Result<u64, Box<dyn std::error::Error>> {
        let sheet = fds::sealed_memory("launch-sheet", &self.sheet().encode_to_vec())?;
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        let [own, shared] = &self.listeners;
        let words = ["blackhole-node", "service", "storage"].map(CString::new);
        let environment = ["LISTEN_FDS=3", "LISTEN_FDNAMES=grpc:shared:sheet"].map(CString::new);
        let launch = Launch {
            program: Program::Path(self.program.clone()),
            arguments: words.into_iter().collect::<Result<_, _>>()?,
            environment: environment.into_iter().collect::<Result<_, _>>()?,
            pid_variables: vec!["LISTEN_PID"],
            working_directory: None,
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            passed: vec![own.as_fd(), shared.as_fd(), sheet.as_fd()],
            limits: Vec::new(),
            group: None,
            sandbox: Sandbox::default(),
        };
        let began = now();
        let child = spawn(&launch)?;
        let took = await_serving(&self.socket, began).await;
        child.pidfd.send(Signal::KILL)?;
        child.pidfd.exited().await?;
        child.pidfd.reap()?;
        took
    }

    fn sheet(&self) -> LaunchSheet {
        let max_block = Setting { key: "max_block".to_owned(), value: Some(Value::Size(4 << 20)) };
        LaunchSheet {
            service: "storage".to_owned(),
            instance: "storage-0".to_owned(),
            run: 1,
            node_name: "race".to_owned(),
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: self.folder.display().to_string(),
            log_level: "info".to_owned(),
            drain_ms: 1000,
            fd_names: ["grpc", "shared", "sheet"].map(str::to_owned).to_vec(),
            settings: vec![max_block],
        }
    }
}

/// A new connection waits in the listener's backlog until somebody accepts it.
async fn await_serving(socket: &Path, began: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let answered = async {
        loop {
            let mut client = HealthClient::new(rpc::client::channel_to(socket));
            let asked = HealthCheckRequest { service: String::new() };
            let answer = client.check(asked).await.map(|answer| answer.into_inner().status());
            if matches!(answer, Ok(ServingStatus::Serving)) {
                return now() - began;
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, answered).await?)
}

/// Nanoseconds of the monotonic clock, as the raced C service tells them.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
