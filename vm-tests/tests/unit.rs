//! The unit in the hands of systemd: installed and taken away, reloaded, slow to start and to stop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::machine::JOURNAL;
use vm_tests::node::{self, BUILT_IN, GROUP, UPLOADED};
use vm_tests::{Machine, Node};

const CONFIG: &str = "/etc/blackhole/config.toml";

/// Everything below /usr and /etc but the files of users and groups.
const FILES: &str = "find /usr /etc -xdev | grep -vE '/etc/(passwd|group|g?shadow|\\.pwd)' | sort";

const WEB: &str = "[services.web]\ncommand = [\"sleep\", \"1000000\"]\n";

/// A drop-in of the operator's.
fn edit_unit(machine: &Machine, text: &str) {
    machine.done("mkdir -p /etc/systemd/system/blackhole.service.d");
    machine.put("/etc/systemd/system/blackhole.service.d/edit.conf", text);
    machine.done("systemctl daemon-reload");
}

/// What nobody may leave behind.
fn nothing_lives_on(machine: &Machine) {
    machine.done(&format!("test ! -e {GROUP}"));
    assert_eq!(machine.done("ps -u blackhole -o pid,args --no-headers || true"), "");
}

/// Reliability 65, and all that an install and an uninstall are to do and not to do.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn it_is_installed_and_taken_away_again(release: Release) {
    let machine = Machine::bare(release, "install");
    let before = machine.done(FILES);
    machine.put(UPLOADED, node::built().unwrap());
    machine.done(&format!("chmod 755 {UPLOADED} && {UPLOADED} install"));
    let node = Node::at_rest(&machine, WEB);
    let verified = machine.run("systemd-analyze verify --man=no blackhole.service");
    assert_eq!((verified.code, verified.out + &verified.err), (0, String::new()));
    machine.done("systemd-analyze security --threshold=22 --no-pager blackhole.service");
    assert_eq!(machine.done(&format!("stat -c '%a %U %G' {CONFIG}")), "640 root blackhole");
    machine.done("systemctl enable --now blackhole");
    node.bystanders(&["web-0"]);

    // Another install over a running node changes nothing that is not new.
    let again = machine.done(&format!("{UPLOADED} install"));
    assert!(again.contains(&format!("kept       {CONFIG}\n")), "{again}");
    let changed = |word: &str| again.lines().any(|line| line.starts_with(word));
    assert!(!changed("replaced") && !changed("written"), "{again}");

    let refused = machine.run("blackhole-node uninstall");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("systemctl disable --now blackhole"), "{refused:?}");
    machine.done("systemctl disable --now blackhole");
    let gone = machine.done("blackhole-node uninstall");
    assert!(gone.contains(&format!("kept       {CONFIG}\n")), "{gone}");
    let after = machine.done(FILES);
    let left: Vec<&str> =
        after.lines().filter(|line| !before.lines().any(|b| b == *line)).collect();
    assert_eq!(left, ["/etc/blackhole", CONFIG]);
    let lost: Vec<&str> =
        before.lines().filter(|line| !after.lines().any(|a| a == *line)).collect();
    assert_eq!(lost, Vec::<&str>::new());
    nothing_lives_on(&machine);
}

/// Reliability 60, 61: what changed and nobody else; a wrong file changes nothing.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_reload_touches_what_changed_and_a_wrong_one_nothing(release: Release) {
    let machine = Machine::running(release, "reload");
    let node = Node::with(&machine, WEB);
    let all = node.bystanders(&[BUILT_IN.as_slice(), &["web-0"]].concat());
    node.configure(&format!("{WEB}[services.storage]\nmax_blok = \"1MiB\"\n"));
    let refused = machine.run("systemctl reload blackhole");
    assert_eq!(refused.code, 1, "{refused:?}");
    let status = node.property("StatusText");
    let place = format!("not reloaded: {CONFIG}:4:1: services.storage.max_blok: unknown key");
    assert!(
        status.starts_with("ready: 5 of 5 instances ready; ") && status.contains(&place),
        "{status}"
    );
    all.undisturbed();
    assert_eq!(node.property("ActiveState"), "active");

    let others = node.bystanders(&BUILT_IN);
    let former = node.pid("web-0");
    node.configure(&WEB.replace("1000000", "2000000"));
    machine.done("systemctl reload blackhole");
    assert_ne!(node.pid("web-0"), former);
    assert_eq!(node.property("StatusText"), "ready: 5 of 5 instances ready");
    node.configure("");
    machine.done("systemctl reload blackhole");
    assert_eq!(machine.done(&format!("ls -d {GROUP}/services/*/ | wc -l")), "4");
    others.undisturbed();

    let descriptors = format!("ls /proc/{}/fd | wc -l", node.main_pid());
    let before = machine.done(&descriptors);
    for number in 0..10 {
        node.configure(if number % 2 == 0 { WEB } else { "" });
        machine.done("systemctl reload blackhole");
    }
    machine.wait_until(&format!("test $({descriptors}) -le {before}"));
    others.undisturbed();
}

/// Reliability 62: the last request holds.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn reloads_and_a_stop_at_once_come_one_after_the_other(release: Release) {
    let machine = Machine::running(release, "reload and stop");
    let node = Node::at_rest(&machine, "");
    let others = node.bystanders(&BUILT_IN);
    node.configure(WEB);
    machine.done("for i in 1 2 3 4; do systemctl reload blackhole & done; wait");
    assert_eq!(node.instance("web-0")["phase"], "ready");
    others.undisturbed();
    node.configure("");
    machine.done("systemctl reload --no-block blackhole; systemctl stop blackhole");
    assert_eq!(node.property("ActiveState"), "inactive");
    assert_eq!(node.property("Result"), "success");
    nothing_lives_on(&machine);
}

/// The node asks for time as long as something goes on, and no longer.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_start_and_a_stop_may_take_longer_than_systemd_waits(release: Release) {
    let machine = Machine::start(release, "slow");
    let slow = "[services.slow]\nreadiness = \"notify\"\nstop_timeout = \"20s\"\n\
                start_timeout = \"2m\"\n\
                command = [\"sh\", \"-c\", \"trap '' TERM; sleep 20; systemd-notify --ready; \
                while :; do sleep 1; done\"]\n";
    let node = Node::at_rest(&machine, slow);
    edit_unit(&machine, "[Service]\nTimeoutStartSec=10s\nTimeoutStopSec=10s\n");
    machine.done("systemctl start blackhole");
    assert_eq!(node.instance("slow-0")["phase"], "ready");
    let begun = machine.uptime();
    machine.done("systemctl stop blackhole");
    let lasted = machine.uptime() - begun;
    assert_eq!(node.property("Result"), "success");
    assert!(lasted >= 20.0, "slow-0 had {lasted} s of its 20");
    nothing_lives_on(&machine);
}

/// The kernel spares the node and none of its services. Stopped by its own verb it stays down.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn services_are_not_sheltered_from_the_oom_killer_and_end_with_the_node(release: Release) {
    let machine = Machine::running(release, "oom score");
    let node = Node::with(&machine, WEB);
    let score = |pid: u64| machine.done(&format!("cat /proc/{pid}/oom_score_adj"));
    assert_eq!(score(node.main_pid()), "-500");
    for instance in BUILT_IN.iter().chain(&["web-0"]) {
        assert_eq!(score(node.pid(instance)), "0", "{instance}");
    }
    machine.done("blackhole-node stop");
    machine.wait_until("test $(systemctl show --property SubState --value blackhole) = dead");
    nothing_lives_on(&machine);
    assert_eq!(node.property("NRestarts"), "0");
}

/// Says to the service manager itself what only the node may say.
const TELLTALE: &str = r#"
[services.telltale]
readiness = "notify"
command = ["python3", "-u", "-c", """
import os, socket, time
said = b'READY=1\\nWATCHDOG=trigger\\nSTOPPING=1\\nFDSTORE=1\\nFDNAME=x\\n'
said += b'MAINPID=%d\\n' % os.getpid()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
    print('was given', os.environ['NOTIFY_SOCKET'])
    print('sent', speaker.sendto(said, '/run/systemd/notify'))
    speaker.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
time.sleep(1000000)
"""]
"#;

/// Reliability 63: a service is not the unit's main process and cannot speak for it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_service_cannot_speak_for_the_node(release: Release) {
    let machine = Machine::running(release, "telltale");
    let node = Node::with(&machine, TELLTALE);
    let others = node.bystanders(&[&BUILT_IN[..], &["telltale-0"]].concat());
    let stored = node.property("NFileDescriptorStore");
    let of = "BLACKHOLE_SERVICE=telltale";
    machine.wait_until(&format!("{JOURNAL} {of} | grep -x 'sent [0-9]*'"));
    let said = machine.journal(of);
    assert!(!said.contains("was given /run/systemd/notify"), "{said}");
    // What it said is behind the node's own word to the watchdog in the same queue.
    let word = node.property("WatchdogTimestampMonotonic");
    machine.wait_until(&format!(
        "test $(systemctl show --property WatchdogTimestampMonotonic --value blackhole) != {word}"
    ));
    others.undisturbed();
    assert_eq!(node.property("ActiveState"), "active");
    assert_eq!(node.property("NRestarts"), "0");
    assert_eq!(node.property("NFileDescriptorStore"), stored);
}

/// Reliability 66: a node that does not follow a stop is ended with all its services, and the next
/// one comes up.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_node_that_hangs_as_it_is_stopped_leaves_nothing_behind(release: Release) {
    let machine = Machine::running(release, "hung stop");
    let node = Node::with(&machine, WEB);
    let former = node.pid("web-0");
    edit_unit(&machine, "[Service]\nTimeoutStopSec=3s\n");
    // Not SIGSTOP: systemd's SIGTERM comes with a SIGCONT.
    machine.done(&format!("echo 1 >{GROUP}/orchestrator/cgroup.freeze"));
    machine.done("systemctl stop blackhole");
    assert_eq!(node.property("Result"), "timeout");
    nothing_lives_on(&machine);
    machine.done("systemctl reset-failed blackhole; systemctl start blackhole");
    assert_ne!(node.pid("web-0"), former);
    node.bystanders(&[&BUILT_IN[..], &["web-0"]].concat()).undisturbed();
}
