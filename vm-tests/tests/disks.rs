//! Faults of the disk under the node: it is full, it fails, it is cut off.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, SLEEPER, json};
use vm_tests::{Machine, Node, times};

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
    node.follows();
    others.services_undisturbed();
    machine.done("rm /var/lib/blackhole/everything");
    node.next_check(&BUILT_IN);
    others.services_undisturbed();
}

/// Where everything that is kept is on a disk of its own, of which `power` can be held or changed.
/// It is in memory, for how fast the host's disk is does not matter here.
const DISK: &str = "
truncate -s 128M /dev/shm/disk && loop=$(losetup --find --show /dev/shm/disk)
echo 0 262144 linear $loop 0 | dmsetup create power
mkfs.ext4 -q /dev/mapper/power
mkdir -p /var/lib/blackhole && mount /dev/mapper/power /var/lib/blackhole
chown blackhole: /var/lib/blackhole
";

/// Reliability 48: the same with a disk that fails at everything, from which they recover with it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_disk_that_fails_keeps_nobody_from_being_watched(release: Release) {
    let machine = Machine::start(release, "failing disk");
    let node = Node::at_rest(&machine, SLEEPER);
    machine.done(DISK);
    machine.done("systemctl start blackhole");
    let others = node.bystanders(&BUILT_IN);
    machine.put("/root/grpc.py", GRPC);
    machine.put("/root/put.py", PUT);
    machine.done("python3 put.py before");
    let table = |table: &str| {
        machine.done(&format!(
            "dmsetup suspend --nolockfs --noflush power && \
             echo {table} | dmsetup reload power && dmsetup resume power"
        ));
    };
    table("0 262144 error");
    let refused = machine.run("python3 put.py during");
    assert!(refused.err.contains("storage"), "{refused:?}");
    let former = node.pid("sleeper-0");
    machine.done(&format!("kill -9 {former}"));
    node.ready_again("sleeper-0", former);
    machine.done(&format!("kill -9 {}", node.main_pid()));
    node.follows();
    node.next_check(&BUILT_IN);
    others.services_undisturbed();

    machine.done("systemctl stop blackhole && umount /var/lib/blackhole");
    table("0 262144 linear $(losetup --associated /dev/shm/disk --output NAME --noheadings) 0");
    machine.done("mount /dev/mapper/power /var/lib/blackhole && systemctl start blackhole");
    let kept = machine.done("python3 put.py before");
    assert_eq!(kept, "it was there");
    node.bystanders(&[&BUILT_IN[..], &["sleeper-0"]].concat()).undisturbed();
}

/// How often the power is cut, when `CUTS` says nothing else.
const CUTS: u32 = 3;

/// Reliability 50: the power is cut at random moments while services write what they keep. What was
/// answered is there, nothing is torn, and the services come up with it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_power_cut_at_any_moment_tears_nothing_and_loses_no_answer(release: Release) {
    let machine = Machine::start(release, "power cuts");
    let node = Node::at_rest(&machine, "");
    machine.done(DISK);
    machine.done("systemctl start blackhole");
    machine.put("/root/grpc.py", GRPC);
    machine.put("/root/cuts.py", include_str!("guest/cuts.py"));
    machine.put("/root/kept.py", include_str!("guest/kept.py"));
    let cuts = times("CUTS").unwrap_or(CUTS);
    let told =
        json(&machine.done(&format!("python3 cuts.py /dev/shm/disk 1 {cuts} 2 /dev/shm/cuts")));
    println!("{release}: {cuts} cuts: {told}");
    assert_eq!(told["problems"], Value::Array(Vec::new()));
    for kept in told["kept"].as_array().unwrap() {
        machine.done("systemctl stop blackhole && umount /var/lib/blackhole");
        machine.done(&format!("mount -o loop {} /var/lib/blackhole", kept["disk"]));
        machine.done("systemctl start blackhole");
        let found = json(&machine.done(&format!("python3 kept.py {}", told["author"])));
        assert_eq!((&found["valid"], &found["signature"]), (&true.into(), &64.into()), "{found}");
        assert!(found["entries"].as_u64() >= kept["entries"].as_u64(), "{found}: {kept}");
        node.bystanders(&BUILT_IN).undisturbed();
    }
}

const GRPC: &str = include_str!("guest/grpc.py");

/// Puts its argument into storage, and says if it was there.
const PUT: &str = r#"
import sys
from grpc import call, field, fields
put = field(1, sys.argv[1])
answer = call("/run/blackhole/sockets/storage.sock", "/blackhole.storage.v1.Storage/Put", put)
print("it was there" if fields(answer).get(3) else "it is new")
"#;
