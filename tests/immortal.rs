//! The orchestrator dies and is started again by a service manager that keeps its descriptors: what
//! it ran does not notice. The real binary with real children, below a manager that is a program of
//! the test.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::managed::{managed, orchestrator, pids, succeed};
use common::processes::{ends, eventually, kill_dead, signal};
use common::{Background, Lab, http, idle, service, sh};
use rustix::process::Signal;
use serde_json::Value;

fn call(lab: &Lab, instance: &str) -> Value {
    lab.tell(instance, "os.getpid()")
}

/// Reliability 25.
#[test]
fn services_outlive_the_orchestrator_with_their_processes_sockets_and_states() {
    let lab = Lab::new();
    let services = service("puppet", &lab.ready_puppet(), "readiness = \"notify\"")
        + &service("plain", &idle(), "depends_on = [\"puppet\"]")
        + &service("rests", &sh("exit 0"), "restart_policy = \"on_failure\"");
    let mut node = managed(&lab, lab.node(&services)).up();
    lab.done(&["stop", "plain"]);
    lab.done(&["start", "plain"]);
    let before = pids(&lab);
    for _ in 0..5 {
        let mut caller = UnixStream::connect(lab.socket("puppet-0")).unwrap();
        succeed(&lab, &node);
        assert_eq!(pids(&lab), before);
        // Whoever was connected still is.
        writeln!(caller, "\"os.getpid()\"").unwrap();
        let mut line = String::new();
        BufReader::new(&caller).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["ok"], before["puppet-0"]);
        drop(caller);
        assert_eq!(call(&lab, "puppet-0"), before["puppet-0"]);
        assert_eq!(lab.phase("rests-0"), "stopped");
        assert_eq!(lab.instance("plain-0")["restarts"], 0);
    }
    node.stop();
    let left = node.console.line("kept at the end");
    assert!(left.ends_with("[]"), "{left}");
}

/// A port of the loopback interface that nobody has, for TCP and for UDP.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

/// How a puppet reads the datagram that waits for it, and answers it.
const DATAGRAMS: &str = r#"
names = os.environ["LISTEN_FDNAMES"].split(":")
def given(name): return socket.socket(fileno=os.dup(3 + names.index(name)))
def waiting():
    data, sender = given("udp-port").recvfrom(100, socket.MSG_DONTWAIT)
    given("udp-port").sendto(data.upper(), sender)
    return data.decode()
"#;

#[test]
fn ports_of_tcp_and_udp_outlive_the_service_and_the_orchestrator_with_what_waits_in_them() {
    let lab = Lab::new();
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let port = at.port();
    let more = format!("readiness = \"notify\"\nport = {port}\nudp_port = {port}");
    let mut node = managed(&lab, lab.node(&service("web", &lab.ready_puppet(), &more))).up();
    let read = || {
        lab.tell("web-0", DATAGRAMS);
        lab.tell("web-0", "waiting()")
    };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answered = |expected: &[u8]| {
        let mut answer = [0; 100];
        let length = client.recv(&mut answer).unwrap();
        assert_eq!(answer[..length], *expected);
    };
    client.connect(at).unwrap();
    client.send(b"running").unwrap();
    assert_eq!(read(), "running");
    assert_eq!(lab.tell("web-0", "names"), serde_json::json!(["socket", "port", "udp-port"]));
    answered(b"RUNNING");

    lab.done(&["stop", "web"]);
    client.send(b"stopped").unwrap();
    let caller = TcpStream::connect(at).unwrap();
    lab.done(&["start", "web"]);
    assert_eq!(read(), "stopped");
    answered(b"STOPPED");
    let accepted = lab.tell("web-0", "given('port').accept()[1][1]");
    assert_eq!(accepted, caller.local_addr().unwrap().port());

    // The next orchestrator hands the same socket to the next run.
    succeed(&lab, &node);
    client.send(b"adopted").unwrap();
    lab.done(&["restart", "web"]);
    assert_eq!(read(), "adopted");
    answered(b"ADOPTED");
    node.stop();
    UdpSocket::bind(at).unwrap();
}

#[test]
fn a_udp_port_that_somebody_has_is_named_with_its_holder_and_its_key() {
    let lab = Lab::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let more = format!("udp_port = {port}");
    let node = lab.node(&service("web", &idle(), &more)).start();
    let told = node.console.line(&format!("cannot listen on 127.0.0.1:{port}"));
    assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
    assert!(told.contains("services.web.udp_port"), "{told}");
}

/// Reliability 25: what ended while nobody watched is noticed, and how it ended is known where the
/// kernel keeps it.
#[test]
fn what_ended_between_two_orchestrators_is_started_again_by_its_policy() {
    let lab = Lab::new();
    let services = service("puppet", &lab.ready_puppet(), "readiness = \"notify\"")
        + &service("bystander", &idle(), "");
    let node = managed(&lab, lab.node(&services)).up();
    let before = pids(&lab);
    let former = orchestrator(&lab);
    // Stopped, it does not learn of the end before it dies.
    signal(former, Signal::STOP);
    let mut last = UnixStream::connect(lab.socket("puppet-0")).unwrap();
    writeln!(last, "\"os._exit(42)\"").unwrap();
    assert!(ends(i32::try_from(before["puppet-0"]).unwrap(), common::PATIENCE));
    kill_dead(former);
    node.console.line("goes on where the former one stopped");
    let ended = node.console.line("puppet-0 ended");
    let known = ended.contains("exit code 42");
    assert!(known || (!kernel_keeps_ends() && ended.contains("ended unseen")), "{ended}");
    eventually("it is back", || lab.phase("puppet-0") == "ready");
    assert_ne!(pids(&lab)["puppet-0"], before["puppet-0"]);
    assert_eq!(pids(&lab)["bystander-0"], before["bystander-0"]);
}

/// The kernel kills whatever is born into a group that was killed once.
#[test]
fn a_group_that_was_killed_between_two_orchestrators_kills_nobody_after_it() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let mut node = managed(&lab, lab.node(&service("web", &idle(), ""))).up();
    let (former, victim) = (orchestrator(&lab), lab.pid("web-0"));
    signal(former, Signal::STOP);
    std::fs::write(base.join("services/web-0/cgroup.kill"), "1").unwrap();
    assert!(ends(victim, common::PATIENCE));
    kill_dead(former);
    node.console.line("goes on where the former one stopped");
    node.console.nth_line(2, "web-0 ready in");
    let next = lab.pid("web-0");
    succeed(&lab, &node);
    assert_eq!(lab.pid("web-0"), next);
    node.stop();
    assert_eq!(node.console.count("web-0 ended: SIGKILL"), 1);
}

/// Linux 6.15 and newer.
fn kernel_keeps_ends() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// Reliability 60.
#[test]
fn the_configuration_in_force_outlives_the_orchestrator_and_a_broken_file() {
    let lab = Lab::new();
    let services = service("web", &idle(), "") + &service("other", &idle(), "");
    let node = managed(&lab, lab.node(&services)).up();
    lab.done(&["scale", "web", "3"]);
    let before = pids(&lab);
    assert_eq!(before.len(), 4);
    let file = std::fs::read_to_string(lab.path("node.toml")).unwrap();
    std::fs::write(lab.path("node.toml"), "[node\n").unwrap();
    succeed(&lab, &node);
    let refused = node.console.line("not reloaded, nothing is changed");
    assert!(refused.contains("node.toml:1"), "{refused}");
    assert_eq!(pids(&lab), before);
    // A file that was changed meanwhile is in force, and touches only what it changed.
    let changed = file.replace("[services.other]", "[services.other]\nenvironment = { A = \"b\" }");
    std::fs::write(lab.path("node.toml"), changed).unwrap();
    succeed(&lab, &node);
    eventually("the other is replaced", || {
        let now = pids(&lab);
        now.len() == 4 && now["other-0"] != before["other-0"]
    });
    let mut now = pids(&lab);
    now.insert("other-0".to_owned(), before["other-0"]);
    assert_eq!(now, before);
}

/// Reliability 67: health checks, readiness, the gateway's line to the status and the API go on.
#[test]
fn the_gateway_tells_of_the_next_orchestrator_and_refuses_nobody() {
    let lab = Lab::new();
    let file = lab.file("builtin.toml", "[node]\nname = \"bench\"\n[api]\nhttp_port = 0\n", 0o644);
    let node = managed(&lab, lab.run(&file)).up();
    let before = pids(&lab);
    let api = lab.api();
    for _ in 0..3 {
        let next = succeed(&lab, &node);
        assert_eq!(lab.api(), api);
        eventually("the gateway hears the next one", || {
            let told = http::get(&api, "/health");
            told.status == 200 && told.json()["orchestrator"]["pid"] == next
        });
    }
    assert_eq!(pids(&lab), before);
    eventually("it is checked again", || lab.instance("storage-0")["health"] == "healthy");
}

/// Descriptors that services stored are theirs at their next start, whoever starts it.
#[test]
fn what_a_service_stored_outlives_two_orchestrators() {
    let lab = Lab::new();
    let more = "readiness = \"notify\"\nfd_store_max = 4";
    let services = service("puppet", &lab.ready_puppet(), more);
    let node = managed(&lab, lab.node(&services)).up();
    let store = "(ours := os.pipe(), os.write(ours[1], b'kept'), \
                 notify('FDSTORE=1', 'FDNAME=state', fds=[ours[0]]), sync())[1]";
    assert_eq!(lab.tell("puppet-0", store), 4);
    succeed(&lab, &node);
    succeed(&lab, &node);
    lab.done(&["restart", "puppet"]);
    assert_eq!(lab.tell("puppet-0", "os.environ['LISTEN_FDNAMES']"), "socket:state");
    assert_eq!(lab.tell("puppet-0", "os.read(4, 9).decode()"), "kept");
}

fn degradation(lab: &Lab, name: &str) -> Option<String> {
    let status = lab.status();
    let all = status["node"]["degradations"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == name)?;
    Some(found["missing"].as_str().unwrap().to_owned())
}

/// A store that has not room for all: `status` says what is not in it, what is in it is gone on
/// with, and what leaves makes room.
#[test]
fn what_has_no_place_in_a_small_store_is_named_and_what_has_one_is_adopted() {
    let lab = Lab::new();
    let names = ["a", "b", "c", "d", "e"];
    let services = names.map(|name| service(name, &idle(), "")).concat();
    // Less six that are reserved: 5 listeners, and 4 for each run without the spools of its logs.
    let mut node = managed(&lab, lab.node(&services).env("FDSTORE", "22")).up();
    let missing = degradation(&lab, "fd-store").unwrap();
    assert!(missing.contains("room for 13 of 35 descriptors"), "{missing}");
    assert!(missing.ends_with("the log spools of 5 runs, 3 whole runs"), "{missing}");
    // The same program in place knows what the store has.
    lab.done(&["upgrade"]);
    assert_eq!(degradation(&lab, "fd-store").unwrap(), missing);
    let runs = |lab: &Lab| {
        let of = |name: &&str| lab.instance(&format!("{name}-0"))["run"].as_i64().unwrap();
        names.iter().map(|name| (of(name), format!("{name}-0"))).collect::<BTreeMap<_, _>>()
    };
    let oldest: Vec<String> = runs(&lab).into_values().take(2).collect();
    let before = pids(&lab);
    succeed(&lab, &node);
    let after = pids(&lab);
    let same: Vec<_> = before.keys().filter(|id| before[*id] == after[*id]).cloned().collect();
    assert_eq!(same.into_iter().collect::<BTreeSet<_>>(), oldest.iter().cloned().collect());
    // Others leave. Runs that were adopted without the spools of their logs go on without.
    let leave: Vec<String> = runs(&lab).into_values().rev().take(2).collect();
    for id in &leave {
        lab.done(&["stop", id]);
    }
    let missing = degradation(&lab, "fd-store").unwrap();
    assert!(missing.ends_with("not in it: the log spools of 1 run, 1 whole run"), "{missing}");
    lab.done(&["stop", &oldest[0]]);
    assert_eq!(degradation(&lab, "fd-store"), None);
    let before = pids(&lab);
    succeed(&lab, &node);
    assert_eq!(pids(&lab), before);
    node.stop();
    assert_eq!(node.console.count("no room for"), 0, "more was sent than there is room for");
    let left = node.console.line("kept at the end");
    assert!(left.ends_with("[]"), "{left}");
}

/// An upgrade that fails at the last moment: the reload that began for it is over.
#[test]
fn a_program_that_is_gone_when_it_is_to_be_executed_ends_the_reload_and_changes_nothing() {
    let lab = Lab::new();
    let node = managed(&lab, lab.node(&service("web", &idle(), ""))).up();
    let before = pids(&lab);
    let script = format!("#!/bin/sh\nrm -- \"$0\"\nexec {} \"$@\"\n", common::BINARY);
    let script = lab.file("brief", script, 0o755);
    let ready = node.console.count("manager: READY=1");
    let mut upgrade = lab.binary();
    upgrade.args(["upgrade", "--binary"]).arg(&script);
    let _waits_for_a_successor = Background::start(upgrade);
    node.console.line("manager: RELOADING=1");
    let refused = node.console.line("not upgraded");
    assert!(refused.contains("No such file"), "{refused}");
    eventually("the reload is over", || node.console.count("manager: READY=1") > ready);
    assert_eq!(pids(&lab), before);
}

/// At whatever moment it dies, the next one comes up, and nothing is left or there twice.
#[test]
fn killed_at_any_moment_it_is_followed_by_one_that_gets_everything_up() {
    let lab = Lab::new();
    let forks = sh("(setsid sleep 1000000 &) ; exec sleep 1000000");
    let deaf = sh("trap '' TERM; while :; do sleep 1000000; done");
    let services = service("plain", &idle(), "")
        + &service("forks", &forks, "depends_on = [\"plain\"]")
        + &service("deaf", &deaf, "stop_timeout = \"30ms\"")
        + &service("puppet", &lab.ready_puppet(), "readiness = \"notify\"\nstart_timeout = \"2s\"");
    let mut node = managed(&lab, lab.node(&services)).up();
    let mut chance = Rng(u64::from(std::process::id()) << 17 | 1);
    for round in 0..60 {
        let verb =
            [["restart", "forks"], ["restart", "deaf"], ["stop", "plain"], ["start", "plain"]];
        let which = usize::try_from(chance.below(4)).unwrap();
        let former = orchestrator(&lab);
        let mut asking = lab.binary();
        asking.args(verb[which]).arg("--no-block");
        let mut asking = Background::start(asking);
        node.console.let_pass(Duration::from_micros(chance.below(40_000)));
        kill_dead(former);
        // It may have been refused by the one that died.
        asking.end();
        lab.done(&["start", "plain", "forks", "deaf", "puppet"]);
        let status = lab.status();
        let all = status["instances"].as_array().unwrap();
        assert!(all.iter().all(|one| one["phase"] == "ready"), "{round}: {status}");
        assert_ne!(orchestrator(&lab), former);
    }
    // Two sleepers of `forks`, one of the others, the shell and its sleeper, the puppet.
    let expected = 6;
    assert_eq!(lab.processes().len(), expected, "{:?}", lab.processes());
    node.stop();
    let left = node.console.line("kept at the end");
    assert!(left.ends_with("[]"), "{left}");
}

/// Two thousand lines a second, and no line ends with the write that begins it.
const COUNTS: &str = r#"
import os, time
number = 0
while True:
    number += 1
    os.write(1, f"{number};\nline ".encode())
    time.sleep(0.0005)
"#;

/// What was read and has not got out yet is in the spool, and the rest is in the pipe.
#[test]
fn killed_again_and_again_it_loses_no_line() {
    let lab = Lab::new();
    let counts = service("counts", &lab.python("counts.py", COUNTS), "");
    let mut node = managed(&lab, lab.node(&counts)).up();
    let before = pids(&lab);
    let mut chance = Rng(u64::from(std::process::id()) << 17 | 1);
    for _ in 0..30 {
        node.console.let_pass(Duration::from_micros(chance.below(60_000)));
        succeed(&lab, &node);
    }
    assert_eq!(pids(&lab), before);
    node.stop();
    // A line that was cut by a death comes again whole.
    let told: BTreeSet<u64> = node
        .console
        .lines()
        .iter()
        .filter_map(|line| line.rsplit_once("line ")?.1.strip_suffix(';')?.parse().ok())
        .collect();
    let last = *told.last().unwrap();
    assert!(last > 1000, "{last} lines");
    // The first has no beginning of its own.
    let missing: Vec<u64> = (2..=last).filter(|number| !told.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?} of {last} lines");
}

/// xorshift64 (Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
