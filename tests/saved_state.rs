//! What the service manager keeps of the node's state is not what was written: something in it is
//! of another version, is missing, or is damaged. Nobody who is served notices, and it is named.
//! And what is told after a crash of what was before it. The real binary with real children.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use blackhole_node::act::frame;
use blackhole_node::rpc::pb::node::Checkpoint;
use common::managed::{managed, orchestrator, pids, succeed};
use common::processes::{eventually, kill_dead, signal};
use common::{Lab, Node, idle, service, sh};
use prost::Message;
use rustix::process::Signal;
use serde_json::Value;

/// Of the frame around a state. A JSON object is the form of the version before.
const BEGINNING: &[u8] = b"BHSTATE\0";

/// The memory that the manager keeps, as files that can be written to: of the state, and of the
/// same for the version before.
fn kept(node: &Node<'_>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let folder = format!("/proc/{}/fd", node.pid());
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_checkpoints = all.filter(|path| {
        fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:checkpoint"))
    });
    of_checkpoints.partition(|path| fs::read(path).unwrap().starts_with(BEGINNING))
}

fn message(path: &PathBuf) -> Checkpoint {
    let bytes = fs::read(path).unwrap();
    Checkpoint::decode(frame::unwrap(&bytes).unwrap().1).unwrap()
}

fn write(path: &PathBuf, message: &Checkpoint, more: &[u8]) {
    let content = [message.encode_to_vec().as_slice(), more].concat();
    fs::write(path, frame::wrap(1, &content)).unwrap();
}

fn flip_a_byte(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

fn of_the_newest(state: &[PathBuf]) -> &PathBuf {
    state.iter().max_by_key(|path| message(path).sequence).unwrap()
}

type Spoil = fn(&(Vec<PathBuf>, Vec<PathBuf>));

/// What is done to it, and how it is named.
const SPOILT: [(&str, Spoil); 6] = [
    // Field 1000, a string.
    ("in fields that this version has not", |(state, _)| {
        for path in state {
            write(path, &message(path), &[0xc2, 0x3e, 3, b'n', b'e', b'w']);
        }
    }),
    ("its phase is not known; a run of it counts as ready", |(state, _)| {
        for path in state {
            let mut message = message(path);
            for instance in &mut message.instances {
                (instance.phase, instance.rules, instance.wanted) = (None, None, 0);
            }
            write(path, &message, &[]);
        }
    }),
    ("it has no beginning of its clock", |(state, json)| {
        // Where one tells it, that is the newest.
        json.iter().for_each(|path| fs::write(path, "").unwrap());
        for path in state {
            let mut message = message(path);
            (message.began_at_ns, message.boot_id, message.goal) = (None, None, 0);
            write(path, &message, &[]);
        }
    }),
    ("its bytes do not have their checksum", |(state, _)| flip_a_byte(of_the_newest(state))),
    ("what was saved last may be lost", |(state, json)| {
        flip_a_byte(of_the_newest(state));
        json.iter().for_each(|path| fs::write(path, "").unwrap());
    }),
    ("it is damaged: it is empty", |(state, json)| {
        state.iter().chain(json).for_each(|path| fs::write(path, "").unwrap());
    }),
];

fn degradation(lab: &Lab) -> Option<String> {
    let status = lab.status();
    let all = status["node"]["degradations"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == "checkpoint")?;
    Some(found["missing"].as_str().unwrap().to_owned())
}

fn restarts(lab: &Lab) -> BTreeMap<String, Value> {
    let mut status = lab.status();
    let all = status["instances"].as_array_mut().unwrap().iter_mut();
    all.map(|one| (one["instance"].as_str().unwrap().to_owned(), one["restarts"].take())).collect()
}

/// A start timeout that is over long before the test is: who is ready would be ended by it if it
/// were taken for one that is starting.
#[test]
fn nothing_in_a_state_ends_a_service() {
    let lab = Lab::new();
    let more = "readiness = \"notify\"\nstart_timeout = \"1s\"";
    let services = service("puppet", &lab.ready_puppet(), more)
        + &service("many", &idle(), "instances = 2")
        + &service("plain", &idle(), "depends_on = [\"puppet\"]");
    let mut node = managed(&lab, lab.node(&services)).up();
    lab.done(&["scale", "many", "3"]);
    let before = pids(&lab);
    assert_eq!(before.len(), 5);
    for (named, spoil) in SPOILT {
        // It has written both of its slots, and no more comes.
        lab.done(&["restart", "plain"]);
        let before = pids(&lab);
        let former = orchestrator(&lab);
        signal(former, Signal::STOP);
        let kept = kept(&node);
        assert_eq!((kept.0.len(), kept.1.len()), (2, 2));
        spoil(&kept);
        let came = node.console.count("after the start");
        kill_dead(former);
        eventually("the next one came up", || node.console.count("after the start") > came);
        assert_eq!(pids(&lab), before, "{named}\n{}", node.console.text());
        let missing = degradation(&lab).unwrap_or_else(|| panic!("{named}: nothing is named"));
        assert!(missing.contains(named), "{missing}");
        node.console.line(&format!("without checkpoint: {missing}"));
        // What it wrote itself is whole.
        succeed(&lab, &node);
        assert_eq!((pids(&lab), degradation(&lab)), (before, None));
        assert!(restarts(&lab).values().all(|count| *count == 0));
    }
    let now = pids(&lab);
    let unlike = before.iter().filter(|(name, pid)| now[*name] != **pid);
    assert_eq!(unlike.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["plain-0"]);
    node.stop();
    let left = node.console.line("kept at the end");
    assert!(left.ends_with("[]"), "{left}");
}

/// Starts the program of its further arguments as one that rehearses, with the state in a file.
const REHEARSES: &str = r#"
import os, sys
memory = os.memfd_create("checkpoint")
os.write(memory, open(sys.argv[1], "rb").read())
if memory != 3:
    os.dup2(memory, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="state.0",
                  BLACKHOLE_REHEARSAL="1")
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Here somebody stands ready who can go on: a state that cannot be read is refused, and one of
/// which not all is known is not.
#[test]
fn a_program_that_rehearses_refuses_only_a_state_that_it_cannot_read() {
    let lab = Lab::new();
    let script = lab.file("rehearses.py", REHEARSES, 0o644);
    let rehearse = |state: &[u8]| {
        let state = lab.file("state", state, 0o644);
        let words = ["-IS", script.to_str().unwrap(), state.to_str().unwrap()];
        let setup = lab.node(&service("plain", &idle(), ""));
        let mut rehearsing = setup.under("/usr/bin/python3", words).start();
        (rehearsing.end().code(), rehearsing.console.text())
    };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let message = Checkpoint { boot_id: Some(boot_id.trim().to_owned()), ..Checkpoint::default() };
    let content = [message.encode_to_vec().as_slice(), &[0xc2, 0x3e, 1, b'x']].concat();
    let (code, said) = rehearse(&frame::wrap(1, &content));
    assert!(code == Some(0) && said.contains("can go on: blackhole-node"), "{code:?} {said}");
    let mut damaged = frame::wrap(1, &content);
    damaged[frame::HEADER] ^= 1;
    let cases = [
        (frame::wrap(2, &content), "form 2, which this version does not read"),
        (damaged, "its bytes do not have their checksum"),
        (Vec::new(), "it is empty"),
    ];
    for (state, why) in cases {
        let (code, said) = rehearse(&state);
        assert!(code != Some(0) && said.contains(why), "{code:?} {said}");
    }
}

#[test]
fn what_happened_before_a_crash_is_told_after_it() {
    let lab = Lab::new();
    let services = service("puppet", &lab.ready_puppet(), "readiness = \"notify\"")
        + &service("crashes", &sh("exit 7"), "max_restarts = 2");
    let node = managed(&lab, lab.node(&services)).up();
    lab.tell_last("puppet-0", "os._exit(42)");
    node.console.nth_line(2, "puppet-0 ready in");
    node.console.line("crashes-0 failed");
    let why = |name: &str| -> Value {
        let told: Value = serde_json::from_str(&lab.done(&["why", name, "--json"])).unwrap();
        told["instances"][0]["happenings"].clone()
    };
    let before = (why("puppet"), why("crashes"));
    assert!(before.0.to_string().contains("ended: exit code 42"), "{before:?}");
    assert!(before.1.to_string().contains("ended: exit code 7"), "{before:?}");
    for _ in 0..3 {
        succeed(&lab, &node);
        assert_eq!((why("puppet"), why("crashes")), before);
    }
    lab.done(&["upgrade"]);
    assert_eq!((why("puppet"), why("crashes")), before);
    lab.done(&["restart", "puppet"]);
    let after = why("puppet");
    succeed(&lab, &node);
    assert_eq!(why("puppet"), after);
    assert!(after.as_array().unwrap().len() > before.0.as_array().unwrap().len());
}
