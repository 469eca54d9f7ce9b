//! The orchestrator becomes another program in place: what it runs does not notice. The real binary
//! with real children, and no service manager.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test has files copied by another process")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::managed::{managed, pids, succeed};
use common::previous::PREVIOUS;
use common::processes::{descriptors, eventually};
use common::{BINARY, Lab, Node, Output, idle, service, sh};
use serde_json::{Value, json};

fn generation(lab: &Lab) -> Value {
    lab.status()["node"]["generation"].clone()
}

/// A file of the binary that can be replaced, as a package does it.
fn copy(lab: &Lab) -> PathBuf {
    let path = lab.path("blackhole-node");
    replace(&path, Path::new(BINARY));
    path
}

/// Written by another process: what this one has open for writing is inherited by whatever another
/// test starts just then, and Linux executes no file that is open for writing (`ETXTBSY`).
fn replace(path: &Path, by: &Path) {
    let fresh = path.with_extension("new");
    assert!(Command::new("cp").args([by, &fresh]).status().unwrap().success());
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[test]
fn services_sockets_and_logs_do_not_notice_an_upgrade() {
    let lab = Lab::new();
    let services = service("puppet", &lab.ready_puppet(), "readiness = \"notify\"") + &counts();
    let node = lab.node(&services).up();
    let before = pids(&lab);
    for upgrade in 2..=11 {
        let told: Value = serde_json::from_str(&lab.done(&["upgrade", "--json"])).unwrap();
        assert_eq!((&told["generation"], &told["pid"]), (&upgrade.into(), &node.pid().into()));
        assert_eq!(pids(&lab), before);
        assert_eq!(lab.tell("puppet-0", "os.getpid()"), before["puppet-0"]);
    }
    let open = descriptors(node.pid()).len();
    lab.done(&["upgrade"]);
    eventually("no descriptor is left over", || descriptors(node.pid()).len() <= open);
    lab.done(&["stop", "counts"]);
    assert_counted(&node.console);
}

/// Counts to itself on its standard output; half of each line is written before something may
/// happen, half after.
fn counts() -> String {
    let script = "i=0; while :; do i=$((i+1)); printf 'count '; sleep 0.001; echo $i; done";
    service("counts", &sh(script), "logs = { rate = 0 }")
}

/// Every line of `counts` came, once and in order.
fn assert_counted(console: &Output) {
    let lines = console.lines();
    let number =
        |line: &String| line.rsplit_once("count ")?.1.split_whitespace().next()?.parse().ok();
    let numbers: Vec<u64> = lines.iter().filter_map(number).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert!(numbers.len() > 10);
    assert_eq!(numbers, expected);
}

/// They are still our children: how they end is known.
#[test]
fn ends_after_an_upgrade_are_known_as_before() {
    let lab = Lab::new();
    let node = lab.node(&service("puppet", &lab.ready_puppet(), "readiness = \"notify\"")).up();
    lab.done(&["upgrade"]);
    lab.tell_last("puppet-0", "os._exit(42)");
    node.console.line("puppet-0 ended: exit code 42");
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let lab = Lab::new();
    let node = lab.node(&service("plain", &idle(), "")).up();
    let before = pids(&lab);
    let script = lab.file("mute", "#!/bin/sh\nexit 0\n", 0o755);
    let dies = lab.file("dies", "#!/bin/sh\necho broken >&2; exit 1\n", 0o755);
    let cases = [
        (script.to_str().unwrap(), "no blackhole-node that can"),
        (dies.to_str().unwrap(), "exit code 1: broken"),
        ("/no/such/file", "No such file"),
        ("/bin/sh", "cannot take our place"),
    ];
    for (program, why) in cases {
        let answer = lab.verb(&["upgrade", "--binary", program]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.err.contains(why), "{answer:?}");
    }
    assert_eq!((generation(&lab), pids(&lab)), (1.into(), before));
    assert_eq!(node.console.count("not upgraded"), cases.len());
}

/// Reliability 69, of the orchestrator: what `systemctl reload` does after a package was upgraded.
#[test]
fn a_reload_after_the_binary_was_replaced_upgrades_and_reads_the_configuration() {
    let lab = Lab::new();
    let services = service("plain", &idle(), "") + &service("changes", &idle(), "");
    let binary = copy(&lab);
    let node = lab.node(&services).from(&binary).up();
    let before = pids(&lab);
    lab.done(&["reload"]);
    assert_eq!(generation(&lab), 1);
    replace(&binary, Path::new(BINARY));
    let file = fs::read_to_string(lab.path("node.toml")).unwrap();
    fs::write(lab.path("node.toml"), "[node\n").unwrap();
    let refused = lab.verb(&["reload"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.err.contains("node.toml:1"), "{refused:?}");
    assert_eq!(generation(&lab), 1);
    let more = "[services.changes]\nenvironment = { A = \"b\" }";
    fs::write(lab.path("node.toml"), file.replace("[services.changes]", more)).unwrap();
    let told = lab.done(&["reload"]);
    assert!(told.starts_with("upgraded from"), "{told}");
    assert_eq!(
        (generation(&lab), lab.status()["node"]["pid"].clone()),
        (2.into(), node.pid().into())
    );
    eventually("what changed is started anew", || {
        pids(&lab).get("changes-0").is_some_and(|pid| *pid != before["changes-0"])
    });
    assert_eq!(pids(&lab)["plain-0"], before["plain-0"]);
    // Nothing was replaced since: a reload is a reload.
    lab.done(&["reload"]);
    assert_eq!(generation(&lab), 2);
}

/// The same program as another build: nothing but the build ID in its file differs.
fn other_build(lab: &Lab, build_id: &str) -> PathBuf {
    let digits = build_id.as_bytes().chunks_exact(2).map(|two| str::from_utf8(two).unwrap());
    let id: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
    let mut program = fs::read(BINARY).unwrap();
    let at = program.windows(id.len()).position(|bytes| *bytes == *id).unwrap();
    program[at] ^= 0xff;
    let path = lab.path("other-build");
    replace(&path, &lab.file("other-build.content", program, 0o644));
    path
}

/// Their number is the same, as that of two builds of one version is.
#[test]
fn status_tells_which_binary_a_built_in_service_runs() {
    let lab = Lab::new();
    let setup = lab.node(&service("plain", &idle(), "")).set("services.identity.enabled=true");
    let node = setup.up();
    let build_id = || lab.status()["node"]["build_id"].as_str().unwrap().to_owned();
    let (ours, version) = (build_id(), lab.status()["node"]["version"].clone());
    let binary = |build_id: &str, current: bool| {
        let expected =
            json!({ "version": version.clone(), "build_id": build_id, "current": current });
        assert_eq!(lab.instance("identity-0")["binary"], expected);
    };
    binary(&ours, true);
    assert_eq!(lab.instance("plain-0")["binary"], Value::Null);
    let other = other_build(&lab, &ours);
    let upgrade = |to: &Path| lab.done(&["upgrade", "--binary", to.to_str().unwrap()]);
    upgrade(&other);
    let theirs = build_id();
    assert_ne!(theirs, ours);
    binary(&ours, false);
    let told = lab.done(&["status"]);
    assert!(told.contains("another binary than the node's, until a restart: identity-0"), "{told}");
    let told = lab.done(&["status", "identity"]);
    assert!(told.contains(&format!("build {}; not that of the node", &ours[..12])), "{told}");
    // It is saved again by each that takes over.
    upgrade(Path::new(BINARY));
    binary(&ours, true);
    upgrade(&other);
    binary(&ours, false);
    lab.done(&["restart", "identity"]);
    binary(&theirs, true);
    assert!(!lab.done(&["status"]).contains("another binary"));
    assert_eq!(node.console.count("not understood"), 0);
}

#[test]
fn what_the_version_before_started_runs_a_binary_that_is_not_known() {
    let lab = Lab::new();
    let node = lab.node("").set("services.identity.enabled=true").from(&PREVIOUS).up();
    lab.done(&["upgrade", "--binary", BINARY]);
    let unknown = json!({ "version": null, "build_id": null, "current": null });
    assert_eq!(lab.instance("identity-0")["binary"], unknown);
    let told = lab.done(&["status"]);
    assert!(told.contains("unknown binary, until a restart: identity-0"), "{told}");
    lab.done(&["restart", "identity"]);
    assert_eq!(lab.instance("identity-0")["binary"]["current"], true);
    assert_eq!(node.console.count("not understood"), 0);
}

/// What of an instance two versions have to agree about.
fn standing(lab: &Lab) -> Vec<Value> {
    let mut status = lab.status();
    let all = status["instances"].as_array_mut().unwrap();
    let told = ["instance", "phase", "pid", "run", "restarts", "limits", "socket"];
    all.iter_mut().map(|one| told.iter().map(|key| one[*key].take()).collect()).collect()
}

fn services_of_all_kinds(lab: &Lab) -> String {
    let more = "readiness = \"notify\"\nfd_store_max = 4";
    service("puppet", &lab.ready_puppet(), more)
        + &service("plain", &idle(), "depends_on = [\"puppet\"]")
        + &service("many", &idle(), "instances = 3")
        + &service("rests", &sh("exit 0"), "restart_policy = \"on_failure\"")
        + &service("fails", &sh("exit 3"), "restart_policy = \"never\"")
}

/// What an operator and a service did before.
fn furnish(lab: &Lab) {
    lab.done(&["set-limits", "plain", "memory=64MiB", "tasks=70"]);
    lab.done(&["scale", "many", "4"]);
    lab.done(&["stop", "many-1"]);
    let store = "(ours := os.pipe(), os.write(ours[1], b'kept'), \
                 notify('FDSTORE=1', 'FDNAME=state', fds=[ours[0]]), sync())[1]";
    assert_eq!(lab.tell("puppet-0", store), 4);
    eventually("what ends has ended", || {
        lab.phase("rests-0") == "stopped" && lab.phase("fails-0") == "failed"
    });
}

fn assert_nothing_was_lost(lab: &Lab, node: &Node<'_>, before: &[Value]) {
    let now = standing(lab);
    assert_eq!(now, before, "{}", node.console.text());
    assert_eq!(lab.tell("puppet-0", "os.getpid()"), lab.pid("puppet-0"));
    assert_eq!(node.console.count("not understood"), 0);
    let degradations = lab.status()["node"]["degradations"].to_string();
    assert!(!degradations.contains("\"checkpoint\""), "{degradations}");
}

/// It has what it stored, in another process.
fn assert_stored(lab: &Lab) {
    lab.done(&["restart", "puppet"]);
    assert_eq!(lab.tell("puppet-0", "os.environ['LISTEN_FDNAMES']"), "socket:state");
    assert_eq!(lab.tell("puppet-0", "os.read(4, 9).decode()"), "kept");
}

#[test]
fn this_version_and_the_one_before_become_each_other_in_place() {
    let lab = Lab::new();
    let services = services_of_all_kinds(&lab) + &counts();
    let node = lab.node(&services).from(&PREVIOUS).up();
    furnish(&lab);
    let mut before = standing(&lab);
    for (number, next) in [Path::new(BINARY), &PREVIOUS].iter().cycle().take(5).enumerate() {
        lab.done(&["upgrade", "--binary", next.to_str().unwrap()]);
        assert_eq!(generation(&lab), number + 2);
        assert_nothing_was_lost(&lab, &node, &before);
        // What the next one is told is not what was told before.
        lab.done(&["restart", "plain"]);
        before = standing(&lab);
    }
    assert_stored(&lab);
    lab.done(&["stop", "counts"]);
    assert_counted(&node.console);
}

/// What the service manager keeps of the one, the other goes on from.
#[test]
fn this_version_and_the_one_before_follow_each_other_after_a_crash() {
    let lab = Lab::new();
    let binary = lab.path("blackhole-node");
    replace(&binary, &PREVIOUS);
    let services = services_of_all_kinds(&lab);
    let mut node = managed(&lab, lab.node(&services).from(&binary)).up();
    furnish(&lab);
    let mut before = standing(&lab);
    for next in [Path::new(BINARY), Path::new(BINARY), &PREVIOUS, &PREVIOUS, Path::new(BINARY)] {
        replace(&binary, next);
        succeed(&lab, &node);
        assert_nothing_was_lost(&lab, &node, &before);
        lab.done(&["restart", "plain"]);
        before = standing(&lab);
    }
    assert_stored(&lab);
    node.stop();
    let left = node.console.line("kept at the end");
    assert!(left.ends_with("[]"), "{left}");
}
