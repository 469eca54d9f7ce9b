//! The version before this one and this one take over from each other, in place and after a death,
//! under a real service manager and load.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{self, BUILT_IN, GROUP, UPLOADED, json};
use vm_tests::{Machine, Node};

use crate::immortal::{CALLER, COUNTS, GRPC, counted};

const BEFORE: &str = "/root/version-before";

/// Leaves a descriptor with the node, and says in its next run what came of it.
const STORES: &str = r#"
[services.stores]
readiness = "notify"
fd_store_max = 1
command = ["python3", "-u", "-c", """
import array, os, socket, time
voice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
voice.connect(os.environ['NOTIFY_SOCKET'])
names = os.environ.get('LISTEN_FDNAMES', '').split(':')
if 'cargo' in names:
    print('kept', os.pread(3 + names.index('cargo'), 100, 0).decode())
else:
    cargo = os.memfd_create('cargo')
    os.write(cargo, b'what was stored')
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [cargo]))]
    voice.sendmsg([b'FDSTORE=1\\nFDNAME=cargo'], rights)
voice.send(b'READY=1')
time.sleep(1000000)
"""]
"#;

/// With the built-in ones, one that counts and one that stores there are 30.
const IDLE: usize = 24;

fn idle() -> Vec<String> {
    (0..IDLE).map(|number| format!("idle{number}")).collect()
}

fn configuration() -> String {
    let service = |name: String| {
        format!(
            "[services.{name}]\ncommand = [\"sleep\", \"1000000\"]\n\
             [services.{name}.resources]\nmemory = \"32MiB\"\nmax_tasks = 8\n"
        )
    };
    let idle: String = idle().into_iter().map(service).collect();
    format!("{COUNTS}{STORES}{idle}")
}

/// Puts a binary where the package has it, as its upgrade does.
fn install(machine: &Machine, binary: &str) {
    machine.done(&format!("cp {binary} new && mv new /usr/bin/blackhole-node"));
}

/// Fails unless the orchestrator runs this binary.
fn is_run_by(node: &Node<'_>, machine: &Machine, binary: &str) {
    machine.done(&format!("cmp /proc/{}/exe {binary}", node.main_pid()));
}

#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn the_version_before_and_this_one_take_over_from_each_other(release: Release) {
    let machine = Machine::running(release, "versions");
    machine.put(BEFORE, node::previous().unwrap());
    machine.done(&format!("chmod +x {BEFORE}"));
    machine.put("/root/grpc.py", GRPC);
    machine.put("/root/caller.py", CALLER);
    let node = Node::with(&machine, &configuration());
    let instances: Vec<String> = idle().into_iter().map(|name| format!("{name}-0")).collect();
    let names: Vec<&str> = instances.iter().map(String::as_str).collect();
    let others = node.bystanders(&[&BUILT_IN[..], &["counts-0", "stores-0"], &names].concat());
    let limits = format!("cd {GROUP}/services && head */memory.max */pids.max */cpu.max");
    let limited = machine.done(&limits);
    machine.done(
        "setsid python3 caller.py /run/blackhole/sockets/storage.sock end told.json \
         >caller.log 2>&1 </dev/null &",
    );
    for binary in [BEFORE, UPLOADED] {
        install(&machine, binary);
        machine.done("systemctl reload blackhole");
        is_run_by(&node, &machine, binary);
        others.undisturbed();
    }
    for binary in [BEFORE, UPLOADED] {
        install(&machine, binary);
        let former = node.main_pid();
        machine.done(&format!("kill -9 {former}"));
        node.follows();
        assert_ne!(node.main_pid(), former);
        is_run_by(&node, &machine, binary);
        others.services_undisturbed();
    }
    assert_eq!(machine.done(&limits), limited, "limits are others");
    machine.done("touch end");
    let calls = json(&machine.wait_until("cat told.json"));
    println!("{release}: {calls}");
    assert_eq!(calls["failures"].as_array().unwrap().len(), 0, "{calls}");
    let mut numbers = counted(&machine);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "lines are lost");
    machine.done("blackhole-node restart stores");
    let said = machine.journal("BLACKHOLE_SERVICE=stores");
    assert!(said.contains("kept what was stored"), "{said}");
}
