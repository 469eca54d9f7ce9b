//! Clocks that jump, and time in which somebody did not run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::BUILT_IN;
use vm_tests::{Machine, Node};

/// One that is restarted at once, then in ten minutes and not before; checks come often enough
/// to be seen.
const PATIENT: &str = r#"
[process_management.supervisor]
backoff_initial = "10m"
backoff_max = "10m"
[process_management.health_checks]
interval = "4s"
timeout = "3s"
[services.patient]
command = ["sh", "-c", "exit 1"]
"#;

/// Five seconds ahead and back, a hundred times a second, for half a minute; then right again.
const STROBE: &str = "
import time
begin, right = time.monotonic(), time.time()
step = 5
while time.monotonic() - begin < 30:
    time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic() - begin + step)
    step = -step
    time.sleep(0.01)
time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic() - begin)
";

/// Reliability 52, 53: no restart, neither of who runs nor of who waits; checks go on.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_wall_clock_that_jumps_changes_nothing(release: Release) {
    let machine = Machine::start(release, "clock jumps");
    let node = Node::at_rest(&machine, PATIENT);
    machine.done("systemctl start --no-block blackhole");
    node.until("patient-0", "one['phase'] == 'backoff' and one['restarts'] == 2");
    BUILT_IN.iter().for_each(|name| drop(node.until(name, "one['phase'] == 'ready'")));
    let others = node.bystanders(&BUILT_IN);
    let unchanged = || {
        node.next_check(&BUILT_IN);
        others.undisturbed();
        let patient = node.instance("patient-0");
        assert_eq!((&patient["phase"], &patient["restarts"]), (&"backoff".into(), &2.into()));
    };
    for wrong in ["1 hour", "-2 hours", "1970-01-02", "2106-02-08"] {
        machine.done(&format!("date --utc --set '{wrong}'"));
        unchanged();
    }
    machine.put("/root/strobe.py", STROBE);
    machine.done("python3 -I strobe.py");
    unchanged();
    assert_eq!(node.property("NRestarts"), "0");
}

/// Reliability 29, 30: who did not run himself blames nobody for it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_node_or_a_machine_that_stood_still_restarts_nobody(release: Release) {
    let machine = Machine::running(release, "standing still");
    let checks = "[process_management.health_checks]\ninterval = \"3s\"\ntimeout = \"2s\"\n";
    let node = Node::with(&machine, checks);
    let others = node.bystanders(&BUILT_IN);
    let orchestrator = node.main_pid();
    // Several checks come due meanwhile; below the watchdog's 30 s.
    for seconds in [5, 15] {
        machine.done(&format!(
            "kill -STOP {orchestrator}; sleep {seconds}; kill -CONT {orchestrator}"
        ));
        node.next_check(&BUILT_IN);
        others.undisturbed();
    }
    machine.hold(Duration::from_secs(120));
    node.next_check(&BUILT_IN);
    others.undisturbed();
    assert_eq!(node.property("NRestarts"), "0");
    assert_eq!(node.property("Result"), "success");
}
