//! What services are kept from under systemd, by two kernels with different means.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::json;
use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::security;
use vm_tests::{Machine, Node};

/// Tries what the unit itself would let it do, and tells what became of it.
const PROBE: &str = r#"
[services.probe]
command = ["sh", "-c", '''
try() { if "$@" 2>> "$HOME/errors"; then echo done; else echo refused; fi >> "$HOME/tried"; }
try touch "$HOME/file" "$TMPDIR/file" "$RUNTIME_DIRECTORY/file"
try touch /tmp/file
try ls /var/lib/blackhole/services/identity
try touch /run/blackhole/file
try unshare --user true
try kill -0 $PPID
systemd-notify --ready
exec sleep 1000000
''']
readiness = "notify"
"#;

fn landlock(release: Release) -> u64 {
    match release {
        Bookworm => 2,
        Trixie => 6,
    }
}

#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn every_service_is_confined_by_all_that_the_kernel_has(release: Release) {
    let machine = Machine::running(release, "sandbox");
    let node = Node::with(&machine, PROBE);
    let instances = security(&machine, "");
    assert_eq!(instances.len(), 5, "{instances:?}");
    for one in &instances {
        let process = &one["process"];
        assert_eq!(process["user"], "blackhole", "{one}");
        assert_eq!(process["no_new_privileges"], true, "{one}");
        assert_eq!(process["system_calls"], "filtered", "{one}");
        assert_eq!(process["landlock"], landlock(release), "{one}");
        for empty in [&process["capabilities"], &process["bounding_set"], &one["missing"]] {
            assert_eq!(*empty, json!([]), "{one}");
        }
    }
    let degradations = node.status()["node"]["degradations"].to_string();
    assert!(!degradations.contains("file-protection"), "{degradations}");
    assert!(!degradations.contains("system-call-filter"), "{degradations}");

    let tried = machine.done("cat /var/lib/blackhole/services/probe/tried");
    // Landlock keeps signals in from version 6 on.
    let signal = if landlock(release) < 6 { "done" } else { "refused" };
    let expected = ["done", "refused", "refused", "refused", "refused", signal].join("\n");
    let errors = machine.done("cat /var/lib/blackhole/services/probe/errors");
    assert_eq!(tried, expected, "{errors}");
}
