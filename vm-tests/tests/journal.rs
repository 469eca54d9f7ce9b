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

/// Fails until one of the lines from this number on is in the journal.
fn has_line_from(number: u32) -> String {
    format!(
        "{JOURNAL} --lines 100 BLACKHOLE_SERVICE=talker | \
         awk '$1 == \"line\" && $2 >= {number} {{ found = 1 }} END {{ exit !found }}'"
    )
}

/// Reliability 57: journald dies again and again, and at most what it had in hand goes with it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_journald_that_dies_costs_at_most_what_it_had_in_hand(release: Release) {
    let machine = Machine::running(release, "journald dies");
    let node = Node::with(&machine, TALKER);
    let others = node.bystanders(&[&BUILT_IN[..], &["talker-0"]].concat());
    machine.done("touch /var/lib/blackhole/services/talker/go");
    let kills = 3;
    for round in 1..=kills {
        machine.wait_until(&has_line_from(round * 3000));
        machine.done("systemctl kill --signal KILL systemd-journald; systemctl reset-failed");
    }
    machine.wait_until(&has_line_from(14_999));
    let found = numbers(&machine.journal("BLACKHOLE_SERVICE=talker"), "");
    let different: BTreeSet<_> = found.iter().collect();
    assert_eq!(found.len(), different.len(), "lines came twice");
    let dropped = node.instance("talker-0")["log_lines_dropped"].as_u64().unwrap();
    let lost = 15_000 - found.len() as u64 - dropped;
    assert!(lost <= kills.into(), "{lost} lines are neither there nor counted; dropped: {dropped}");
    others.undisturbed();
}

/// 300 lines of a kilobyte a second until it is told to stop; then it leaves their number.
const WRITER: &str = r#"
[services.writer]
command = ["python3", "-c", """
import os, time
begin, number = time.monotonic(), 0
while not os.path.exists('enough'):
    print('line', number, 'x' * 1000, flush=True)
    number += 1
    time.sleep(max(0, begin + number / 300 - time.monotonic()))
with open('new', 'w') as file: print(number, file=file)
os.rename('new', 'written')
time.sleep(1000000)
"""]
"#;

/// Reliability 57: journald stands still for a minute. The node goes on, holds what it has room
/// for, and what is not in the journal in the end is counted to the line.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_journald_that_stands_still_costs_what_is_counted_and_nothing_else(release: Release) {
    let machine = Machine::running(release, "journald stands still");
    let node = Node::with(&machine, WRITER);
    let others = node.bystanders(&[&BUILT_IN[..], &["writer-0"]].concat());
    machine.done("systemctl kill --signal STOP systemd-journald");
    node.next_check(&BUILT_IN);
    machine.pass(60);
    let memory = node.status()["node"]["memory_bytes"].as_u64().unwrap();
    machine.done("systemctl kill --signal CONT systemd-journald");
    let last_lines = |number: u32| format!("{JOURNAL} --lines {number} BLACKHOLE_SERVICE=writer");
    // Said behind all that was held: from here on there is room again, and the last line gets in.
    machine.wait_until(&format!("{} | grep -q 'lines missing here'", last_lines(1000)));
    let folder = "/var/lib/blackhole/services/writer";
    machine.done(&format!("touch {folder}/enough"));
    let written = machine.wait_until(&format!("cat {folder}/written"));
    let last = written.parse::<u64>().unwrap() - 1;
    machine.wait_until(&format!("{} | grep -q '^line {last} '", last_lines(100)));
    let found =
        numbers(&machine.journal("BLACKHOLE_SERVICE=writer"), &format!(" {}", "x".repeat(1000)));
    let found = found.into_iter().collect::<BTreeSet<_>>().len() as u64;
    let dropped = node.instance("writer-0")["log_lines_dropped"].as_u64().unwrap();
    println!("{release}: {written} written, {found} found, {dropped} dropped");
    assert_eq!(found + dropped, last + 1, "what is lost is not counted");
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
