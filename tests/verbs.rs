//! What the operator types and reads: the verbs against a running node, the console, and what is
//! said when there is no node or no configuration. The real binary with real children.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::Path;

use common::{Background, Lab, Pid, eventually, idle, processes, service, sh};
use rustix::process::Signal;
use serde_json::Value;

const NOTIFY: &str = "readiness = \"notify\"";

#[test]
fn status_shows_the_node_and_its_exit_code_tells_of_one_service() {
    let lab = Lab::new();
    let services = service("web", &idle(), "")
        + &service("once", &sh("exit 4"), "restart_policy = \"never\"")
        + &service("off", &idle(), "enabled = false");
    let node = lab.node(&services).up();
    node.console.line("once-0 failed");
    let table = lab.done(&["status"]);
    for part in ["node bench  degraded", "SERVICE", "web-0", "once-0: exit code 4 after "] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(table.contains("disabled: gateway, identity, ledger, off, storage"), "{table}");
    let code = |name: &str| lab.verb(&["status", name]).code;
    assert_eq!([code("web"), code("web-0")], [Some(0), Some(0)]);
    assert_eq!([code("once"), code("off")], [Some(3), Some(3)]);
    assert_eq!([code("nobody"), code("web-1")], [Some(4), Some(4)]);
    let unknown = lab.verb(&["status", "nobody"]);
    assert_eq!((unknown.out.as_str(), unknown.err.lines().count()), ("", 1), "{unknown:?}");
    assert!(unknown.err.contains("nobody") && unknown.err.contains("web"), "{unknown:?}");
    let status = lab.status();
    assert_eq!(status["node"]["pid"], node.pid());
    assert_eq!(status["instances"].as_array().unwrap().len(), 2);
}

#[test]
fn without_a_node_every_verb_says_so_in_one_line() {
    let lab = Lab::new();
    let verbs: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["start", "web"],
        &["stop"],
        &["restart", "web"],
        &["logs", "-f"],
    ];
    for verb in verbs {
        let answer = lab.verb(verb);
        assert_eq!((answer.code, answer.out.as_str()), (Some(69), ""), "{verb:?}: {answer:?}");
        assert_eq!(answer.err.lines().count(), 1, "{answer:?}");
        assert!(answer.err.contains("no node is running at"), "{answer:?}");
    }
}

#[test]
fn stop_start_and_restart_return_when_it_is_so() {
    let lab = Lab::new();
    let ready = lab.ready_puppet();
    let services = service("web", &ready, &format!("{NOTIFY}\ninstances = 2"))
        + &service("user", &ready, &format!("{NOTIFY}\ndepends_on = [\"web\"]"));
    let _node = lab.node(&services).up();
    assert_eq!(lab.done(&["stop", "web", "user"]).lines().count(), 3);
    assert!(lab.processes().is_empty());
    assert_eq!(lab.phase("web-1"), "stopped");
    // What it needs is started with it.
    let told = lab.done(&["start", "user"]);
    assert!(told.starts_with("user-0 ready (pid "), "{told}");
    assert_eq!((lab.phase("web-0"), lab.phase("web-1")), ("ready".into(), "ready".into()));
    let (before, other) = (lab.pid("web-0"), lab.pid("web-1"));
    let told = lab.done(&["restart", "web-0"]);
    assert_eq!(told, format!("web-0 ready (pid {})", lab.pid("web-0")));
    assert_ne!(lab.pid("web-0"), before);
    assert_eq!(lab.pid("web-1"), other);
    assert_eq!(lab.done(&["stop", "web-1"]), "web-1 stopped");
    assert_eq!(lab.done(&["stop", "web-1"]), "web-1 stopped");
}

#[test]
fn a_verb_about_a_service_that_fails_tells_why() {
    let lab = Lab::new();
    let bad = sh("[ -e good ] || exit 9; exec sleep 1000000");
    let more = "restart_policy = \"never\"\nreadiness = \"port\"\nready_port = 1";
    let _node = lab.node(&service("bad", &bad, more)).up();
    let answer = lab.verb(&["start", "bad"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{answer:?}");
    assert!(answer.err.starts_with("bad-0 failed: exit code 9 after "), "{answer:?}");
}

#[test]
fn a_verb_about_nobody_does_nothing_to_the_others() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    let pid = lab.pid("web-0");
    for verb in ["start", "stop", "restart"] {
        let answer = lab.verb(&[verb, "web", "nobody"]);
        assert_eq!(answer.code, Some(4), "{answer:?}");
        assert!(answer.err.contains("nobody"), "{answer:?}");
    }
    assert_eq!((lab.pid("web-0"), lab.phase("web-0").as_str()), (pid, "ready"));
    let answer = lab.verb(&["restart", "identity"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.err.contains("identity is disabled"), "{answer:?}");
}

#[test]
fn stop_ends_the_node_and_takes_its_sockets_away() {
    let lab = Lab::new();
    let mut node = lab.node(&service("web", &idle(), "")).up();
    let told = lab.done(&["stop"]);
    assert_eq!(told, format!("stopping node bench (pid {})", node.pid()));
    // The verb came back, so the process is gone and everything of it.
    assert!(!lab.path("run/control.sock").exists() && !lab.socket("web-0").exists());
    assert_eq!(node.end().code(), Some(0));
    assert_eq!(lab.verb(&["status"]).code, Some(69));
}

#[test]
fn logs_show_the_newest_lines_of_one_service_or_of_all() {
    let lab = Lab::new();
    let talks = sh("for i in $(seq 20); do echo spoken $i; done; echo odd >&2; exec sleep 1000000");
    let node = lab.node(&(service("talks", &talks, "") + &service("mute", &idle(), ""))).up();
    node.console.line("odd");
    node.console.line("spoken 20");
    let all = lab.done(&["logs", "talks"]);
    assert_eq!(all.lines().count(), 21, "{all}");
    let newest = lab.done(&["logs", "talks", "-n", "3"]);
    assert_eq!(newest.lines().count(), 3, "{newest}");
    assert_eq!(lab.done(&["logs", "mute"]), "");
    assert!(lab.done(&["logs", "node"]).contains("talks-0 ready in"));
    assert_eq!(lab.done(&["logs", "talks", "--since", "1h"]), all);
    assert_eq!(lab.done(&["logs", "talks", "--since", "2100-01-01T00:00:00Z"]), "");
    let json = lab.done(&["logs", "talks-0", "--json"]);
    let records: Vec<Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let spoken: Vec<&Value> = records.iter().filter(|one| one["stream"] == "stdout").collect();
    assert_eq!(spoken.len(), 20);
    assert_eq!(spoken[19]["message"], "spoken 20");
    let run = &lab.instance("talks-0")["run"];
    assert_eq!((&spoken[0]["service"], &spoken[0]["run"]), (&"talks".into(), run));
    let unknown = lab.verb(&["logs", "nobody"]);
    assert_eq!((unknown.code, unknown.err.lines().count()), (Some(4), 1), "{unknown:?}");
}

#[test]
fn followed_logs_show_later_lines_until_the_node_ends() {
    let lab = Lab::new();
    let mut node = lab.node(&service("web", &lab.ready_puppet(), NOTIFY)).up();
    lab.tell("web-0", "print('before', flush=True)");
    node.console.line("before");
    let mut command = lab.binary();
    command.args(["logs", "web", "-f"]);
    let mut follower = Background::start(command);
    follower.output.line("before");
    lab.tell("web-0", "print('after', flush=True)");
    follower.output.line("after");
    node.stop();
    assert_eq!(follower.end(), Some(69));
    follower.output.line("stderr: the node at ");
}

#[test]
fn configuration_errors_are_told_with_their_places_and_nothing_is_started() {
    let lab = Lab::new();
    let wrong = "[services.web]\ncommand = \"sleep\"\nrestart_policy = \"sometimes\"\n";
    lab.file("node.toml", wrong, 0o644);
    let answer = lab.verb(&["run"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(78), ""), "{answer:?}");
    let file = lab.path("node.toml").display().to_string();
    assert!(answer.err.contains(&format!("{file}:2:11: ")), "{answer:?}");
    assert!(answer.err.contains(&format!("{file}:3:18: ")), "{answer:?}");
    assert!(!lab.runtime_dir().exists() && !lab.path("data").exists());
    let check = lab.verb(&["config", "check"]);
    assert_eq!((check.code, check.err), (Some(78), answer.err));
    fs::remove_file(lab.path("node.toml")).unwrap();
    let missing = lab.verb(&["run"]);
    assert_eq!(missing.code, Some(78), "{missing:?}");
    assert!(missing.err.contains(&file) && missing.err.contains("No such file"), "{missing:?}");
}

#[test]
fn a_wrong_set_is_told_and_nothing_is_started() {
    let lab = Lab::new();
    lab.file("node.toml", "", 0o644);
    let answer = lab.verb(&["run", "--set", "monitoring.log_levle=debug"]);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("--set monitoring.log_levle"), "{answer:?}");
    assert!(answer.err.contains("log_level"), "what was meant: {answer:?}");
    assert!(!lab.runtime_dir().exists());
    assert_eq!(lab.verb(&["run", "--set", "nonsense"]).code, Some(2));
    assert_eq!(lab.verb(&["status", "--set", "node.name=x"]).code, Some(2));
    assert_eq!(lab.verb(&["dance"]).code, Some(2));
}

#[test]
fn two_nodes_live_side_by_side() {
    let (one, other) = (Lab::new(), Lab::new());
    let services = service("web", &idle(), "");
    let mut first = one.node(&services).set("node.name=first").up();
    let _second = other.node(&services).set("node.name=second").up();
    assert_eq!(one.status()["node"]["name"], "first");
    assert_eq!(other.status()["node"]["name"], "second");
    let bystander = other.pid("web-0");
    first.stop();
    assert_eq!((other.pid("web-0"), other.phase("web-0").as_str()), (bystander, "ready"));
}

#[test]
fn what_the_binary_tells_of_itself_needs_no_node() {
    let lab = Lab::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(lab.done(&["version"]), format!("blackhole-node {version}"));
    let json: Value = serde_json::from_str(&lab.done(&["version", "--json"])).unwrap();
    assert_eq!(json["version"], version);
    for shell in ["bash", "zsh", "fish"] {
        assert!(lab.done(&["completions", shell]).contains("restart"));
    }
    assert!(lab.done(&["man"]).contains(".TH blackhole-node 1"));
    let pages = lab.path("man").display().to_string();
    lab.done(&["man", "--output", &pages]);
    assert!(lab.path("man/blackhole-node-status.1").exists());
    // Without a configuration that could be read.
    let schema: Value = serde_json::from_str(&lab.done(&["config", "schema"])).unwrap();
    assert_eq!(schema["properties"]["api"]["properties"]["http_port"]["maximum"], 65535);
    assert!(lab.done(&["--help"]).contains("Exit codes:"));
}

#[test]
fn a_journal_that_is_asked_for_and_not_there_is_missed_by_name() {
    if Path::new("/run/systemd/journal/socket").exists() {
        eprintln!("skipped: journald is there");
        return;
    }
    let lab = Lab::new();
    let said = |degradations: &Value| {
        let named = degradations.as_array().unwrap().iter();
        named.filter(|one| one["name"] == "journald").count()
    };
    for (target, missed) in [("journald", 1), ("auto", 1), ("console", 0)] {
        let setup = lab.node(&service("web", &idle(), ""));
        let node = setup.set(&format!("monitoring.log_target={target}")).up();
        assert_eq!(said(&lab.status()["node"]["degradations"]), missed, "{target}");
        let line = "without journald: connect to /run/systemd/journal/socket";
        assert_eq!(node.console.text().contains(line), missed == 1, "{target}");
    }
}

/// Reliability 56, 58: bytes of any kind are text, and a service cannot speak in another's name.
#[test]
fn the_json_console_has_one_object_a_line_with_true_origins() {
    let lab = Lab::new();
    let talks = lab.python(
        "talks.py",
        r#"
import os, time
os.write(1, b'plain\n')
os.write(1, b'{"message":"forged","service":"node","pid":1,"level":"warn","size":7}\n')
os.write(1, b'{"message":"new\\nline"}\n')
os.write(1, b'not utf-8 \xff \x1b[31m red \x00\n')
os.write(1, b'the end')
os.close(1)
time.sleep(1000000)
"#,
    );
    let mut node = lab.node(&service("talks", &talks, "")).set("monitoring.log_format=json").up();
    node.console.line("the end");
    let pid = lab.pid("talks-0");
    node.signal(Signal::TERM);
    node.end();
    let records: Vec<Value> = node
        .console
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for record in &records {
        let object = record.as_object().unwrap();
        for key in ["timestamp", "node_id", "service", "pid", "level", "message", "fields"] {
            assert!(object.contains_key(key), "{key}: {record}");
        }
        assert_eq!(record["node_id"], "bench");
        assert!(record["fields"].is_object() && record["message"].is_string(), "{record}");
    }
    let said: Vec<&Value> = records.iter().filter(|one| one["service"] == "talks").collect();
    assert!(said.iter().all(|one| one["pid"] == pid && one["instance"] == "talks-0"));
    let messages: Vec<&str> = said.iter().map(|one| one["message"].as_str().unwrap()).collect();
    let odd = "not utf-8 \u{fffd} \u{1b}[31m red \0";
    assert_eq!(messages, ["plain", "forged", "new\nline", odd, "the end"]);
    assert_eq!((&said[1]["level"], &said[1]["fields"]["size"]), (&"warn".into(), &7.into()));
}

/// Reliability 55: every line is kept or counted, and the quiet neighbour loses none.
#[test]
fn a_flood_over_the_rate_is_counted_to_the_line() {
    const LINES: usize = 50_000;
    let lab = Lab::new();
    let flood = lab.python(
        "flood.py",
        "import sys\nsys.stdout.write(''.join(f'wave {n}\\n' for n in range(50_000)))\n",
    );
    let quiet = sh("for i in $(seq 1000); do echo calm $i; done; exec sleep 1000000");
    let limited = "restart_policy = \"never\"\nlogs = { rate = 1000, burst = 500 }";
    let services = service("flood", &flood, limited) + &service("quiet", &quiet, "");
    let node = lab.node(&services).up();
    let (mut kept, mut dropped) = (0, 0);
    node.console.wait("all lines of the flood, kept or counted", |line| {
        if line.contains("flood-0         wave ") {
            kept += 1;
        } else if let Some((before, _)) = line.split_once(" lines dropped by the rate limit") {
            let count = before.rsplit(' ').next().and_then(|word| word.parse::<usize>().ok());
            dropped += count.expect("a number of lines");
        }
        assert!(kept + dropped <= LINES, "{kept} kept and {dropped} dropped");
        (kept + dropped == LINES).then_some(())
    });
    assert!(kept >= 500 && dropped > 0, "{kept} kept and {dropped} dropped");
    assert_eq!(lab.instance("flood-0")["log_lines_dropped"], dropped);
    node.console.line("calm 1000");
    assert_eq!(node.console.count("quiet-0         calm "), 1000);
    assert_eq!(lab.instance("quiet-0")["log_lines_dropped"], 0);
}

/// Reliability 55: what has no end of line is cut, memory stays bounded, and the quiet neighbour
/// loses no line.
#[test]
fn output_without_line_ends_takes_no_memory_without_bound() {
    let lab = Lab::new();
    let flood = lab.python(
        "flood.py",
        "import os\n\
         for _ in range(1000): os.write(1, b'x' * 100_000)\n\
         os.write(1, b'\\nthe end\\n')\n",
    );
    let quiet = lab.python(
        "quiet.py",
        "import time\n\
         for n in range(1, 1001): print('calm', n, flush=True) or time.sleep(0.001)\n\
         time.sleep(1000000)\n",
    );
    let services =
        service("flood", &flood, "restart_policy = \"never\"") + &service("quiet", &quiet, "");
    let mut command = lab.binary();
    lab.node(&services);
    command.stdout(File::options().write(true).open("/dev/null").unwrap());
    let mut node = Background::without_output(command);
    eventually("the flood is over", || {
        lab.verb(&["logs", "flood", "-n", "1"]).out.ends_with("  the end")
    });
    let pid = lab.status()["node"]["pid"].as_i64().unwrap();
    let peak = processes::status_field(Pid::try_from(pid).unwrap(), "VmHWM");
    let kib: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 96 * 1024, "{kib} KiB at the most, of 100 MB that were written");
    let parts = lab.done(&["logs", "flood", "--json"]);
    assert!(parts.contains("\"continues\":true"), "{:.2000}", parts);
    eventually("the neighbour has said it all", || {
        lab.done(&["logs", "quiet", "-n", "1"]).ends_with("  calm 1000")
    });
    assert_eq!(lab.done(&["logs", "quiet"]).matches("  calm ").count(), 1000);
    lab.done(&["stop"]);
    assert_eq!(node.end(), Some(0));
}

/// A full disk behind the console costs its lines, not the services.
#[test]
fn a_console_that_takes_nothing_does_not_end_the_node() {
    let lab = Lab::new();
    lab.node(&service("web", &lab.ready_puppet(), NOTIFY));
    let mut command = lab.binary();
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let mut node = Background::without_output(command);
    eventually("the service is ready", || lab.verb(&["status", "web"]).code == Some(0));
    lab.tell("web-0", "print('unheard', flush=True)");
    eventually("the line is kept", || lab.done(&["logs", "web"]).contains("unheard"));
    lab.done(&["stop"]);
    assert_eq!(node.end(), Some(0));
}
