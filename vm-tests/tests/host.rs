//! Faults of the host around the node: full disks, journald, a power cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::BUILT_IN;
use vm_tests::{Machine, Node};

const SLEEPER: &str = "[services.sleeper]\ncommand = [\"sleep\", \"1000000\"]\n";

/// Reliability 47: services are watched and restarted with nowhere to write, and the node itself
/// comes back after its death.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_full_disk_keeps_nobody_from_being_watched(release: Release) {
    let machine = Machine::start(release, "full disk");
    let node = Node::at_rest(&machine, SLEEPER);
    machine.done("mkdir -p /var/lib/blackhole");
    machine.done("mount -t tmpfs -o size=2M,mode=755 full /var/lib/blackhole");
    machine.done("chown blackhole: /var/lib/blackhole && systemctl start blackhole");
    let others = node.bystanders(&BUILT_IN);
    for full in ["/var/lib/blackhole", "/run"] {
        machine.done(&format!("! cat /dev/zero >{full}/everything"));
        let former = node.pid("sleeper-0");
        machine.done(&format!("kill -9 {former}"));
        node.ready_again("sleeper-0", former);
        node.next_check(&BUILT_IN);
        others.undisturbed();
    }
    machine.done("rm /run/everything");
    let orchestrator = node.main_pid();
    machine.done(&format!("kill -9 {orchestrator}"));
    machine.wait_until("blackhole-node status && systemctl is-active blackhole");
    others.services_undisturbed();
    machine.done("rm /var/lib/blackhole/everything");
    node.next_check(&BUILT_IN);
    others.services_undisturbed();
}

/// A thousand lines a second for 15 seconds, once it is told to.
const TALKER: &str = r#"
[services.talker]
command = ["python3", "-c", """
import os, time
while not os.path.exists('go'): time.sleep(0.1)
begin = time.monotonic()
for number in range(15000):
    print('line', number, flush=True)
    time.sleep(max(0, begin + number / 1000 - time.monotonic()))
time.sleep(1000000)
"""]
"#;

/// How many lines are in the journal, how many different ones, and how many are said to be lost.
const COUNT: &str = r#"
journalctl --sync
lines=$(journalctl --no-pager --output cat BLACKHOLE_SERVICE=talker | grep '^line [0-9]*$')
echo $(wc -l <<<"$lines") $(sort -u <<<"$lines" | wc -l)
"#;

/// Reliability 57: journald dies again and again, and at most what it had in hand goes with it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_journald_that_dies_costs_at_most_what_it_had_in_hand(release: Release) {
    let machine = Machine::start(release, "journald dies");
    let node = Node::start(&machine, TALKER);
    let others = node.bystanders(&[&BUILT_IN[..], &["talker-0"]].concat());
    machine.done("touch /var/lib/blackhole/services/talker/go");
    let kills = 3;
    for round in 1..=kills {
        let some = round * 3000;
        machine.wait_until(&format!("{COUNT}test $(wc -l <<<\"$lines\") -gt {some}"));
        machine.done("systemctl kill --signal KILL systemd-journald; systemctl reset-failed");
    }
    machine.wait_until(&format!("{COUNT}tail -n 1 <<<\"$lines\" | grep -q 'line 14999'"));
    let told = machine.done(COUNT);
    let counts: Vec<u32> = told.split_whitespace().map(|n| n.parse().expect(&told)).collect();
    let dropped = node.instance("talker-0")["log_lines_dropped"].as_u64().unwrap();
    assert_eq!(counts[0], counts[1], "lines came twice");
    let lost = 15_000 - u64::from(counts[0]) - dropped;
    assert!(lost <= kills, "{lost} lines are neither there nor counted; dropped: {dropped}");
    others.undisturbed();
}

/// Reliability 68: what a power cut leaves does not keep the node from coming up with its host, nor
/// the services from what they had written.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_node_comes_up_with_its_host_after_a_power_cut(release: Release) {
    let machine = Machine::start(release, "power cut");
    let node = Node::start(&machine, SLEEPER);
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
