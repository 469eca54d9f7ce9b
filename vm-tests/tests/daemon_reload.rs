//! A service manager that is changed under the node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, SLEEPER};
use vm_tests::{Machine, Node, times};

/// How often, when `RELOADS` says nothing else.
const RELOADS: u32 = 3;

/// Reliability 59: the service manager reads its units anew, and executes itself anew.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_service_manager_that_reloads_or_reexecutes_changes_nothing(release: Release) {
    let machine = Machine::running(release, "daemon-reload");
    let node = Node::with(&machine, SLEEPER);
    let others = node.bystanders(&[&BUILT_IN[..], &["sleeper-0"]].concat());
    let stored = node.property("NFileDescriptorStore");
    let before = machine.uptime();
    let times = times("RELOADS").unwrap_or(RELOADS);
    for _ in 0..times {
        machine.done("systemctl daemon-reload && systemctl daemon-reexec");
    }
    println!("{release}: {times} of each in {} s of guest time", machine.uptime() - before);
    // Past the next message to the watchdog, and the time it has for it.
    machine.pass(32);
    node.next_check(&BUILT_IN);
    others.undisturbed();
    assert_eq!(node.property("NFileDescriptorStore"), stored);
    assert_eq!(node.property("NRestarts"), "0");
    assert_eq!(node.property("ActiveState"), "active");
}
