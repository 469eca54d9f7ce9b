//! What the unit does when the orchestrator has ended: services live on after a crash and not after
//! a wanted stop. The real binary with real children, as a service manager would call it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::processes::{ends, runs};
use common::{Lab, Pid, Responder, idle, service, sh};
use rustix::process::Signal;
use std::time::Duration;

const WHILE: Duration = Duration::from_secs(30);

fn after_stop(lab: &Lab, result: &str, exit_status: &str) -> Responder {
    let mut command = lab.binary();
    command.env("SERVICE_RESULT", result).env("EXIT_STATUS", exit_status).arg("after-stop");
    Responder::of(command)
}

#[test]
fn services_live_on_after_a_crash_and_not_after_a_wanted_stop() {
    let lab = Lab::new();
    let forks = sh("(setsid sleep 1000000 &) ; exec sleep 1000000");
    let services = service("web", &idle(), "") + &service("forks", &forks, "");
    let mut node = lab.node(&services).up();
    let web = lab.pid("web-0");
    node.kill();
    let left = lab.processes();
    assert!(left.contains(&web) && left.len() >= 2, "{left:?}");

    let crashed = after_stop(&lab, "signal", "KILL");
    assert_eq!(crashed.code, Some(0), "{crashed:?}");
    assert!(crashed.err.contains("live on (signal)"), "{crashed:?}");
    assert!(left.iter().all(|pid| runs(*pid)));

    let wanted = after_stop(&lab, "success", "0");
    assert_eq!(wanted.code, Some(0), "{wanted:?}");
    assert!(wanted.err.contains("nothing lives on"), "{wanted:?}");
    assert!(left.iter().all(|pid| ends(*pid, WHILE)));
    assert_eq!(lab.processes(), Vec::<Pid>::new());
    let next = lab.node(&services).up();
    let cleared = next.console.lines().into_iter().find(|line| line.contains("cleared what"));
    assert!(cleared.is_none_or(|line| line.contains(": 0 processes, ")), "only empty groups");
}

#[test]
fn a_stop_that_had_begun_was_wanted_however_it_ended() {
    let lab = Lab::new();
    let deaf = sh("trap '' TERM; echo deaf; while :; do sleep 1000000; done");
    let services = service("deaf", &deaf, "stop_timeout = \"1h\"");
    let mut node = lab.node(&services).up();
    node.console.line("deaf-0");
    let deaf = lab.pid("deaf-0");
    node.signal(Signal::TERM);
    node.console.line("stopping, dependants first");
    node.kill();
    assert!(runs(deaf));
    let answer = after_stop(&lab, "timeout", "KILL");
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(ends(deaf, WHILE), "{answer:?}");

    // The mark is of one life only.
    let mut node = lab.node(&services).up();
    let deaf = lab.pid("deaf-0");
    node.kill();
    assert!(after_stop(&lab, "signal", "KILL").err.contains("live on"));
    assert!(runs(deaf));
    let next = lab.node(&service("web", &idle(), "")).up();
    next.console.line("cleared what an earlier node left: ");
}

#[test]
fn it_does_nothing_where_no_service_manager_asks_or_another_node_runs() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    let web = lab.pid("web-0");
    let by_hand = lab.verb(&["after-stop"]);
    assert_eq!(by_hand.code, Some(1), "{by_hand:?}");
    assert!(by_hand.err.contains("ExecStopPost="), "{by_hand:?}");
    let of_another = after_stop(&lab, "exit-code", "78");
    assert_eq!(of_another.code, Some(1), "{of_another:?}");
    assert!(of_another.err.contains("is locked by"), "{of_another:?}");
    assert!(runs(web));
    assert!(!lab.done(&["--help"]).contains("after-stop"));
}
