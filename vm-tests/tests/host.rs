//! Faults of the host around the node: a power cut, no memory left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, SLEEPER};
use vm_tests::{Machine, Node};

/// Once told to, they use up the memory of the host, which is less than each may have.
const GOBBLERS: &str = r#"
[process_management.supervisor]
backoff_initial = "500ms"
backoff_max = "500ms"
max_restarts = 1000
[services.gobbler]
command = ["sh", "-c", "until test -e go; do sleep 0.5; done; exec tail /dev/zero"]
instances = 2
"#;

/// Reliability 35: the host has no memory left. Who used it up is killed and told as that, and
/// neither the node nor anybody else.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_host_without_memory_takes_it_from_who_used_it_up(release: Release) {
    let machine = Machine::running(release, "no memory");
    let node = Node::with(&machine, GOBBLERS);
    let others = node.bystanders(&BUILT_IN);
    machine.done("touch /var/lib/blackhole/services/gobbler/go");
    for number in 0..2 {
        let told = node.until(&format!("gobbler-{number}"), "one['restarts'] >= 1");
        assert!(told["reason"].as_str().unwrap().contains("OomKilled"), "{told}");
    }
    machine.done("blackhole-node stop gobbler");
    for number in 0..2 {
        assert_eq!(node.instance(&format!("gobbler-{number}"))["phase"], "stopped");
    }
    others.undisturbed();
    let killed = machine.done("journalctl --no-pager --dmesg | grep 'Killed process'");
    assert!(killed.lines().all(|line| line.contains("(tail)")), "{killed}");
}

/// Reliability 68: what a power cut leaves does not keep the node from coming up with its host, nor
/// the services from what they had written.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_node_comes_up_with_its_host_after_a_power_cut(release: Release) {
    let machine = Machine::running(release, "power cut");
    let node = Node::with(&machine, SLEEPER);
    machine.done("systemctl enable blackhole && sync");
    let files = "cd /var/lib/blackhole/services && find identity -type f | sort | xargs sha256sum";
    let before = machine.done(files);
    assert!(before.lines().count() > 0, "identity has written nothing");
    machine.cut_power();
    machine.boot();
    machine.wait_until("systemctl is-active blackhole");
    node.bystanders(&[&BUILT_IN[..], &["sleeper-0"]].concat()).undisturbed();
    assert_eq!(machine.done(files), before);
    assert_eq!(node.property("NRestarts"), "0");
}
