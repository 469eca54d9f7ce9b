//! Services as the node starts them: in processes of their own, with passed descriptors.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use prost::Message;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, Signal as UnixSignal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::catalog::Builtin;
use crate::linux::listen_fds;
use crate::rpc::client;
use crate::rpc::pb::node::setting::Value as Said;
use crate::rpc::pb::node::{LaunchSheet, Setting};
use crate::rpc::pb::storage::PutRequest;
use crate::rpc::pb::storage::storage_client::StorageClient;

/// What the child processes of the tests below run, chosen by the variable SERVICE.
#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn a_child() {
    let service = Builtin::from_name(&std::env::var("SERVICE").unwrap()).unwrap();
    let code = crate::service::main(service);
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

fn start(service: &str, passed: &[(&str, OwnedFd)]) -> Child {
    let this = std::env::current_exe().unwrap();
    let child = "service::host::tests::a_child";
    let program = [this.to_str().unwrap(), "--exact", child, "--ignored", "--nocapture"];
    listen_fds::testing::passing(passed, &program)
        .env("SERVICE", service)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn sheet(service: &str, dir: &Path, names: &[&str], sizes: &[(&str, u64)]) -> OwnedFd {
    let setting = |(key, size): &(&str, u64)| Setting {
        key: (*key).to_owned(),
        value: Some(Said::Size(*size)),
    };
    let sheet = LaunchSheet {
        service: service.into(),
        instance: format!("{service}-0"),
        run: 1,
        node_version: "1.0.0".into(),
        data_dir: dir.to_str().unwrap().into(),
        log_level: "info".into(),
        fd_names: names.iter().map(ToString::to_string).collect(),
        settings: sizes.iter().map(setting).collect(),
        ..LaunchSheet::default()
    };
    let fd = memfd_create("sheet", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, &sheet.encode_to_vec()).unwrap();
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK).unwrap();
    fd
}

fn listener(dir: &Path, name: &str) -> OwnedFd {
    UnixListener::bind(dir.join(name)).unwrap().into()
}

/// Waits for the end; gives the lines of the child's log.
fn ended(mut child: Child) -> (bool, Vec<Value>) {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let success = child.wait().unwrap().success();
    (success, text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn terminate(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, UnixSignal::TERM).unwrap();
}

async fn is_serving(socket: &Path) {
    let mut health = HealthClient::new(client::channel_to(socket));
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_service_serves_both_sockets_drains_at_sigterm_and_logs_json() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["shared", "sheet", "grpc"];
    let passed = [
        ("shared", listener(dir.path(), "shared.sock")),
        ("sheet", sheet("storage", dir.path(), &names, &[("max_block", 1024)])),
        ("grpc", listener(dir.path(), "grpc.sock")),
    ];
    let child = start("storage", &passed);
    is_serving(&dir.path().join("grpc.sock")).await;
    let mut storage = StorageClient::new(client::channel_to(&dir.path().join("shared.sock")));
    let put = PutRequest { data: b"block".to_vec(), cid: String::new() };
    assert_eq!(storage.put(put).await.unwrap().into_inner().size, 5);
    terminate(&child);
    let (success, lines) = ended(child);
    assert!(success, "{lines:?}");
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["counted what is stored", "serving", "draining", "ended"]);
    assert_eq!((&lines[1]["instance"], &lines[1]["run"]), (&"storage-0".into(), &1.into()));
}

#[tokio::test]
async fn a_gateway_answers_http_and_health_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = http.local_addr().unwrap();
    let (status, _orchestrator) = UnixStream::pair().unwrap();
    let names = ["grpc", "http", "status", "sheet"];
    let passed = [
        ("grpc", listener(dir.path(), "grpc.sock")),
        ("http", http.into()),
        ("status", status.into()),
        ("sheet", sheet("gateway", dir.path(), &names, &[])),
    ];
    let child = start("gateway", &passed);
    is_serving(&dir.path().join("grpc.sock")).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    terminate(&child);
    assert!(ended(child).0);
}

#[test]
fn a_damaged_ledger_is_not_served_and_the_last_line_says_where() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ledger.log"), b"not a ledger").unwrap();
    let names = ["grpc", "sheet"];
    let passed = [
        ("grpc", listener(dir.path(), "grpc.sock")),
        ("sheet", sheet("ledger", dir.path(), &names, &[("max_entry", 1024)])),
    ];
    let (success, lines) = ended(start("ledger", &passed));
    assert!(!success);
    let said = |line: &Value| {
        let message = line["message"].as_str().unwrap();
        line["level"] == "error" && message.contains("ledger.log\": it is not a ledger")
    };
    assert!(lines.iter().any(said), "{lines:?}");
}

#[test]
fn a_panic_is_logged_before_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    // Ledger settings that the service refuses make `a_child` panic after the log has begun.
    let names = ["grpc", "sheet"];
    let passed = [
        ("grpc", listener(dir.path(), "grpc.sock")),
        ("sheet", sheet("ledger", dir.path(), &names, &[])),
    ];
    let (success, lines) = ended(start("ledger", &passed));
    let [refused, panicked] = &lines[..] else { panic!("{lines:?}") };
    assert!(!success);
    assert!(refused["message"].as_str().unwrap().contains("max_entry"));
    assert!(panicked["message"].as_str().unwrap().starts_with("panic: "));
    assert!(panicked["location"].as_str().unwrap().contains("tests.rs:"));
}
