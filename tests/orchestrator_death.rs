//! The orchestrator dies, or is started twice: the next one begins clean, and the first one of two
//! is not disturbed. The real binary with real children.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::processes::runs;
use common::{Lab, Node, Pid, command, idle, service, sh};
use rustix::process::Signal;

/// How often the orchestrator is killed, when `DEATHS` says nothing else.
const DEATHS: u64 = 240;

/// Replayed with `DEATH_SEED=N`.
fn seed() -> u64 {
    let seed = number_from("DEATH_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 17 | 1);
    println!("DEATH_SEED={seed}");
    seed
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
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

    fn moment(&mut self, node: &Node<'_>, micros: u64) {
        node.console.let_pass(Duration::from_micros(self.below(micros)));
    }
}

fn three_services() -> String {
    let forks =
        sh("(setsid sleep 1000000 &) ; (setsid sleep 1000000 </dev/null >/dev/null 2>&1 &)\n\
                    exec sleep 1000000");
    let deaf = sh("trap '' TERM; while :; do sleep 1000000; done");
    service("plain", &idle(), "")
        + &service("forks", &forks, "depends_on = [\"plain\"]")
        + &service("deaf", &deaf, "stop_timeout = \"30ms\"")
}

/// Reliability 26, 27: as the node starts, runs, stops and reloads.
#[test]
fn the_next_start_ends_what_a_killed_orchestrator_left_and_comes_up() {
    let lab = Lab::new();
    let services = three_services();
    let mut chance = Rng(seed());
    for death in 0..number_from("DEATHS").unwrap_or(DEATHS) {
        let left = lab.processes();
        let mut node = lab.node(&services).start();
        if death % 4 == 0 {
            chance.moment(&node, 30_000);
            node.kill();
            continue;
        }
        node.console.line("ready: 3 of 3 instances ready");
        let survivors: Vec<&Pid> = left.iter().filter(|pid| runs(**pid)).collect();
        assert!(survivors.is_empty(), "death {death}: {survivors:?}\n{}", node.console.text());
        match death % 4 {
            1 => chance.moment(&node, 5_000),
            2 => {
                // The death before this one was that of a node in full work.
                assert!(!left.is_empty());
                node.console.line("cleared what an earlier node left");
                node.signal(Signal::TERM);
                chance.moment(&node, 60_000);
            }
            _ => {
                let more = services.replace("30ms", "40ms") + &service("extra", &idle(), "");
                let _only_its_file = lab.node(&more);
                node.signal(Signal::HUP);
                chance.moment(&node, 60_000);
            }
        }
        node.kill();
    }
    let left = lab.processes();
    let _node = lab.node(&services).up();
    for instance in ["plain-0", "forks-0", "deaf-0"] {
        assert!(!left.contains(&lab.pid(instance)));
    }
}

/// What is written of the sweep is what was there.
#[test]
fn the_next_start_says_what_it_cleared() {
    let lab = Lab::new();
    let services = service("forks", &lab.ready_puppet(), "readiness = \"notify\"");
    let mut first = lab.node(&services).up();
    let daemon = Pid::try_from(lab.tell("forks-0", "daemon()").as_i64().unwrap()).unwrap();
    let main = lab.pid("forks-0");
    first.kill();
    assert!(runs(daemon) && runs(main), "only the orchestrator died");
    let second = lab.node(&services).up();
    assert!(!runs(daemon) && !runs(main));
    let said = second.console.line("cleared what an earlier node left: 2 processes");
    assert!(said.ends_with("2 sockets"), "{said}");
    assert_ne!(lab.pid("forks-0"), main);
}

/// Reliability 36.
#[test]
fn a_second_orchestrator_ends_with_75_and_names_the_first() {
    let lab = Lab::new();
    let node = lab.node(&service("web", &idle(), "")).up();
    let web = lab.pid("web-0");
    let second = lab.verb(&["run"]);
    assert_eq!(second.code, Some(75), "{second:?}");
    assert_eq!((second.err.lines().count(), second.out.as_str()), (1, ""), "{second:?}");
    assert!(second.err.contains(&format!("(pid {})", node.pid())), "{second:?}");
    assert_eq!((lab.pid("web-0"), lab.phase("web-0").as_str()), (web, "ready"));
}

/// Reliability 36: one of the two folders is enough.
#[test]
fn a_second_orchestrator_on_the_same_data_ends_with_75_too() {
    let lab = Lab::new();
    let node = lab.node(&service("web", &idle(), "")).up();
    let web = lab.pid("web-0");
    let elsewhere = lab.path("elsewhere").display().to_string();
    let second = lab.verb_in(&elsewhere, &["run"]);
    assert_eq!(second.code, Some(75), "{second:?}");
    assert!(second.err.contains(&format!("(pid {})", node.pid())), "{second:?}");
    assert!(second.err.contains(&lab.path("data").display().to_string()), "{second:?}");
    assert_eq!((lab.pid("web-0"), lab.phase("web-0").as_str()), (web, "ready"));
}

/// Its groups are there already when the control socket turns out to be none: `Lab` asks for them.
#[test]
fn a_node_that_does_not_come_up_leaves_no_group_behind() {
    let lab = Lab::new();
    let _configured = lab.node(&service("web", &idle(), ""));
    std::fs::create_dir_all(lab.runtime_dir().join("control.sock")).unwrap();
    let answer = lab.verb(&["run"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.err.contains("control.sock"), "{answer:?}");
}

/// A node is told by its runtime folder from another on the same machine.
#[test]
fn the_sweep_leaves_the_processes_of_another_node_alone() {
    let (one, other) = (Lab::new(), Lab::new());
    let services = service("web", &command(["sleep", "1000000"]), "");
    let _other = other.node(&services).up();
    let bystander = other.pid("web-0");
    let mut node = one.node(&services).up();
    node.kill();
    let _next = one.node(&services).up();
    assert_eq!((other.pid("web-0"), other.phase("web-0").as_str()), (bystander, "ready"));
}
