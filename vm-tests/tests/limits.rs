//! What services may use, as the kernel enforces it, and what is told of who wanted more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, GROUP};
use vm_tests::{Machine, Node};

const LIMITED: &str = r#"
[services.web]
command = ["sleep", "1000000"]
[services.web.resources]
memory = "64MiB"
memory_high = "48MiB"
memory_low = "8MiB"
memory_min = "4MiB"
memory_swap = "0B"
cpu_cores = 0.5
cpu_weight = 250
io_weight = 50
max_tasks = 40
"#;

const IN_FORCE: [(&str, &str); 10] = [
    ("memory.max", "67108864"),
    ("memory.high", "50331648"),
    ("memory.low", "8388608"),
    ("memory.min", "4194304"),
    ("memory.swap.max", "0"),
    ("memory.oom.group", "1"),
    ("cpu.max", "50000 100000"),
    ("cpu.weight", "250"),
    ("pids.max", "40"),
    ("io.weight", "default 50"),
];

fn of_group(machine: &Machine, instance: &str, file: &str) -> String {
    machine.done(&format!("cat {GROUP}/services/{instance}/{file}"))
}

/// A number of a flat keyed file, such as `memory.events`.
fn counted(machine: &Machine, instance: &str, file: &str, key: &str) -> u64 {
    let text = of_group(machine, instance, file);
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key} in {text}"))
}

fn events(instance: &Value, key: &str) -> u64 {
    instance["limit_events"][key].as_u64().unwrap_or_else(|| panic!("{instance}"))
}

#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_group_has_the_limits_that_are_configured(release: Release) {
    let machine = Machine::running(release, "limits");
    let node = Node::with(&machine, LIMITED);
    for (file, value) in IN_FORCE {
        assert_eq!(of_group(&machine, "web-0", file), value, "{file}");
    }
    let web = node.instance("web-0");
    let limits = web["limits"].as_array().unwrap();
    assert!(limits.iter().all(|limit| limit["met"] == true), "{limits:?}");
    assert_eq!(
        of_group(&machine, "", "memory.min"),
        "4194304",
        "what is around them protects them"
    );
    let own = machine.done(&format!("cat /proc/{}/cgroup", node.main_pid()));
    assert_eq!(own, "0::/system.slice/blackhole.service/orchestrator");
    assert_eq!(node.status()["node"]["degradations"], Value::Array(Vec::new()));
}

/// Once told to, five run out of memory again and again; one is killed by somebody, one fails by
/// itself.
const MORTALS: &str = r#"
[process_management.supervisor]
backoff_initial = "500ms"
backoff_max = "500ms"
max_restarts = 1000
[services.hungry]
command = ["sh", "-c", "until test -e go; do sleep 0.5; done; exec tail /dev/zero"]
instances = 5
[services.hungry.resources]
memory = "4MiB"
memory_swap = "0B"
[services.killed]
command = ["sh", "-c", "until test -e ../hungry/go; do sleep 1; done; sleep 3; kill -9 $$"]
[services.killed.resources]
memory = "4MiB"
[services.fails]
command = ["sh", "-c", "until test -e ../hungry/go; do sleep 1; done; sleep 3; exit 137"]
"#;

/// How many ends of a service there were, and how many of these are told as its running out of
/// memory.
fn ends(machine: &Machine, service: &str) -> (usize, usize) {
    let journal = machine.journal(&format!("--unit blackhole --grep '^{service}-[0-9] ended: '"));
    let ended = journal.lines().filter(|line| line.contains(" ended: "));
    let by_itself: Vec<_> = ended.filter(|line| !line.contains("asked by the operator")).collect();
    (by_itself.len(), by_itself.iter().filter(|line| line.contains("OomKilled")).count())
}

/// Reliability 34, 40: a hundred times, and it is told of nobody else.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn who_runs_out_of_memory_is_told_as_that_and_nobody_else_is(release: Release) {
    let machine = Machine::running(release, "out of memory");
    let node = Node::with(&machine, MORTALS);
    let others = node.bystanders(&BUILT_IN);
    machine.done("touch /var/lib/blackhole/services/hungry/go");
    for instance in 0..5 {
        node.until(&format!("hungry-{instance}"), "one['restarts'] >= 20");
    }
    machine.done("blackhole-node stop hungry killed fails");
    let (all, told) = ends(&machine, "hungry");
    assert!(all >= 100 && all == told, "{told} of {all} told");
    for (service, name) in [("killed", "killed-0"), ("fails", "fails-0")] {
        let (all, told) = ends(&machine, service);
        assert!(all > 1 && told == 0, "{name}: {told} of {all} told");
        assert_eq!(events(&node.instance(name), "oom_kills"), 0);
    }
    let counted: u64 =
        (0..5).map(|i| events(&node.instance(&format!("hungry-{i}")), "oom_kills")).sum();
    assert!(counted >= 100, "{counted}");
    let page = "import urllib.request as web; \
                print(web.urlopen('http://127.0.0.1:8080/metrics').read().decode())";
    let metrics = machine.done(&format!("python3 -c \"{page}\""));
    assert!(metrics.contains("blackhole_instance_oom_kills_total{service=\"hungry\""), "{metrics}");
    others.undisturbed();
}

/// A helper uses up the memory once it is told to. The first process asks for none until the helper
/// is gone: while one dies, the kernel kills who asks for more.
fn helped(name: &str, oom_group: bool) -> String {
    let script = "until test -e go; do sleep 0.5; done; rm go; tail /dev/zero; \
                  exec sleep 1000000";
    format!(
        "[services.{name}]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n[services.{name}.resources]\n\
         memory = \"8MiB\"\nmemory_swap = \"0B\"\noom_group = {oom_group}\n"
    )
}

/// Reliability 41: no half of a service is left, unless that is what was asked for.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_helper_that_runs_out_of_memory_takes_the_service_with_it(release: Release) {
    let machine = Machine::running(release, "helper");
    let node = Node::with(&machine, &(helped("whole", true) + &helped("parts", false)));
    let others = node.bystanders(&BUILT_IN);
    let (whole, parts) = (node.pid("whole-0"), node.pid("parts-0"));
    for name in ["whole", "parts"] {
        machine.done(&format!("touch /var/lib/blackhole/services/{name}/go"));
    }
    node.ready_again("whole-0", whole);
    let told = node.instance("whole-0");
    assert!(told["reason"].as_str().unwrap().contains("OomKilled"), "{told}");
    assert_eq!((events(&told, "oom_kills"), &told["restarts"]), (1, &Value::from(1)));
    let told = node.until("parts-0", "one['limit_events']['oom_kills'] == 1");
    assert_eq!((&told["pid"], &told["restarts"]), (&Value::from(parts), &Value::from(0)));
    others.undisturbed();
}

/// Asks for more again and again: who does not ask is not held back.
const SQUEEZED: &str = r#"
[services.squeezed]
command = ["python3", "-c", """
while True: b'x' * (48 << 20)
"""]
[services.squeezed.resources]
memory_high = "24MiB"
memory = "128MiB"
memory_swap = "0B"
"#;

/// Reliability 42: it is said to be slowed down, and is not killed.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn who_is_held_at_memory_high_is_degraded_and_lives(release: Release) {
    let machine = Machine::running(release, "memory high");
    let node = Node::with(&machine, SQUEEZED);
    let others = node.bystanders(&[&BUILT_IN[..], &["squeezed-0"]].concat());
    let told = node.until("squeezed-0", "one['health'] == 'degraded'");
    assert!(told["reason"].as_str().unwrap().contains("more memory than its limits"), "{told}");
    assert!(events(&told, "memory_high") > 0 && events(&told, "oom_kills") == 0, "{told}");
    others.undisturbed();
    machine.done("blackhole-node set-limits squeezed memory_high=none");
    node.until("squeezed-0", "one['health'] != 'degraded'");
    others.undisturbed();
}

const BURNING: &str = r#"
[services.burning]
command = ["sh", "-c", "for i in 1 2 3 4; do (while :; do :; done) & done; wait"]
[services.burning.resources]
cpu_cores = 0.5
"#;

/// Reliability 45: four busy processes share half a processor.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_share_of_a_processor_is_not_exceeded(release: Release) {
    let machine = Machine::running(release, "cpu max");
    let node = Node::with(&machine, BURNING);
    let others = node.bystanders(&BUILT_IN);
    let used = || counted(&machine, "burning-0", "cpu.stat", "usage_usec");
    let (from, before) = (machine.uptime(), used());
    machine.pass(10);
    let (micros, seconds) = (used() - before, machine.uptime() - from);
    let share = std::time::Duration::from_micros(micros).as_secs_f64() / seconds;
    assert!((0.3..0.6).contains(&share), "{share} of a processor");
    let told = node.instance("burning-0");
    assert!(events(&told, "cpu_throttled_periods") > 0, "{told}");
    others.undisturbed();
}

/// One holds memory that cannot be taken from it, one has files in memory.
const HOLDERS: &str = r#"
[services.holds]
command = ["python3", "-c", """
import time
block = bytearray(b'x') * (30 << 20)
open('full', 'w').close()
time.sleep(1000000)
"""]
[services.holds.resources]
memory = "128MiB"
memory_swap = "0B"
[services.reads]
command = ["sh", "-c", "while :; do cat /usr/bin/* >/dev/null; touch full; sleep 0.5; done"]
[services.reads.resources]
memory = "64MiB"
memory_swap = "0B"
"#;

/// Reliability 43: limits follow what is set and what is written, and kill nobody.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn limits_change_while_services_run_and_kill_nobody(release: Release) {
    let machine = Machine::running(release, "set limits");
    let node = Node::with(&machine, HOLDERS);
    let others = node.bystanders(&[&BUILT_IN[..], &["holds-0", "reads-0"]].concat());
    for name in ["holds", "reads"] {
        machine.wait_until(&format!("test -e /var/lib/blackhole/services/{name}/full"));
    }
    let max = |instance: &str| of_group(&machine, instance, "memory.max");
    let refused = machine.run("blackhole-node set-limits holds memory=16MiB tasks=9");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("does not come down to 16MiB"), "{refused:?}");
    assert_eq!(max("holds-0"), (128 << 20).to_string());
    assert_eq!(of_group(&machine, "holds-0", "memory.high"), "max");
    assert_eq!(of_group(&machine, "holds-0", "pids.max"), "max");

    for mib in [8, 40, 12, 64, 10, 9, 8] {
        machine.done(&format!("blackhole-node set-limits reads memory={mib}MiB"));
        assert_eq!(max("reads-0"), (mib << 20).to_string());
    }
    machine.done("blackhole-node set-limits holds memory=64MiB cpu=0.25 tasks=20");
    assert_eq!(max("holds-0"), (64 << 20).to_string());
    assert_eq!(of_group(&machine, "holds-0", "cpu.max"), "25000 100000");

    node.configure(&HOLDERS.replace("128MiB", "10MiB"));
    let told = machine.run("blackhole-node reload");
    assert!(told.err.contains("does not come down to 10MiB"), "{told:?}");
    assert_eq!(max("holds-0"), (64 << 20).to_string());
    node.configure(&HOLDERS.replace("128MiB", "96MiB"));
    machine.done("systemctl reload blackhole");
    assert_eq!(max("holds-0"), (96 << 20).to_string());
    assert_eq!(of_group(&machine, "holds-0", "pids.max"), "20", "that the file says nothing of");
    for instance in ["holds-0", "reads-0"] {
        assert_eq!(counted(&machine, instance, "memory.events", "oom_kill"), 0, "{instance}");
    }
    others.undisturbed();
}

/// Reliability 64: a unit that is not divided gives no limits: a refusal where they are required,
/// and a name for it where not.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_unit_without_delegation_is_refused_or_named(release: Release) {
    let machine = Machine::start(release, "no delegation");
    let node = Node::at_rest(&machine, "node.resource_limits = \"required\"\n");
    let folder = "/etc/systemd/system/blackhole.service.d";
    machine.done(&format!(
        "mkdir -p {folder}; printf '[Service]\\nDelegate=no\\nDelegateSubgroup=\\n' \
         >{folder}/90-no-delegation.conf; systemctl daemon-reload"
    ));
    assert_ne!(machine.run("systemctl start blackhole").code, 0);
    assert_eq!(node.property("ExecMainStatus"), "78");
    assert_eq!(node.property("NRestarts"), "0");
    let said = machine.journal("--unit blackhole");
    assert!(said.contains("cannot enforce what services may use: "), "{said}");

    node.configure("");
    machine.done("systemctl start blackhole");
    let degradations = node.status()["node"]["degradations"].to_string();
    assert!(degradations.contains("no limits but rlimits"), "{degradations}");
    node.bystanders(&BUILT_IN).undisturbed();
    machine.done("systemctl stop blackhole");
    machine.done("! pgrep -u blackhole");
}
