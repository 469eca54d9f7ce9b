//! What a service may use changes while it runs, by `set-limits` and by `reload`. Whether the
//! kernel enforces it the machine tests show; here it is what the node takes, keeps and tells.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, idle, service};

fn write(lab: &Lab, services: &str) {
    // The setup writes the file; it is not started.
    let _written = lab.node(services);
}

fn wanted(lab: &Lab, instance: &str, file: &str) -> String {
    let instance = lab.instance(instance);
    let limits = instance["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["name"] == file).unwrap();
    limit["wanted"].as_str().unwrap().to_owned()
}

#[test]
fn limits_change_while_the_service_runs() {
    let lab = Lab::new();
    let services = service("web", &idle(), "instances = 2") + &service("other", &idle(), "");
    let _node = lab.node(&services).up();
    let before = (lab.pid("web-0"), lab.pid("web-1"), lab.pid("other-0"));
    let told = lab.done(&["set-limits", "web", "memory=64MiB", "cpu=0.5", "maxTasks=70"]);
    assert!(told.starts_with("web-0 adjusted (limits): ready (pid "), "{told}");
    assert!(told.contains("\nweb-1 adjusted (limits): ready (pid "), "{told}");
    for instance in ["web-0", "web-1"] {
        assert_eq!(wanted(&lab, instance, "memory.max"), "67108864");
        assert_eq!(wanted(&lab, instance, "cpu.max"), "50000 100000");
        assert_eq!(wanted(&lab, instance, "pids.max"), "70");
    }
    assert_eq!(wanted(&lab, "other-0", "memory.max"), "max");
    assert_eq!(lab.instance("web-0")["memory_limit_bytes"], 64 << 20);
    assert_eq!(lab.done(&["set-limits", "web", "memory=64MiB"]), "nothing changes");
    lab.done(&["set-limits", "web", "memory=none"]);
    assert_eq!(wanted(&lab, "web-0", "memory.max"), "max");
    assert_eq!(wanted(&lab, "web-0", "pids.max"), "70");
    assert_eq!((lab.pid("web-0"), lab.pid("web-1"), lab.pid("other-0")), before);
}

#[test]
fn they_hold_over_restarts_and_until_the_file_says_something_else() {
    let lab = Lab::new();
    let with = |resources: &str| service("web", &idle(), &format!("resources = {{ {resources} }}"));
    let _node = lab.node(&with("memory = \"32MiB\"")).up();
    let pid = lab.pid("web-0");
    lab.done(&["set-limits", "web", "memory=64MiB", "tasks=70"]);
    lab.done(&["restart", "web"]);
    assert_ne!(lab.pid("web-0"), pid);
    assert_eq!(wanted(&lab, "web-0", "memory.max"), "67108864");

    let pid = lab.pid("web-0");
    write(&lab, &with("memory = \"32MiB\", cpu_cores = 1"));
    let told = lab.done(&["reload"]);
    assert!(told.contains("web-0 adjusted (limits)"), "{told}");
    assert_eq!(wanted(&lab, "web-0", "memory.max"), "67108864", "the file says what it said");
    assert_eq!(wanted(&lab, "web-0", "cpu.max"), "100000 100000");

    write(&lab, &with("memory = \"48MiB\", cpu_cores = 1"));
    lab.done(&["reload"]);
    assert_eq!(wanted(&lab, "web-0", "memory.max"), "50331648");
    assert_eq!(wanted(&lab, "web-0", "pids.max"), "70");
    assert_eq!(lab.pid("web-0"), pid, "no process notices");
}

#[test]
fn what_cannot_be_changes_nothing() {
    let lab = Lab::new();
    let services = service("web", &idle(), "resources = { memory = \"64MiB\" }")
        + &service("off", &idle(), "enabled = false");
    let _node = lab.node(&services).up();
    let refused = |assignments: &[&str]| {
        let answer = lab.verb(&[&["set-limits"], assignments].concat());
        (answer.code, answer.err)
    };
    let (code, err) = refused(&["web", "memory_high=65MiB"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("memory_high (65MiB) is more than memory (64MiB)"), "{err}");
    let (code, err) = refused(&["web", "tasks=5", "memory=lots"]);
    assert!(code == Some(2) && err.contains("this is not a size"), "{err}");
    let (code, err) = refused(&["web", "max_files=5"]);
    assert!(code == Some(2) && err.contains("can change while a service runs"), "{err}");
    let (code, err) = refused(&["wep", "tasks=5"]);
    assert!(code == Some(4) && err.contains("there is no service \"wep\""), "{err}");
    let (code, err) = refused(&["off", "tasks=5"]);
    assert!(code == Some(1) && err.contains("is disabled"), "{err}");
    assert_eq!(wanted(&lab, "web-0", "pids.max"), "max");

    // A file that no longer fits what was set is refused as a whole.
    lab.done(&["set-limits", "web", "memory_high=48MiB"]);
    write(&lab, &service("web", &idle(), "resources = { memory = \"32MiB\" }"));
    let answer = lab.verb(&["reload"]);
    assert!(answer.err.contains("memory_high (48MiB) is more than memory (32MiB)"), "{answer:?}");
    assert_eq!(wanted(&lab, "web-0", "memory.max"), "67108864");
}
