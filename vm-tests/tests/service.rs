//! The node as a service of systemd, as an operator sees it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, GROUP};
use vm_tests::{Machine, Node};

/// Ready long after the built-in services, and leaves a mark when it is.
const SLOW: &str = r#"
[services.slow]
command = ["sh", "-c", """
sleep 8
touch was-ready
systemd-notify --ready
exec sleep 1000000
"""]
readiness = "notify"
"#;

#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn it_is_active_when_all_services_are_ready_and_not_before(release: Release) {
    let machine = Machine::start(release, "active when ready");
    let node = Node::at_rest(&machine, SLOW);
    machine.done("systemctl start --no-block blackhole");
    machine.wait_until("blackhole-node status | grep -q 'identity-0 *ready'");
    assert_eq!(node.property("ActiveState"), "activating", "with slow-0 not ready");
    machine.done("systemctl start blackhole");
    machine.done("test -e /var/lib/blackhole/services/slow/was-ready");
    for instance in BUILT_IN.iter().chain(&["slow-0"]) {
        assert_eq!(node.instance(instance)["phase"], "ready", "{instance}");
    }
    assert_eq!(node.property("ActiveState"), "active");
    assert_eq!(node.property("NRestarts"), "0");

    let status = machine.done("systemctl status --no-pager blackhole");
    assert!(status.contains("Status: \"ready: 5 of 5 instances ready\""), "{status}");
    let journal = machine.journal("--unit blackhole");
    for instance in BUILT_IN {
        assert!(journal.contains(&format!("{instance} ready")), "{instance}\n{journal}");
    }
    let services = machine.journal("--output-fields BLACKHOLE_SERVICE BLACKHOLE_SERVICE=storage");
    assert!(!services.is_empty() && services.lines().all(|of| of == "storage"), "{services}");
    let groups = machine.done(&format!("ls {GROUP}/services"));
    assert_eq!(groups.split_whitespace().filter(|name| BUILT_IN.contains(name)).count(), 4);
}

#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_stop_leaves_no_process_and_no_group(release: Release) {
    let machine = Machine::running(release, "stop");
    let stubborn = r#"
        [services.stubborn]
        command = ["sh", "-c", "trap '' TERM; setsid sleep 1000000 & while :; do sleep 1; done"]
        stop_timeout = "1s"
    "#;
    let node = Node::with(&machine, stubborn);
    let before = machine.done(&format!("cat {GROUP}/services/*/cgroup.procs | wc -l"));
    assert!(before.parse::<u32>().unwrap() >= 7, "{before} processes of five services");
    machine.done("systemctl stop blackhole");
    assert_eq!(node.property("ActiveState"), "inactive");
    assert_eq!(node.property("Result"), "success");
    machine.done(&format!("test ! -e {GROUP}"));
    assert_eq!(machine.done("ps -u blackhole -o pid,args --no-headers || true"), "");
    machine.done("systemctl start blackhole");
    node.bystanders(&["identity-0", "storage-0", "ledger-0", "gateway-0", "stubborn-0"]);
}

#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_service_that_is_killed_is_restarted_and_nobody_else(release: Release) {
    let machine = Machine::running(release, "kill");
    let node = Node::at_rest(&machine, "");
    let others = node.bystanders(&["identity-0", "ledger-0", "gateway-0"]);
    let mut former = node.pid("storage-0");
    for round in 1..=3 {
        machine.done(&format!("kill -9 {former}"));
        former = node.ready_again("storage-0", former);
        assert_eq!(node.instance("storage-0")["restarts"], round);
        others.undisturbed();
    }
    assert_eq!(node.property("NRestarts"), "0");
}
