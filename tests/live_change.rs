//! A node that runs is changed: its configuration is read anew, services are scaled, services are
//! restarted with others. What did not change does not notice.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blackhole_node::rpc::client::channel_to;
use blackhole_node::rpc::pb::storage::UsageRequest;
use blackhole_node::rpc::pb::storage::storage_client::StorageClient;
use common::{Lab, PATIENCE, Setup, eventually, http, idle, processes, service, sh};
use rustix::process::Signal;
use tokio::task::JoinSet;

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// Ten services; `more` stands in the section of "d".
fn ten(more: &str) -> String {
    TEN.iter().map(|name| service(name, &idle(), if *name == "d" { more } else { "" })).collect()
}

fn write(lab: &Lab, services: &str) {
    // The setup writes the file; it is not started.
    let _written = lab.node(services);
}

fn pids(lab: &Lab) -> BTreeMap<String, i64> {
    let status = lab.status();
    let instances = status["instances"].as_array().unwrap().iter();
    let pid = |one: &serde_json::Value| {
        (one["instance"].as_str().unwrap().to_owned(), one["pid"].as_i64().unwrap())
    };
    instances.map(pid).collect()
}

/// Which instances have another process, or are only on one side.
fn changed(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> Vec<String> {
    let all = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    all.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

#[test]
fn a_reload_restarts_only_what_changed() {
    let lab = Lab::new();
    let _node = lab.node(&ten("")).up();
    let before = pids(&lab);
    write(&lab, &ten("environment = { MODE = \"new\" }"));
    let told = lab.done(&["reload"]);
    assert!(told.contains("d-0 restarted (environment): ready (pid "), "{told}");
    assert_eq!(changed(&before, &pids(&lab)), ["d-0"]);
    assert_eq!(lab.instance("d-0")["restarts"], 0, "an operator's change is no restart");
    let told = lab.done(&["reload"]);
    assert!(told.ends_with("nothing changes"), "{told}");
}

#[test]
fn a_broken_file_changes_nothing_and_says_why() {
    let lab = Lab::new();
    let node = lab.node(&ten("")).up();
    let before = pids(&lab);
    write(&lab, &(ten("max_restart = 3\nstop_timeout = \"0s\"") + "[services.k]\n"));
    let answer = lab.verb(&["reload"]);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("nothing was changed"), "{answer:?}");
    for wrong in ["max_restart", "stop_timeout", "services.k"] {
        assert!(answer.err.contains(wrong), "{answer:?}");
    }
    assert!(answer.err.contains("node.toml:"), "{answer:?}");
    node.console.line("not reloaded, nothing is changed");
    fs::remove_file(lab.path("node.toml")).unwrap();
    let answer = lab.verb(&["reload"]);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert_eq!(pids(&lab), before);
    assert_eq!(lab.status()["node"]["phase"], "ready");
}

#[test]
fn services_come_and_go_with_all_that_is_theirs() {
    let lab = Lab::new();
    let one =
        service("stays", &idle(), "") + &service("goes", &sh("echo hi; exec sleep 99999"), "");
    let _node = lab.node(&one).up();
    let (before, group) = (pids(&lab), lab.base_group().map(|base| base.join("services/goes-0")));
    assert!(lab.socket("goes-0").exists());
    let other = service("stays", &idle(), "") + &service("comes", &idle(), "instances = 2");
    write(&lab, &other);
    let told = lab.done(&["reload", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let what: Vec<_> = told["changes"].as_array().unwrap().iter().map(|c| &c["what"]).collect();
    assert_eq!(what, ["added", "added", "removed"], "{told}");
    assert_eq!(told["instances"].as_array().unwrap().len(), 2, "{told}");
    let after = pids(&lab);
    assert_eq!(after.keys().collect::<Vec<_>>(), ["comes-0", "comes-1", "stays-0"]);
    assert_eq!(before["stays-0"], after["stays-0"]);
    assert!(!lab.socket("goes-0").exists());
    assert!(group.is_none_or(|group| !group.exists()));
    assert_eq!(lab.verb(&["status", "goes"]).code, Some(4));
    assert_eq!(lab.verb(&["logs", "goes"]).code, Some(4));
    assert_eq!(lab.verb(&["logs", "comes"]).code, Some(0));
}

#[test]
fn rules_change_without_a_restart_and_hold_at_once() {
    let lab = Lab::new();
    let crash = sh("exec sleep 1000000");
    let node = lab.node(&service("web", &crash, "")).up();
    let before = pids(&lab);
    write(&lab, &service("web", &crash, "max_restarts = 0"));
    let told = lab.done(&["reload"]);
    assert!(told.contains("web-0 adjusted (restarts)"), "{told}");
    assert_eq!(pids(&lab), before);
    processes::signal(lab.pid("web-0"), Signal::SEGV);
    node.console.line("web-0 failed: 0 restarts within 5m");
    // What failed by the old program gets a try with the new one.
    write(&lab, &service("web", &idle(), "max_restarts = 0"));
    let told = lab.done(&["reload"]);
    assert!(told.contains("web-0 restarted (command): ready"), "{told}");
}

#[test]
fn what_an_operator_stopped_stays_stopped() {
    let lab = Lab::new();
    let _node = lab.node(&ten("")).up();
    lab.done(&["stop", "d"]);
    write(&lab, &ten("environment = { MODE = \"new\" }"));
    lab.done(&["reload"]);
    assert_eq!(lab.phase("d-0"), "stopped");
    lab.done(&["start", "d"]);
    let pid = lab.pid("d-0");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("MODE=new"));
}

#[test]
fn sighup_reloads_and_the_service_manager_is_told() {
    let lab = Lab::new();
    let above = UnixDatagram::bind(lab.path("above")).unwrap();
    above.set_read_timeout(Some(PATIENCE)).unwrap();
    let setup = lab.node(&ten("")).env("NOTIFY_SOCKET", lab.path("above"));
    let node = setup.set("monitoring.log_target=console").up();
    let hear = |wanted: &str| loop {
        let mut buffer = [0; 4096];
        let length = above.recv(&mut buffer).unwrap();
        let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if heard.contains(wanted) {
            return heard;
        }
    };
    hear("READY=1");
    write(&lab, &ten("drain = \"1s\""));
    node.signal(Signal::HUP);
    let reloading = hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hear("READY=1");
    node.console.line("1 adjusted");
}

/// The four default services, the API on a port that is set later.
fn defaults(lab: &Lab, more: &str) -> String {
    let file = |port: u16| format!("[api]\nhttp_port = {port}\n{more}");
    let _written = lab.node("");
    let basics = fs::read_to_string(lab.path("node.toml")).unwrap();
    basics.replace("enabled = false", "enabled = true") + &file(free_port())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn defaults_up<'a>(lab: &'a Lab, text: &str) -> common::Node<'a> {
    let setup: Setup<'a> = lab.node("");
    lab.file("node.toml", text, 0o644);
    setup.up()
}

#[test]
fn a_port_that_is_taken_refuses_the_whole_reload() {
    let lab = Lab::new();
    let text = defaults(&lab, "");
    let _node = defaults_up(&lab, &text);
    let (before, api) = (pids(&lab), lab.api());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let old = api.rsplit(':').next().unwrap();
    let moved = text.replace(&format!("http_port = {old}"), &format!("http_port = {port}"));
    lab.file(
        "node.toml",
        moved.replace("[api]", "[services.more]\ncommand = [\"cat\"]\n[api]"),
        0o644,
    );
    let answer = lab.verb(&["reload"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.err.contains(&port.to_string()), "{answer:?}");
    assert_eq!(pids(&lab), before);
    assert_eq!(http::get(&lab.api(), "/health").status, 200);
    drop(taken);
    // The gateway moves; nobody else notices, and a sent answer was a whole one.
    lab.file("node.toml", moved, 0o644);
    let told = lab.done(&["reload"]);
    assert!(told.contains("gateway-0 restarted (sockets): ready"), "{told}");
    assert_eq!(changed(&before, &pids(&lab)), ["gateway-0"]);
    assert!(lab.api().ends_with(&format!(":{port}")));
    assert_eq!(http::get(&lab.api(), "/health").status, 200);
}

#[test]
fn what_a_running_node_cannot_follow_is_refused_by_its_key() {
    let lab = Lab::new();
    let _node = lab.node(&ten("")).up();
    let text = fs::read_to_string(lab.path("node.toml")).unwrap();
    lab.file("node.toml", text.replace("name = \"bench\"", "name = \"other\""), 0o644);
    let answer = lab.verb(&["reload"]);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("node.name: cannot change while the node runs"), "{answer:?}");
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn a_hundred_reloads_leak_nothing() {
    let lab = Lab::new();
    let with = ten("environment = { MODE = \"1\" }") + &service("extra", &idle(), "instances = 2");
    let without = ten("");
    let node = lab.node(&without).up();
    let before = pids(&lab);
    let turn = || {
        write(&lab, &with);
        lab.done(&["reload"]);
        write(&lab, &without);
        lab.done(&["reload"]);
    };
    // What is made once is made by then.
    turn();
    let (fds, tasks) = (descriptors(node.pid()), threads(node.pid()));
    for _ in 0..49 {
        turn();
    }
    assert_eq!(changed(&before, &pids(&lab)), ["d-0"]);
    eventually("the node holds no more than before", || descriptors(node.pid()) <= fds);
    assert!(threads(node.pid()) <= tasks);
    assert_eq!(fs::read_dir(lab.runtime_dir().join("sockets")).unwrap().count(), 10);
    if let Some(base) = lab.base_group() {
        let groups = fs::read_dir(base.join("services")).unwrap().flatten();
        let folders = groups.filter(|entry| entry.path().is_dir()).count();
        assert!(folders <= 10, "{folders} groups");
    }
}

/// A hundred callers of one socket, each with a connection for every call, until they are told to
/// end. What went wrong for them is in the answer.
struct Callers {
    ended: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Vec<tonic::Status>>,
}

impl Callers {
    fn of(socket: PathBuf) -> Self {
        let (ended, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&ended), Arc::clone(&calls));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let one = || call(socket.clone(), Arc::clone(&until), Arc::clone(&count));
                let callers: JoinSet<_> = (0..100).map(|_| one()).collect();
                callers.join_all().await.into_iter().filter_map(Result::err).collect()
            })
        });
        Self { ended, calls, thread }
    }

    fn are_served(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        let more = || self.calls.load(Ordering::Relaxed) > before + 200;
        eventually("callers are served", || more() || self.thread.is_finished());
    }

    fn end(self) -> Vec<tonic::Status> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn call(
    socket: PathBuf,
    until: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Result<(), tonic::Status> {
    while !until.load(Ordering::Relaxed) {
        let mut storage = StorageClient::new(channel_to(&socket));
        storage.usage(UsageRequest {}).await?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn scaling_starts_and_stops_the_difference_and_refuses_no_caller() {
    let lab = Lab::new();
    let text = defaults(&lab, "");
    let node = defaults_up(&lab, &text);
    let first = pids(&lab);
    let callers = Callers::of(lab.socket("storage"));
    callers.are_served();
    let told = lab.done(&["scale", "storage", "5"]);
    assert_eq!(told.matches("added: ready (pid ").count(), 4, "{told}");
    let five = pids(&lab);
    let new = ["storage-1", "storage-2", "storage-3", "storage-4"];
    assert_eq!(changed(&first, &five), new);
    for index in 0..5 {
        assert!(lab.socket(&format!("storage-{index}")).exists());
    }
    callers.are_served();
    let told = lab.done(&["scale", "storage", "2"]);
    assert_eq!(told.matches("removed").count(), 3, "{told}");
    let two = pids(&lab);
    assert_eq!(changed(&five, &two), ["storage-2", "storage-3", "storage-4"]);
    assert!(!lab.socket("storage-4").exists());
    callers.are_served();
    let refused = callers.end();
    assert!(refused.is_empty(), "{refused:?}\n{}", node.console.text());
}

#[test]
fn a_scaled_service_stays_scaled_until_its_file_says_another_number() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    lab.done(&["scale", "web", "3"]);
    write(&lab, &(service("web", &idle(), "") + &service("new", &idle(), "")));
    lab.done(&["reload"]);
    assert_eq!(pids(&lab).len(), 4);
    write(&lab, &service("web", &idle(), "instances = 2"));
    let told = lab.done(&["reload"]);
    assert!(told.contains("new-0 removed") && told.contains("web-2 removed"), "{told}");
    assert_eq!(pids(&lab).keys().collect::<Vec<_>>(), ["web-0", "web-1"]);
}

#[test]
fn a_number_that_cannot_be_is_refused() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    for (name, count, code, words) in [
        ("web", "0", 2, "allowed: 1 to 64"),
        ("web", "65", 2, "allowed: 1 to 64"),
        ("web", "many", 2, "invalid value"),
        ("webb", "2", 4, "there is no service \"webb\""),
        ("storage", "2", 1, "storage is disabled"),
    ] {
        let answer = lab.verb(&["scale", name, count]);
        assert_eq!(answer.code, Some(code), "{answer:?}");
        assert!(answer.err.contains(words), "{answer:?}");
    }
    assert_eq!(pids(&lab).len(), 1);
}

#[test]
fn what_restarts_with_another_follows_its_restart_but_not_its_first_start() {
    let lab = Lab::new();
    let leader = service("leader", &lab.ready_puppet(), "readiness = \"notify\"");
    let follower = service("follower", &idle(), "restart_with = [\"leader\"]");
    let other = service("other", &idle(), "depends_on = [\"leader\"]");
    let node = lab.node(&(leader + &follower + &other)).up();
    let before = pids(&lab);
    assert_eq!(node.console.count("follower-0 starting"), 1);
    processes::kill_dead(lab.pid("leader-0"));
    node.console.line("follower-0 stopping: leader was restarted");
    node.console.nth_line(2, "follower-0 ready in");
    assert_eq!(changed(&before, &pids(&lab)), ["follower-0", "leader-0"]);
    let why = lab.done(&["why", "follower"]);
    assert!(why.contains("is restarted after a restart of: leader"), "{why}");
    lab.done(&["restart", "leader"]);
    node.console.nth_line(3, "follower-0 ready in");
    assert_eq!(node.console.count("follower-0 starting"), 3);
    assert_eq!(lab.instance("follower-0")["restarts"], 0);
    // What is stopped does not follow.
    lab.done(&["stop", "follower"]);
    lab.done(&["restart", "leader"]);
    assert_eq!(lab.phase("follower-0"), "stopped");
}
