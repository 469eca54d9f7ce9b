//! What services are kept from: the real binary with real children that try it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::processes::Pid;
use common::{Lab, Setup, idle, service};
use serde_json::{Value, json};

/// What a puppet is told to try: the name of the error, or "done".
const ATTEMPTS: &str = r#"
import ctypes, errno, platform
def attempt(what, *arguments):
    try:
        what(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) >= 0: return "done"
    return errno.errorcode[ctypes.get_errno()]
def write(path):
    with open(path, "w") as file: file.write("x")
def read(path):
    with open(path) as file: file.read()
mount, unshare, ptrace = (165, 272, 101) if platform.machine() == "x86_64" else (40, 97, 117)
PTRACE_SEIZE = 0x4206
"#;

fn root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can become another user");
    }
    is_root
}

fn status_of(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap().trim()
}

fn landlock() -> bool {
    blackhole_node::linux::sandbox::Support::find().landlock > 0
}

/// What `status --security` says of one instance.
fn security(lab: &Lab, instance: &str) -> Value {
    let shown = lab.done(&["status", instance, "--security", "--json"]);
    let mut shown: Value = serde_json::from_str(&shown).unwrap();
    shown["instances"][0].take()
}

/// A puppet with these lines in its sandbox's section, told of the attempts.
fn attempting<'l>(lab: &'l Lab, sandbox: &str) -> common::Node<'l> {
    let more = format!("readiness = \"notify\"\nsandbox = {{ {sandbox} }}");
    let node = lab.node(&service("web", &lab.ready_puppet(), &more)).up();
    lab.tell("web-0", ATTEMPTS);
    node
}

/// What becomes of an attempt.
fn tried(lab: &Lab, attempt: &str) -> String {
    lab.tell("web-0", attempt).as_str().unwrap().to_owned()
}

#[test]
fn every_service_is_confined_unless_told_otherwise() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).set("services.storage.enabled=true").up();
    for instance in ["web-0", "storage-0"] {
        let status = status_of(lab.pid(instance));
        assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
        let mut sets = vec!["CapInh", "CapPrm", "CapEff", "CapAmb"];
        // Who has no right to it cannot give away what programs might gain.
        sets.extend(root().then_some("CapBnd"));
        for set in sets {
            assert_eq!(field(&status, set), "0000000000000000", "{instance} {set}");
        }
        let told = security(&lab, instance);
        let process = &told["process"];
        assert_eq!(process["no_new_privileges"], true, "{told}");
        assert_eq!(process["system_calls"], "filtered", "{told}");
        assert_eq!(process["capabilities"], json!([]), "{told}");
        assert_eq!(process["landlock"].is_u64(), landlock(), "{told}");
        assert_eq!(told["given_back"], json!([]), "{told}");
    }
}

#[test]
fn a_program_reaches_its_own_folders_and_no_others() {
    if !landlock() {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    let lab = Lab::new();
    let secret = lab.file("secret", "x", 0o644);
    let node = attempting(&lab, "");
    for allowed in [
        "attempt(write, 'file')",
        "attempt(write, os.environ['TMPDIR'] + '/file')",
        "attempt(write, os.environ['RUNTIME_DIRECTORY'] + '/file')",
        "attempt(write, '/dev/null')",
        "attempt(read, '/etc/passwd')",
        "attempt(os.listdir, '/usr/lib')",
        "attempt(read, '/proc/self/status')",
        "attempt(os.rename, 'file', os.environ['HOME'] + '/other')",
    ] {
        assert_eq!(tried(&lab, allowed), "done", "{allowed}");
    }
    let secret = secret.display();
    for refused in [
        format!("attempt(read, '{secret}')"),
        format!("attempt(write, '{secret}')"),
        format!("attempt(os.unlink, '{secret}')"),
        format!("attempt(write, '{}/made')", lab.path("").display()),
        format!("attempt(os.listdir, '{}')", lab.path("data").display()),
        "attempt(write, '/etc/passwd')".to_owned(),
        "attempt(write, '/tmp/made')".to_owned(),
        "attempt(os.listdir, '/tmp')".to_owned(),
        "attempt(os.listdir, '/root')".to_owned(),
    ] {
        assert_eq!(tried(&lab, &refused), "EACCES", "{refused}");
    }
    drop(node);
    assert!(!lab.path("made").exists() && lab.data("web", "other").exists());
    assert!(!lab.runtime_dir().join("services").exists());
}

/// The rules hold files, and are made anew at each start: what a name stands for may have changed.
#[test]
fn a_link_that_a_service_makes_leads_nowhere_at_its_next_start() {
    if !landlock() {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    let lab = Lab::new();
    let secret = lab.file("secret", "x", 0o644);
    fs::create_dir_all(lab.data("web", "")).unwrap();
    let named = lab.data("web", "named");
    fs::write(&named, "").unwrap();
    let words = [lab.puppet_path().display().to_string(), named.display().to_string()];
    let command = common::command(["python3", "-IS", &words[0], "ready", &words[1]]);
    let _node = lab.node(&service("web", &command, "readiness = \"notify\"")).up();
    lab.tell("web-0", &format!("os.unlink('named'), os.symlink('{}', 'named')", secret.display()));
    lab.done(&["restart", "web"]);
    lab.tell("web-0", ATTEMPTS);
    assert_eq!(tried(&lab, "attempt(read, 'named')"), "EACCES");
}

#[test]
fn a_runtime_folder_is_empty_at_each_start() {
    let lab = Lab::new();
    let _node = attempting(&lab, "");
    let folder = lab.runtime_dir().join("services/web-0");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    lab.tell("web-0", "write(os.environ['TMPDIR'] + '/left')");
    lab.tell("web-0", "os.mkdir(os.environ['RUNTIME_DIRECTORY'] + '/left')");
    assert!(folder.join("tmp/left").exists() && folder.join("left").exists());
    lab.done(&["restart", "web"]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(fs::read_dir(folder.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_program_cannot_do_what_no_service_does() {
    let lab = Lab::new();
    let node = attempting(&lab, "");
    assert_eq!(tried(&lab, "call(mount, b'x', b'/tmp', b'tmpfs', 0, None)"), "EPERM");
    assert_eq!(tried(&lab, "call(unshare, 0x10000000)"), "EPERM");
    let seize = format!("call(ptrace, PTRACE_SEIZE, {}, 0, 0)", node.pid());
    assert_eq!(tried(&lab, &seize), "EPERM");
    assert_eq!(
        tried(&lab, "attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)"),
        "EAFNOSUPPORT"
    );
    assert_eq!(tried(&lab, "attempt(socket.socket, socket.AF_INET, socket.SOCK_STREAM)"), "done");
    if root() {
        assert_eq!(tried(&lab, "attempt(os.chown, '.', 1, 1)"), "EPERM");
    }
}

#[test]
fn what_is_given_back_can_be_used() {
    let lab = Lab::new();
    let folders = ["readable", "writable"].map(|name| lab.path(name));
    folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    fs::write(folders[0].join("file"), "x").unwrap();
    let [readable, writable] = folders.map(|folder| folder.display().to_string());
    let _node = attempting(
        &lab,
        &format!(
            "read_only_paths = ['{readable}'], read_write_paths = ['{writable}'], \
             allow_system_calls = ['ptrace']"
        ),
    );
    assert_eq!(tried(&lab, &format!("attempt(read, '{readable}/file')")), "done");
    assert_eq!(tried(&lab, &format!("attempt(write, '{writable}/file')")), "done");
    if landlock() {
        assert_eq!(tried(&lab, &format!("attempt(write, '{readable}/file')")), "EACCES");
    }
    assert_eq!(tried(&lab, "call(ptrace, 0, 0, 0, 0)"), "done");
    // What it may call, it may still only do to its own.
    assert_eq!(tried(&lab, "call(mount, b'x', b'/tmp', b'tmpfs', 0, None)"), "EPERM");
}

#[test]
fn a_service_that_was_freed_is_free() {
    let lab = Lab::new();
    let _node = attempting(
        &lab,
        "no_new_privileges = false, system_call_filter = 'off', protect_files = false",
    );
    let status = status_of(lab.pid("web-0"));
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("0", "0"));
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    let told = security(&lab, "web-0");
    let given_back = json!([
        "no_new_privileges = false",
        "system_call_filter = \"off\"",
        "protect_files = false"
    ]);
    assert_eq!((&told["given_back"], &told["missing"]), (&given_back, &json!([])), "{told}");
    assert_eq!(told["process"]["landlock"], Value::Null, "{told}");
    let made = lab.path("made");
    assert_eq!(tried(&lab, &format!("attempt(write, '{}')", made.display())), "done");
    assert!(made.exists());
}

#[test]
fn a_capability_that_is_kept_can_be_used() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    let _node = attempting(&lab, "capabilities = ['CAP_CHOWN']");
    assert_eq!(field(&status_of(lab.pid("web-0")), "CapEff"), "0000000000000001");
    assert_eq!(tried(&lab, "attempt(os.chown, os.environ['TMPDIR'], 1, 1)"), "done");
}

#[test]
fn a_path_that_does_not_exist_is_no_start() {
    let lab = Lab::new();
    let more = "sandbox = { read_only_paths = ['/no/such/path'] }\nrestart_policy = \"never\"";
    let node = lab.node(&service("web", &idle(), more)).start();
    if landlock() {
        node.console.line("/no/such/path: No such file or directory");
    }
}

/// The whole way of a service of another user: its folders, readiness by sd_notify, its end.
#[test]
fn a_service_of_another_user_has_its_own_folders() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    // As it was before there was a user.
    let data = lab.data("web", "");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("old"), "x").unwrap();
    let services = service("other", &idle(), "");
    let more = "readiness = \"notify\"\nsandbox = { user = 'nobody', protect_files = false }";
    let web = service("web", &lab.ready_puppet(), more);
    let node = lab.node(&(services + &web)).up();
    lab.tell("web-0", ATTEMPTS);
    let nobody = blackhole_node::linux::users::user("nobody", None).unwrap().unwrap();
    let status = status_of(lab.pid("web-0"));
    let four = [nobody.uid; 4].map(|uid| uid.to_string()).join("\t");
    assert_eq!(field(&status, "Uid"), four);
    for path in [&data, &data.join("old"), &lab.runtime_dir().join("services/web-0/tmp")] {
        assert_eq!(fs::metadata(path).unwrap().uid(), nobody.uid, "{}", path.display());
    }
    assert_eq!(tried(&lab, "attempt(write, 'file')"), "done");
    assert_eq!(tried(&lab, "attempt(write, os.environ['TMPDIR'] + '/file')"), "done");
    assert_eq!(lab.tell("web-0", "os.environ['USER']"), "nobody");
    assert_eq!(security(&lab, "web-0")["process"]["user"], "nobody");
    let other = lab.data("other", "").display().to_string();
    let control = lab.runtime_dir().join("control.sock").display().to_string();
    assert_eq!(tried(&lab, &format!("attempt(os.listdir, '{other}')")), "EACCES");
    assert_eq!(
        tried(&lab, &format!("attempt(os.listdir, '{}')", lab.path("run").display())),
        "EACCES"
    );
    let connect = format!("attempt(socket.socket(socket.AF_UNIX).connect, '{control}')");
    assert_eq!(tried(&lab, &connect), "EACCES");
    assert_eq!(tried(&lab, &format!("attempt(os.kill, {}, 0)", node.pid())), "EPERM");
    lab.done(&["restart", "web"]);
    assert_eq!(field(&status_of(lab.pid("web-0")), "Uid"), four);

    // And back again: the files are the node's.
    let web = service("web", &lab.ready_puppet(), "readiness = \"notify\"");
    let _written: Setup<'_> = lab.node(&(service("other", &idle(), "") + &web));
    let told = lab.done(&["reload"]);
    assert!(told.contains("web-0 restarted (environment, sandbox)"), "{told}");
    assert_eq!(fs::metadata(data.join("file")).unwrap().uid(), 0);
}

#[test]
fn a_user_that_does_not_exist_is_no_start_and_no_reload() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    let wrong = service("web", &idle(), "sandbox = { user = 'no-such-user' }");
    let mut node = lab.node(&wrong).start();
    let expected = "services.web.sandbox: this host has no user no-such-user";
    node.console.line(expected);
    assert_ne!(node.end().code(), Some(0));

    let mut node = lab.node(&service("web", &idle(), "")).up();
    let pid = lab.pid("web-0");
    let _written: Setup<'_> = lab.node(&wrong);
    let refused = lab.verb(&["reload"]);
    assert!(refused.err.contains(expected), "{refused:?}");
    assert_eq!(lab.pid("web-0"), pid);
    node.stop();
}

#[test]
fn a_change_of_the_sandbox_is_another_process() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    let pid = lab.pid("web-0");
    let freer = service("web", &idle(), "sandbox = { allow_system_calls = ['ptrace'] }");
    let _written: Setup<'_> = lab.node(&freer);
    let told = lab.done(&["reload"]);
    assert!(told.contains("web-0 restarted (sandbox): ready"), "{told}");
    assert_ne!(lab.pid("web-0"), pid);
}

/// As on a kernel that has them not: the calls answer that they do not exist.
#[test]
fn without_landlock_and_filters_services_run_and_the_node_says_what_is_missing() {
    let lab = Lab::new();
    let trace = lab.path("trace").display().to_string();
    let (calls, landlock, filter) = (
        "trace=landlock_create_ruleset,seccomp",
        "inject=landlock_create_ruleset:error=ENOSYS",
        "inject=seccomp:error=EINVAL",
    );
    let options = ["-D", "-q", "-o", &trace, "-e", calls, "-e", landlock, "-e", filter];
    let node = lab.node(&service("web", &idle(), "")).under("strace", options).up();
    node.console.line("without file-protection: this kernel has no Landlock");
    node.console.line("without system-call-filter: ");
    let status = status_of(lab.pid("web-0"));
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "0"));
    let missing = security(&lab, "web-0")["missing"].take();
    let expected = json!([
        "its system calls are not filtered",
        "files are protected by their own permissions only"
    ]);
    assert_eq!(missing, expected);
    let names: Vec<_> = lab.status()["node"]["degradations"].as_array().unwrap().clone();
    for name in ["file-protection", "system-call-filter"] {
        assert!(names.iter().any(|one| one["name"] == name), "{names:?}");
    }
    assert!(Path::new(&trace).exists());
}
