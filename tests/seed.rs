//! The seed's own configuration and its keys, in the real binary: what is written there happens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use blackhole_node::rpc::client::channel_to;
use blackhole_node::rpc::pb::identity::ListRequest;
use blackhole_node::rpc::pb::identity::identity_client::IdentityClient;
use common::{Lab, http, processes, service, sh};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

const SEED: &str = "../shared/seed/node-core-architecture.md";

/// A port that nothing listened on a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn over_tcp(port: u16) -> Channel {
    Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy()
}

async fn identities(channel: Channel) -> usize {
    let listed = IdentityClient::new(channel).list(ListRequest::default()).await.unwrap();
    listed.into_inner().identities.len()
}

/// The seed's file with its mistakes mended, and with places, ports and sizes that are free here.
fn mended(lab: &Lab, ports: &[u16; 7]) -> Option<String> {
    let Ok(page) = fs::read_to_string(SEED) else {
        eprintln!("skipped: there is no {SEED}");
        return None;
    };
    let block = &page[page.find("# blackhole.yaml").unwrap()..];
    let mut text = block[..block.find("```").unwrap()].to_owned();
    let sockets = format!("{}/blackhole-", lab.path("").display());
    let mut changes = vec![
        ("/ip4/0.0.0.0/quic/4001".to_owned(), "/ip4/0.0.0.0/udp/4001/quic-v1".to_owned()),
        ("/tmp/blackhole-".to_owned(), sockets),
    ];
    for size in ["512MB", "2GB", "1GB"] {
        changes.push((format!("memory: \"{size}\""), "memory: \"64MB\"".to_owned()));
    }
    let keys = [
        "port: 8081",
        "port: 8082",
        "port: 8083",
        "httpPort: 8080",
        "grpcPort: 9090",
        "wsPort: 8081",
        "metricsPort: 9091",
    ];
    for (key, port) in keys.iter().zip(ports) {
        let name = key.split(' ').next().unwrap();
        changes.push((format!(" {key}"), format!(" {name} {port}")));
    }
    for (from, to) in changes {
        assert!(text.contains(&from), "{from}");
        text = text.replace(&from, &to);
    }
    Some(text)
}

/// Reliability 80.
#[tokio::test]
async fn the_seeds_own_file_runs_once_its_mistakes_are_mended() {
    let lab = Lab::new();
    let ports = [(); 7].map(|()| free_port());
    let Some(text) = mended(&lab, &ports) else { return };
    let file = lab.file("blackhole.yaml", text, 0o644);
    let mut node = lab.run(&file).up();
    for name in ["identity", "storage", "ledger", "gateway"] {
        assert_eq!(lab.phase(&format!("{name}-0")), "ready");
    }
    let [identity, storage, _, api @ ..] = ports;
    assert_eq!(identities(over_tcp(identity)).await, 0);
    assert_eq!(identities(channel_to(&lab.path("blackhole-identity.sock"))).await, 0);
    assert_eq!(identities(channel_to(&lab.socket("identity-0"))).await, 0);
    assert!(TcpStream::connect(("127.0.0.1", storage)).is_ok());
    for port in api {
        let base = format!("http://127.0.0.1:{port}");
        assert_eq!(http::get(&base, "/health").status, 200);
        assert!(http::get(&base, "/metrics").body.contains("blackhole_instance_up"));
    }
    node.stop();
    assert!(!lab.path("blackhole-identity.sock").exists());
}

#[test]
fn a_program_is_handed_its_port_and_the_socket_at_the_place_it_was_given() {
    let lab = Lab::new();
    let (port, file) = (free_port(), lab.path("web.sock"));
    let keys = format!("port = {port}\nunix_socket = \"{}\"", file.display());
    let mut node = lab.node(&service("web", &lab.ready_puppet(), &keys)).up();
    let names = lab.tell("web-0", "os.environ['LISTEN_FDNAMES']");
    assert_eq!(names, "socket:shared:port");
    let meta = fs::metadata(&file).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let name =
        |fd: u8| lab.tell("web-0", &format!("socket.socket(fileno=os.dup({fd})).getsockname()"));
    assert_eq!(name(4), file.to_str().unwrap());
    assert_eq!(name(5), serde_json::json!(["127.0.0.1", port]));
    // The orchestrator's own listener: it takes connections while nobody runs.
    lab.done(&["stop", "web"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    node.stop();
    assert!(!file.exists() && TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_file_that_is_no_socket_is_never_taken_for_one() {
    let lab = Lab::new();
    let file = lab.file("precious", "data", 0o644);
    let keys = format!("max_restarts = 0\nunix_socket = \"{}\"", file.display());
    let mut node = lab.node(&service("web", &lab.ready_puppet(), &keys)).up();
    assert_eq!(lab.phase("web-0"), "failed");
    assert!(lab.reason("web-0").contains("precious"), "{}", lab.reason("web-0"));
    node.stop();
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn a_program_that_has_used_up_its_processor_time_is_started_again_and_not_blamed() {
    let lab = Lab::new();
    let burn = sh("echo x >> starts; [ $(wc -l < starts) = 2 ] && exec sleep 1000000; \
                   while :; do :; done");
    let keys = "max_restarts = 0\nrestart_policy = \"on_failure\"\nresources.cpu_seconds = 2";
    let node = lab.node(&service("burn", &burn, keys)).up();
    node.console.line("burn-0 ended: SIGXCPU");
    node.console.nth_line(2, "burn-0 ready");
    let burn = lab.instance("burn-0");
    assert_eq!((&burn["phase"], &burn["restarts"]), (&"ready".into(), &1.into()));
}

#[test]
fn a_built_in_service_drains_at_the_end_of_its_processor_time_and_is_started_again() {
    let lab = Lab::new();
    let node = lab
        .node("")
        .set("services.identity.enabled=true")
        .set("services.identity.max_restarts=0")
        .set("services.identity.restart_policy=on_failure")
        .set("services.identity.resources.cpu_seconds=3600")
        .up();
    let pid = lab.pid("identity-0");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let time = limits.lines().find(|line| line.starts_with("Max cpu time")).unwrap();
    let words: Vec<&str> = time.split_whitespace().skip(3).take(2).collect();
    assert_eq!(words, ["3600", "unlimited"]);
    processes::signal(pid, Signal::XCPU);
    node.console.line("draining");
    node.console.line("identity-0 ended: SIGXCPU");
    node.console.nth_line(2, "identity-0 ready");
    let identity = lab.instance("identity-0");
    assert_eq!((&identity["phase"], &identity["restarts"]), (&"ready".into(), &1.into()));
}

#[test]
fn lines_are_passed_on_and_not_kept_without_aggregation() {
    let lab = Lab::new();
    let talk = sh("echo something-to-say; exec sleep 1000000");
    let node =
        lab.node(&service("talk", &talk, "")).set("monitoring.log_aggregation.enabled=false").up();
    node.console.line("something-to-say");
    assert_eq!(lab.done(&["logs", "talk"]), "");
    assert!(lab.done(&["logs", "node"]).contains("talk-0 ready"));
}
