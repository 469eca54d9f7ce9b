//! The orchestrator becomes another program in place: what it runs does not notice. The real binary
//! with real children, and no service manager.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::processes::{descriptors, eventually};
use common::{BINARY, Lab, idle, service, sh};
use serde_json::Value;

fn pids(lab: &Lab) -> BTreeMap<String, i64> {
    let status = lab.status();
    let all = status["instances"].as_array().unwrap().iter();
    all.filter_map(|one| Some((one["instance"].as_str()?.to_owned(), one["pid"].as_i64()?)))
        .collect()
}

fn generation(lab: &Lab) -> Value {
    lab.status()["node"]["generation"].clone()
}

/// A file of the binary that can be replaced, as a package does it.
fn copy(lab: &Lab) -> PathBuf {
    let path = lab.path("blackhole-node");
    replace(&path);
    path
}

fn replace(path: &Path) {
    let fresh = path.with_extension("new");
    fs::copy(BINARY, &fresh).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[test]
fn services_sockets_and_logs_do_not_notice_an_upgrade() {
    let lab = Lab::new();
    // Half of each line is written before an upgrade may come, half after.
    let counts = sh("i=0; while :; do i=$((i+1)); printf 'count '; sleep 0.001; echo $i; done");
    let services = service("puppet", &lab.ready_puppet(), "readiness = \"notify\"")
        + &service("counts", &counts, "logs = { rate = 0 }");
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
    let numbers: Vec<u64> = node
        .console
        .lines()
        .iter()
        .filter_map(|line| line.rsplit_once("count ")?.1.split_whitespace().next()?.parse().ok())
        .collect();
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
    replace(&binary);
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
