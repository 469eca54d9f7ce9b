//! Faults of processes that need a kernel to themselves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, GROUP, SLEEPER};
use vm_tests::{Machine, Node};

/// Every process of one forks for ever, once it is told to; the other has children that end and are
/// never collected.
const BOMB: &str = r#"
[services.bomb]
command = ["python3", "-c", """
import os, time
while not os.path.exists('go'): time.sleep(0.1)
while True:
    try: os.fork()
    except OSError: pass
"""]
[services.bomb.resources]
max_tasks = 64
[services.careless]
command = ["python3", "-c", """
import os, time
for _ in range(10000):
    try: os.fork() or os._exit(0)
    except OSError: pass
time.sleep(1000000)
"""]
[services.careless.resources]
max_tasks = 48
"#;

/// Reliability 14, 15: they fill their share of processes, and nobody else notices; a stop ends
/// them all.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_fork_bomb_is_kept_within_its_share_and_ended_whole(release: Release) {
    let machine = Machine::running(release, "fork bomb");
    let node = Node::with(&machine, BOMB);
    let others = node.bystanders(&BUILT_IN);
    machine.done("touch /var/lib/blackhole/services/bomb/go");
    let refused = "one['limit_events']['tasks_max'] > 100";
    node.until("bomb-0", &format!("{refused} and one['tasks'] == 64"));
    node.until("careless-0", refused);
    node.next_check(&BUILT_IN);
    others.undisturbed();
    machine.done("blackhole-node stop bomb careless");
    for instance in ["bomb-0", "careless-0"] {
        assert_eq!(node.instance(instance)["phase"], "stopped");
    }
    machine.done(&format!("test ! -e {GROUP}/services/bomb-0"));
    // Children that are not yet collected may keep the kernel from giving its group back.
    let procs = format!("{GROUP}/services/careless-0/cgroup.procs");
    machine.done(&format!("test ! -e {procs} || test -z \"$(cat {procs})\""));
    others.undisturbed();
}

/// Forks without end, and tells how often one of its children, who do nothing, died of a signal.
const STRANGERS: &str = r#"
import os, time
forked = killed = 0
highest = 0
while not os.path.exists('/run/enough'):
    pids = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.02)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        killed += os.waitpid(pid, 0)[1] != 0
        forked += 1
        highest = max(highest, pid)
with open('/run/strangers.new', 'w') as file: print(forked, killed, highest, file=file)
os.rename('/run/strangers.new', '/run/strangers')
"#;

/// Ends by itself after a moment, of which there are many, or has to be killed.
const MAYFLIES: &str = r#"
[process_management.supervisor]
backoff_initial = "200ms"
backoff_max = "200ms"
max_restarts = 1000
[services.mayfly]
command = ["sh", "-c", "sleep 0.1"]
instances = 2
[services.deaf]
command = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
stop_timeout = "100ms"
"#;

/// Reliability 22: numbers of processes come again within moments, and no signal of ours reaches
/// who has one by now.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_process_that_has_the_number_of_a_dead_one_is_not_signalled(release: Release) {
    let machine = Machine::running(release, "pid reuse");
    let node = Node::with(&machine, MAYFLIES);
    let others = node.bystanders(&BUILT_IN);
    machine.put("/root/strangers.py", STRANGERS);
    machine.done("echo 420 >/proc/sys/kernel/pid_max");
    machine.done("nice -n 19 python3 -I strangers.py >strangers.log 2>&1 &");
    for _ in 0..20 {
        machine.done("blackhole-node restart deaf");
    }
    node.until("mayfly-1", "one['restarts'] >= 100");
    machine.done("touch /run/enough");
    let told = machine.wait_until("cat /run/strangers strangers.log 2>&1");
    machine.done("echo 32768 >/proc/sys/kernel/pid_max");
    let numbers: Vec<u32> = told.split_whitespace().map(|n| n.parse().expect(&told)).collect();
    let [forked, killed, highest] = numbers[..] else { panic!("{told}") };
    assert!(forked > 1000 && highest < 420, "{told}: numbers did not come again");
    assert_eq!(killed, 0, "of {forked} strangers");
    others.undisturbed();
}

/// Writes through to its disk, and leaves a line at each start.
const WRITER: &str = r#"
[services.writer]
command = ["python3", "-c", """
import os
with open('starts', 'a') as file: file.write('x')
with open('beat', 'wb', buffering=0) as file:
    while True:
        file.write(b'x' * 65536)
        os.fsync(file.fileno())
        file.seek(0)
"""]
stop_timeout = "1s"
"#;

/// A disk of which all that is asked can be held, under the folder of a service.
const DISK: &str = "
truncate -s 64M /root/disk && loop=$(losetup --find --show /root/disk)
echo 0 131072 linear $loop 0 | dmsetup create held
mkfs.ext4 -q /dev/mapper/held
mkdir -p /var/lib/blackhole/services/writer
mount /dev/mapper/held /var/lib/blackhole/services/writer
chown -R blackhole: /var/lib/blackhole
";

/// Reliability 18: it is said to be unkillable, has no second copy, and ends when the disk goes on.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_process_that_hangs_in_the_kernel_is_named_and_not_doubled(release: Release) {
    let machine = Machine::start(release, "hanging");
    let node = Node::at_rest(&machine, WRITER);
    machine.done(DISK);
    machine.done("systemctl start blackhole");
    let others = node.bystanders(&BUILT_IN);
    let former = node.pid("writer-0");
    machine.wait_until("test -s /var/lib/blackhole/services/writer/beat");
    machine.done("dmsetup suspend --nolockfs --noflush held");
    machine.wait_until(&format!("grep -q '^State:.D' /proc/{former}/status"));
    machine.done("blackhole-node restart --no-block writer");
    node.until("writer-0", "one['phase'] == 'stopping' and 'cannot be killed' in one['reason']");
    let group = format!("cat {GROUP}/services/writer-0/cgroup.procs");
    assert_eq!(machine.done(&group), former.to_string(), "a second copy");
    node.next_check(&BUILT_IN);
    others.undisturbed();
    machine.done("dmsetup resume held");
    node.ready_again("writer-0", former);
    machine.wait_until("test $(cat /var/lib/blackhole/services/writer/starts) = xx");
    others.undisturbed();
}

/// Reliability 39: a full unit is no reason to give up: it is tried again until there is room.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_service_that_finds_no_room_for_a_process_waits_and_comes_back(release: Release) {
    let machine = Machine::running(release, "tasks max");
    let node = Node::with(&machine, &format!("{SLEEPER}max_restarts = 1000\n"));
    let others = node.bystanders(&BUILT_IN);
    let former = node.pid("sleeper-0");
    machine.done(&format!("echo 1 >{GROUP}/pids.max; kill -9 {former}"));
    let waiting = node.until("sleeper-0", "one['phase'] == 'backoff' and one['restarts'] > 1");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(reason.contains("Resource temporarily unavailable"), "{reason}");
    machine.done(&format!("echo max >{GROUP}/pids.max"));
    node.ready_again("sleeper-0", former);
    others.undisturbed();
}
