//! A journald that dies, stands still and is lied to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::machine::JOURNAL;
use vm_tests::node::{BUILT_IN, json};
use vm_tests::{Machine, Node};

/// The numbers of the lines that are whole, in their order; each ends with `rest`.
fn numbers(lines: &str, rest: &str) -> Vec<u64> {
    let whole = lines.lines().filter_map(|line| line.strip_prefix("line ")?.strip_suffix(rest));
    whole.filter_map(|number| number.parse().ok()).collect()
}

const FOLDER: &str = "/var/lib/blackhole/services/writer";

/// Once it is told to, writes numbered lines that end with `rest`: so many a second, in thirty
/// bursts, then one a second, then none. It goes on as `go`, `slower` and `enough` appear, and
/// leaves in `fast` and `all` how many it has written by then.
fn writer(rate: u32, rest: &str) -> String {
    format!(
        r#"
[services.writer]
command = ["python3", "-c", """
import os, sys, time
number = 0
def write(rate, until, told):
    global number
    begin, first = time.monotonic(), number
    while not os.path.exists(until):
        for _ in range(max(1, rate // 30)):
            print('line', number, '{rest}')
            number += 1
        sys.stdout.flush()
        time.sleep(max(0, begin + (number - first) / rate - time.monotonic()))
    with open('new', 'w') as file: print(number, file=file)
    os.rename('new', told)
while not os.path.exists('go'): time.sleep(0.1)
write({rate}, 'slower', 'fast')
write(1, 'enough', 'all')
time.sleep(1000000)
"""]
"#
    )
}

fn go(machine: &Machine) {
    machine.done(&format!("touch {FOLDER}/go"));
}

/// Waits until one of its lines from this number on is in the journal.
fn wait_for_line_from(machine: &Machine, number: u64) {
    machine.wait_until(&format!(
        "{JOURNAL} --lines 5 BLACKHOLE_SERVICE=writer | \
         awk '$1 == \"line\" && $2 >= {number} {{ found = 1 }} END {{ exit !found }}'"
    ));
}

/// Has it come to its end, and waits until the journal has its last line; gives how many it wrote.
/// Lines for which there is no room are dropped. A slow one is in when all before it are over with:
/// from then on there is room for the last.
fn end(machine: &Machine) -> u64 {
    let number = |after: &str, file: &str| -> u64 {
        machine.done(&format!("touch {FOLDER}/{after}"));
        machine.wait_until(&format!("cat {FOLDER}/{file}")).parse().unwrap()
    };
    wait_for_line_from(machine, number("slower", "fast"));
    let written = number("enough", "all");
    wait_for_line_from(machine, written - 1);
    written
}

/// Reliability 57: journald dies again and again, and at most what it had in hand goes with it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_journald_that_dies_costs_at_most_what_it_had_in_hand(release: Release) {
    let machine = Machine::running(release, "journald dies");
    let node = Node::with(&machine, &writer(1000, "."));
    let others = node.bystanders(&[&BUILT_IN[..], &["writer-0"]].concat());
    go(&machine);
    let kills = 3;
    for round in 1..=kills {
        wait_for_line_from(&machine, round * 3000);
        machine.done("systemctl kill --signal KILL systemd-journald; systemctl reset-failed");
    }
    wait_for_line_from(&machine, 14_999);
    let written = end(&machine);
    let found = numbers(&machine.journal("BLACKHOLE_SERVICE=writer"), " .");
    let different: BTreeSet<_> = found.iter().collect();
    assert_eq!(found.len(), different.len(), "lines came twice");
    let dropped = node.instance("writer-0")["log_lines_dropped"].as_u64().unwrap();
    println!("{release}: {written} written, {} found, {dropped} dropped", found.len());
    let lost = written - found.len() as u64 - dropped;
    assert!(lost <= kills, "{lost} lines are neither there nor counted; dropped: {dropped}");
    others.undisturbed();
}

/// Reliability 57: journald stands still for a minute. The node goes on, holds what it has room
/// for, and what is not in the journal in the end is counted to the line.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_journald_that_stands_still_costs_what_is_counted_and_nothing_else(release: Release) {
    let machine = Machine::running(release, "journald stands still");
    let rest = "x".repeat(1000);
    let node = Node::with(&machine, &writer(300, &rest));
    let others = node.bystanders(&[&BUILT_IN[..], &["writer-0"]].concat());
    go(&machine);
    machine.done("systemctl kill --signal STOP systemd-journald");
    node.next_check(&BUILT_IN);
    machine.pass(60);
    let memory = node.status()["node"]["memory_bytes"].as_u64().unwrap();
    machine.done("systemctl kill --signal CONT systemd-journald");
    // Said behind all that was held.
    let notices = format!("{JOURNAL} BLACKHOLE_SERVICE=writer PRIORITY=4");
    machine.wait_until(&format!("{notices} | grep -q 'lines missing here'"));
    let written = end(&machine);
    let found = numbers(&machine.journal("BLACKHOLE_SERVICE=writer"), &format!(" {rest}"));
    let found = found.into_iter().collect::<BTreeSet<_>>().len() as u64;
    let dropped = node.instance("writer-0")["log_lines_dropped"].as_u64().unwrap();
    println!("{release}: {written} written, {found} found, {dropped} dropped");
    assert_eq!(found + dropped, written, "what is lost is not counted");
    assert!(memory < 64 << 20, "{memory} bytes are held");
    others.undisturbed();
}

/// Says in all ways that it is somebody else.
const LIAR: &str = r#"
[services.liar]
command = ["python3", "-c", """
import json, sys, time
forged = {'message': 'forged\\nPRIORITY=0\\n_SYSTEMD_UNIT=ssh.service', 'level': 'info'}
forged |= {'BLACKHOLE_SERVICE': 'storage', '_SYSTEMD_UNIT': 'ssh.service', '_UID': '0'}
forged |= {'MESSAGE': 'other', 'priority': '0'}
forged |= {'a=b': 'c', 'a\\nPRIORITY': '1', 'own': 'field\\nPRIORITY=2'}
print(json.dumps(forged), flush=True)
print('plain PRIORITY=0', flush=True)
time.sleep(1000000)
"""]
"#;

/// Reliability 58: nobody's fields but journald's and ours are believed.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_line_that_claims_to_be_another_s_is_not_believed(release: Release) {
    let machine = Machine::running(release, "forged fields");
    let node = Node::with(&machine, LIAR);
    let others = node.bystanders(&[&BUILT_IN[..], &["liar-0"]].concat());
    let lines = "journalctl --output json BLACKHOLE_SERVICE=liar | grep ";
    let forged = machine.wait_until(&format!("{lines} forged"));
    let forged = json(&forged);
    let wanted = [
        ("MESSAGE", "forged\nPRIORITY=0\n_SYSTEMD_UNIT=ssh.service"),
        ("PRIORITY", "6"),
        ("BLACKHOLE_SERVICE", "liar"),
        ("BLACKHOLE_INSTANCE", "liar-0"),
        ("SYSLOG_IDENTIFIER", "liar-0"),
        ("_SYSTEMD_UNIT", "blackhole.service"),
        ("F_BLACKHOLE_SERVICE", "storage"),
        ("OWN", "field\nPRIORITY=2"),
    ];
    for (field, value) in wanted {
        assert_eq!(forged[field], value, "{field}: {forged}");
    }
    assert_ne!(forged["_UID"], "0", "{forged}");
    let plain = json(&machine.wait_until(&format!("{lines} plain")));
    assert_eq!(plain["PRIORITY"], "6", "{plain}");
    assert!(!machine.journal("BLACKHOLE_SERVICE=storage").contains("forged"));
    others.undisturbed();
}
