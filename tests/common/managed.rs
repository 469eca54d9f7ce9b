//! A node below a service manager that is a program of the test: it keeps the node's descriptors
//! and starts it again when it was killed.

use std::collections::BTreeMap;

use super::processes::{eventually, kill_dead};
use super::{Lab, Node, Pid, Setup};

const MANAGER: &str = include_str!("manager.py");

/// The node below a manager.
pub fn managed<'a>(lab: &'a Lab, setup: Setup<'a>) -> Setup<'a> {
    let manager = lab.file("manager.py", MANAGER, 0o644);
    let address = lab.path("manager.sock");
    setup.under("/usr/bin/python3", ["-IS", manager.to_str().unwrap(), address.to_str().unwrap()])
}

/// Its process, which is not that of the manager.
pub fn orchestrator(lab: &Lab) -> Pid {
    Pid::try_from(lab.status()["node"]["pid"].as_i64().unwrap()).unwrap()
}

/// The processes of all instances that have one.
pub fn pids(lab: &Lab) -> BTreeMap<String, i64> {
    let status = lab.status();
    let all = status["instances"].as_array().unwrap().iter();
    all.filter_map(|one| Some((one["instance"].as_str()?.to_owned(), one["pid"].as_i64()?)))
        .collect()
}

/// Kills the orchestrator and waits for the next one, which is another process.
pub fn succeed(lab: &Lab, node: &Node<'_>) -> Pid {
    let former = orchestrator(lab);
    let came = node.console.count("after the start");
    kill_dead(former);
    eventually("the next one came up", || node.console.count("after the start") > came);
    let next = orchestrator(lab);
    assert_ne!(next, former);
    next
}
