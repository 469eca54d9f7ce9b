//! The built-in services in the real binary: they come up, serve, keep what they were given, and
//! come back on the same sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test measures how old an answer can be")]

mod common;

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use blackhole_node::rpc::client::channel_to;
use blackhole_node::rpc::pb::{identity, ledger, storage};
use common::{Lab, Setup, http, idle, processes, service};
use rustix::process::Signal;

const ALL: [&str; 4] = ["gateway", "identity", "ledger", "storage"];

/// The four default services, the API on any free port.
fn defaults(lab: &Lab) -> Setup<'_> {
    let setup = lab.node("").set("api.http_port=0");
    ALL.into_iter().fold(setup, |setup, name| setup.set(&format!("services.{name}.enabled=true")))
}

type Channel = tonic::transport::Channel;

fn storage_of(lab: &Lab) -> storage::storage_client::StorageClient<Channel> {
    storage::storage_client::StorageClient::new(channel_to(&lab.socket("storage-0")))
}

fn identity_of(lab: &Lab) -> identity::identity_client::IdentityClient<Channel> {
    identity::identity_client::IdentityClient::new(channel_to(&lab.socket("identity-0")))
}

fn ledger_of(lab: &Lab) -> ledger::ledger_client::LedgerClient<Channel> {
    ledger::ledger_client::LedgerClient::new(channel_to(&lab.socket("ledger-0")))
}

#[test]
fn the_default_services_come_up_and_are_told_of_everywhere() {
    let lab = Lab::new();
    let mut node = defaults(&lab).up();
    for name in ALL {
        let instance = lab.instance(&format!("{name}-0"));
        assert_eq!(instance["phase"], "ready", "{instance}");
        assert!(instance["pid"].as_i64().unwrap() > 1);
        assert!(instance["memory_bytes"].as_u64().unwrap() > 100_000, "{instance}");
        assert!(UnixStream::connect(instance["socket"].as_str().unwrap()).is_ok());
        // The socket that all instances of the service share.
        assert!(UnixStream::connect(lab.socket(name)).is_ok());
    }
    let health = http::get(&lab.api(), "/health");
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!(health["status"], "healthy", "{health}");
    assert_eq!(health["orchestrator"]["pid"], node.pid());
    for name in ALL {
        assert_eq!(health["services"][name]["pid"], lab.pid(&format!("{name}-0")));
    }
    let metrics = http::get(&lab.api(), "/metrics").body;
    assert!(
        metrics.contains("blackhole_instance_up{service=\"storage\",instance=\"storage-0\"} 1")
    );
    assert_eq!(http::get(&lab.api(), "/nothing").status, 404);
    node.stop();
}

/// The gateway gives an answer again for a second. What it showed after a start was asked for since
/// then: a stop that it shows within that second it was told of. On a slow host that takes turns.
#[test]
fn the_gateway_is_told_of_a_change() {
    let lab = Lab::new();
    let setup = lab.node(&service("plain", &idle(), "")).set("api.http_port=0");
    let setup = ALL
        .into_iter()
        .fold(setup, |setup, name| setup.set(&format!("services.{name}.enabled=true")));
    let _node = setup.up();
    let shows = |status: &str| {
        processes::eventually(status, || {
            http::get(&lab.api(), "/health").json()["services"]["plain"]["status"] == status
        });
    };
    let is_told = || {
        lab.done(&["stop", "plain"]);
        shows("stopped");
        let begun = Instant::now();
        lab.done(&["start", "plain"]);
        shows("healthy");
        lab.done(&["stop", "plain"]);
        shows("stopped");
        begun.elapsed() < Duration::from_secs(1)
    };
    assert!((0..20).any(|_| is_told()));
}

#[test]
fn they_start_after_what_they_need_and_stop_before_it() {
    let lab = Lab::new();
    let mut node = defaults(&lab).up();
    node.stop();
    let lines = node.console.lines();
    let place = |words: &str| lines.iter().position(|line| line.contains(words)).unwrap();
    assert!(place("identity-0 ready") < place("storage-0 starting"));
    assert!(place("storage-0 ready") < place("gateway-0 starting"));
    assert!(place("gateway-0 stopped") < place("storage-0 stopping"));
    assert!(place("storage-0 stopped") < place("identity-0 stopping"));
    assert!(place("ledger-0 stopped") < place("identity-0 stopping"));
}

#[tokio::test]
async fn a_killed_service_serves_again_on_the_same_socket_with_all_it_was_given() {
    let lab = Lab::new();
    let mut node = defaults(&lab).up();
    let mut kept = Vec::new();
    for round in 0..20 {
        let data = format!("block {round}").into_bytes();
        let put = storage::PutRequest { data: data.clone(), cid: String::new() };
        let put = storage_of(&lab).put(put).await.unwrap().into_inner();
        kept.push((put.cid, data));
        let pid = lab.pid("storage-0");
        processes::kill_dead(pid);
        // In the gap: a connection is taken, and answered by the next run.
        UnixStream::connect(lab.socket("storage-0")).expect("refused in the gap");
        UnixStream::connect(lab.socket("storage")).expect("refused in the gap");
        let (cid, data) = kept.first().cloned().unwrap();
        let got = storage_of(&lab).get(storage::GetRequest { cid }).await.unwrap();
        assert_eq!(got.into_inner().data, data);
        node.console.nth_line(round + 2, "storage-0 ready");
        assert_ne!(lab.pid("storage-0"), pid);
    }
    for (cid, data) in kept {
        let got = storage_of(&lab).get(storage::GetRequest { cid }).await.unwrap();
        assert_eq!(got.into_inner().data, data);
    }
    assert_eq!(lab.instance("storage-0")["restarts"], 20);
    node.stop();
}

#[tokio::test]
async fn an_entry_signed_by_identity_is_kept_by_ledger_over_their_deaths() {
    let lab = Lab::new();
    let mut node = defaults(&lab).up();
    let create = identity::CreateRequest { label: "author".to_owned() };
    let author = identity_of(&lab).create(create).await.unwrap().into_inner().identity.unwrap().did;
    for name in ["identity", "ledger"] {
        processes::kill_dead(lab.pid(&format!("{name}-0")));
    }
    let payload = b"paid".to_vec();
    let sign = identity::SignRequest { did: author.clone(), payload: payload.clone() };
    let signature = identity_of(&lab).sign(sign).await.unwrap().into_inner().signature;
    let append = ledger::AppendRequest { author: author.clone(), payload, signature };
    let appended = ledger_of(&lab).append(append.clone()).await.unwrap().into_inner();
    assert_eq!(appended.index, 0);
    processes::kill_dead(lab.pid("ledger-0"));
    let head = ledger_of(&lab).head(ledger::HeadRequest {}).await.unwrap().into_inner();
    assert_eq!((head.length, head.hash), (1, appended.hash));
    let checked = ledger_of(&lab).verify(ledger::VerifyRequest {}).await.unwrap().into_inner();
    assert!(checked.valid && checked.checked == 1, "{checked:?}");
    let forged = ledger::AppendRequest { payload: b"paid twice".to_vec(), ..append };
    let refused = ledger_of(&lab).append(forged).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    node.stop();
}

/// Reliability 17
#[test]
fn a_stopped_service_is_found_hung_and_replaced() {
    let lab = Lab::new();
    let mut node = defaults(&lab)
        .set("process_management.health_checks.interval=\"200ms\"")
        .set("process_management.health_checks.timeout=\"100ms\"")
        .set("services.storage.stop_timeout=\"100ms\"")
        .up();
    let pid = lab.pid("storage-0");
    processes::signal(pid, Signal::STOP);
    node.console.line("storage-0 health check 3 of 3 failed");
    node.console.line("storage-0 did not end within its stop timeout and is killed");
    node.console.nth_line(2, "storage-0 ready");
    assert_ne!(lab.pid("storage-0"), pid);
    node.stop();
}

/// Reliability 29: an orchestrator that was held up blames nobody for answers it did not take.
#[test]
fn an_orchestrator_that_is_stopped_again_and_again_restarts_nobody() {
    let lab = Lab::new();
    let node = defaults(&lab)
        .set("process_management.health_checks.interval=\"100ms\"")
        .set("process_management.health_checks.timeout=\"50ms\"")
        .up();
    for nth in 0..20 {
        node.signal(Signal::STOP);
        node.console.let_pass(Duration::from_millis(50 + 10 * nth));
        node.signal(Signal::CONT);
        node.console.let_pass(Duration::from_millis(7 * nth));
    }
    for name in ALL {
        let instance = lab.instance(&format!("{name}-0"));
        assert_eq!((&instance["phase"], &instance["restarts"]), (&"ready".into(), &0.into()));
    }
}

/// Reliability 77
#[test]
fn a_taken_port_fails_only_the_service_that_needs_it_and_names_the_holder() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut node = defaults(&lab)
        .set(&format!("api.http_port={port}"))
        .set("services.gateway.max_restarts=0")
        .up();
    assert_eq!(lab.phase("gateway-0"), "failed");
    let reason = lab.reason("gateway-0");
    let holder = format!("pid {}", std::process::id());
    assert!(reason.contains(&port.to_string()) && reason.contains(&holder), "{reason}");
    for name in ["identity-0", "storage-0", "ledger-0"] {
        assert_eq!(lab.phase(name), "ready");
    }
    drop(taken);
    lab.done(&["start", "gateway"]);
    assert_eq!(http::get(&lab.api(), "/health").status, 200);
    node.stop();
}
