//! A journald that dies, stands still and is lied to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::BUILT_IN;
use vm_tests::{Machine, Node};

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
    let machine = Machine::start(release, "journald stands still");
    let node = Node::start(&machine, WRITER);
    let others = node.bystanders(&[&BUILT_IN[..], &["writer-0"]].concat());
    machine.done("systemctl kill --signal STOP systemd-journald");
    let from = machine.uptime();
    node.next_check(&BUILT_IN);
    machine.wait_until(&format!("test $(cut -d . -f 1 /proc/uptime) -gt {}", from.round() + 60.0));
    let memory = node.status()["node"]["memory_bytes"].as_u64().unwrap();
    machine.done("systemctl kill --signal CONT systemd-journald");
    node.until("writer-0", "one['log_lines_dropped'] > 0");
    let folder = "/var/lib/blackhole/services/writer";
    machine.done(&format!("touch {folder}/enough"));
    let written = machine.wait_until(&format!("cat {folder}/written"));
    let last = written.parse::<u64>().unwrap() - 1;
    let lines = "journalctl --sync; journalctl --no-pager --output cat BLACKHOLE_SERVICE=writer | \
                 sed -n 's/^line \\([0-9]*\\) x*$/\\1/p'";
    machine.wait_until(&format!("test \"$({lines} | tail -n 1)\" = {last}"));
    let found = machine.done(&format!("{lines} | sort -n | uniq | wc -l"));
    let dropped = node.instance("writer-0")["log_lines_dropped"].as_u64().unwrap();
    println!("{release}: {written} written, {found} found, {dropped} dropped");
    assert_eq!(found.parse::<u64>().unwrap() + dropped, last + 1, "what is lost is not counted");
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
    let machine = Machine::start(release, "forged fields");
    let node = Node::start(&machine, LIAR);
    let others = node.bystanders(&[&BUILT_IN[..], &["liar-0"]].concat());
    let lines = "journalctl --sync; journalctl --output json BLACKHOLE_SERVICE=liar | grep ";
    let forged = machine.wait_until(&format!("{lines} forged"));
    let forged: Value = serde_json::from_str(&forged).unwrap();
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
    let plain: Value =
        serde_json::from_str(&machine.wait_until(&format!("{lines} plain"))).unwrap();
    assert_eq!(plain["PRIORITY"], "6", "{plain}");
    let found =
        "journalctl --no-pager --output cat BLACKHOLE_SERVICE=storage | grep forged || true";
    assert_eq!(machine.done(found), "");
    others.undisturbed();
}
