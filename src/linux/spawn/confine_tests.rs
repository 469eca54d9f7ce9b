//! Confined children on the real kernel: what they cannot do, what they still can, and that we are
//! as we were before.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::linux::process::own_uid;
use crate::linux::sandbox::{
    Access, Families, FileRules, Filter, FilterRules, Required, Sandbox, Support,
};
use crate::linux::testing::{Finished, Output};
use crate::linux::users::{self, User};
use crate::units::{Capability, ExitStatus, Signal, SystemCall};

const METHODS: [SpawnMethod; 2] = [SpawnMethod::Clone3, SpawnMethod::CloneThenJoin];

/// The field of a `/proc/PID/status`, which may be printed by several lines.
fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim_start_matches(':').trim()
}

fn strict() -> Filter {
    Filter::new(&FilterRules { families: Families::Common, allowed: BTreeSet::new() })
}

fn confined<'a>(filter: &'a Filter, files: Option<&'a FileRules>) -> Sandbox<'a> {
    Sandbox {
        user: None,
        capabilities: Some(0),
        no_new_privileges: true,
        files,
        filter: Some(filter),
    }
}

/// System folders, and one folder to write in.
fn only(folder: &Path) -> Option<FileRules> {
    let system = ["/usr", "/bin", "/lib", "/lib64", "/proc"].map(Path::new);
    let rules = system.map(|path| (path, Access::ReadAndExecute, Required::No)).into_iter();
    let own = [
        (Path::new("/dev/null"), Access::Use, Required::Yes),
        (folder, Access::WriteAndExecute, Required::Yes),
    ];
    FileRules::new(rules.chain(own)).unwrap()
}

async fn run(
    method: SpawnMethod,
    sandbox: Sandbox<'_>,
    program: &str,
    arguments: &[&str],
) -> Finished {
    let output = Output::new();
    let mut launch = output.launch(program, arguments);
    launch.sandbox = sandbox;
    let child = spawn_with(method, &launch).unwrap();
    drop(launch);
    output.finish(child).await
}

async fn python(sandbox: Sandbox<'_>, text: &str) -> String {
    let finished =
        run(SpawnMethod::Clone3, sandbox, "/usr/bin/python3", &["-IS", "-c", text]).await;
    assert_eq!(finished.status, ExitStatus::Code(0), "{}", finished.output);
    finished.output
}

#[tokio::test]
async fn a_confined_child_has_no_rights_beyond_its_own() {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let dumpable = || rustix::process::dumpable_behavior().unwrap();
    let before = dumpable();
    for method in METHODS {
        let filter = strict();
        let sandbox = confined(&filter, None);
        let status = run(method, sandbox, "/bin/cat", &["/proc/self/status"]).await.output;
        assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(u64::from_str_radix(field(&status, set), 16), Ok(0), "{method}: {set}");
        }
        if own_uid() == 0 {
            assert_eq!(u64::from_str_radix(field(&status, "CapBnd"), 16), Ok(0), "{method}");
        }
    }
    // Also where the child borrowed our memory.
    assert_eq!(dumpable(), before);
    let after = fs::read_to_string("/proc/self/status").unwrap();
    for name in ["NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "Uid", "Groups"] {
        assert_eq!(field(&after, name), field(&own, name), "{name}");
    }
}

#[tokio::test]
async fn a_filtered_child_cannot_do_what_no_service_does() {
    let filter = strict();
    let text = "
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def refused(*arguments):
    returned = libc.syscall(*arguments)
    return errno.errorcode[ctypes.get_errno()] if returned < 0 else 'done'
import platform
mount, unshare = (165, 272) if platform.machine() == 'x86_64' else (40, 97)
ptrace = 101 if platform.machine() == 'x86_64' else 117
print(refused(mount, b'none', b'/tmp', b'tmpfs', 0, None))
print(refused(unshare, 0x10000000), refused(ptrace, 16, os.getppid(), 0, 0))
print(refused(435, None, 0), refused(9999))
if os.fork() == 0: os._exit(0)
os.wait()
import threading
thread = threading.Thread(target=lambda: print('a thread'))
thread.start(); thread.join()
import socket
socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except OSError as error: print(errno.errorcode[error.errno])
";
    let expected = "EPERM\nEPERM EPERM\nENOSYS ENOSYS\na thread\nEAFNOSUPPORT\n";
    assert_eq!(python(confined(&filter, None), text).await, expected);
}

#[tokio::test]
async fn what_is_given_back_works() {
    let allowed = BTreeSet::from(["ptrace".parse::<SystemCall>().unwrap()]);
    let filter = Filter::new(&FilterRules { families: Families::Common, allowed });
    let text = "
import ctypes, platform
ptrace = 101 if platform.machine() == 'x86_64' else 117
print(ctypes.CDLL(None).syscall(ptrace, 0, 0, 0, 0))
";
    assert_eq!(python(confined(&filter, None), text).await, "0\n");
}

#[tokio::test]
async fn a_32_bit_call_ends_the_process() {
    if cfg!(not(target_arch = "x86_64")) {
        println!("skipped: this architecture has no other calls");
        return;
    }
    let filter = strict();
    // mov eax, 20 (getpid); int 0x80; ret
    let text = "
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex('b814000000cd80c3'))
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)() >= 0)
";
    let arguments = ["-IS", "-c", text];
    let mut sandbox = confined(&filter, None);
    let finished = run(SpawnMethod::Clone3, sandbox, "/usr/bin/python3", &arguments).await;
    let killed = matches!(finished.status, ExitStatus::Signal { number: Signal(31), .. });
    assert!(killed, "{finished:?}");
    sandbox = Sandbox { filter: None, ..confined(&filter, None) };
    let finished = run(SpawnMethod::Clone3, sandbox, "/usr/bin/python3", &arguments).await;
    // A kernel without 32-bit programs answers with a signal of its own.
    assert!(!matches!(finished.status, ExitStatus::Signal { number: Signal(31), .. }));
}

#[tokio::test]
async fn a_child_uses_only_the_files_it_was_given() {
    if Support::find().landlock == 0 {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    let (given, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("secret"), "secret").unwrap();
    let script = format!(
        "cd {given}; echo kept > own; mkdir sub; mv own sub/moved; cat sub/moved
         cat {other}/secret; echo x > {other}/made; ls {other}; rm {other}/secret; echo x > /usr/x
         cp /bin/true here && ./here && echo runs; echo quiet > /dev/null && echo null",
        given = given.path().display(),
        other = other.path().display(),
    );
    for method in METHODS {
        let filter = strict();
        let files = only(given.path());
        let sandbox = confined(&filter, files.as_ref());
        let script = format!("({script}) 2>&1; rm -r {}/*", given.path().display());
        let finished = run(method, sandbox, "/bin/sh", &["-c", &script]).await;
        let lines: Vec<&str> = finished.output.lines().collect();
        assert_eq!(finished.output.matches("ermission denied").count(), 5, "{method}: {lines:?}");
        for line in ["kept", "runs", "null"] {
            assert!(lines.contains(&line), "{method}: {lines:?}");
        }
    }
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_path_that_has_to_exist_and_does_not_is_named() {
    let missing = Path::new("/no/such/folder");
    let refused = FileRules::new([(missing, Access::Read, Required::Yes)]);
    if Support::find().landlock > 0 {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("/no/such/folder: No such file or directory"), "{refused}");
    }
    FileRules::new([(missing, Access::Read, Required::No)]).unwrap();
}

#[tokio::test]
async fn an_outsider_is_out_of_reach_of_signals() {
    if Support::find().landlock < 6 {
        println!("skipped: Landlock keeps signals in from version 6 on");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let filter = strict();
    let text = "
import os, signal
try: os.kill(os.getppid(), 0); print('reached')
except PermissionError: print('out of reach')
child = os.fork()
if child == 0: signal.pause()
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.wait()[1]))
";
    let files = only(folder.path());
    let sandbox = confined(&filter, files.as_ref());
    assert_eq!(python(sandbox, text).await, "out of reach\n-15\n");
}

/// Somebody else, if we may become anybody.
fn nobody() -> Option<User> {
    if own_uid() != 0 {
        println!("skipped: only root can start a process as another user");
        return None;
    }
    users::user("nobody", None).unwrap()
}

#[tokio::test]
async fn another_user_is_another_user_and_we_stay_who_we_are() {
    let Some(nobody) = nobody() else { return };
    let dumpable = || rustix::process::dumpable_behavior().unwrap();
    let (before, stamp) = (dumpable(), fs::read_to_string("/proc/thread-self/status").unwrap());
    for method in METHODS {
        let filter = strict();
        let sandbox = Sandbox { user: Some(&nobody), ..confined(&filter, None) };
        let status = run(method, sandbox, "/bin/cat", &["/proc/self/status"]).await.output;
        let id = nobody.uid.to_string();
        assert!(field(&status, "Uid").split('\t').all(|one| one == id), "{method}: {status}");
        let id = nobody.gid.to_string();
        assert!(field(&status, "Gid").split('\t').all(|one| one == id), "{method}: {status}");
        assert_eq!(field(&status, "CapEff"), "0000000000000000");
    }
    assert_eq!(dumpable(), before, "the child's user changed what we are");
    assert_eq!(fs::metadata("/proc/self/status").unwrap().uid(), own_uid());
    let after = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(field(&after, "SigBlk"), field(&stamp, "SigBlk"));
}

#[tokio::test]
async fn another_user_is_born_in_its_group() {
    use crate::linux::testing::{TestGroup, text};
    let (Some(nobody), Some(group)) = (nobody(), TestGroup::new()) else { return };
    let filter = strict();
    let output = Output::new();
    let mut launch = output.launch("/bin/cat", &["/proc/self/cgroup"]);
    launch.sandbox = Sandbox { user: Some(&nobody), ..confined(&filter, None) };
    launch.group = Some(&group);
    launch.working_directory = Some(text("/"));
    let child = spawn(&launch).unwrap();
    drop(launch);
    let printed = output.finish(child).await.output;
    let name = group.path().file_name().unwrap().to_str().unwrap();
    assert!(printed.lines().any(|line| line.starts_with("0::") && line.ends_with(name)));
}

#[tokio::test]
async fn a_capability_that_is_kept_is_all_that_is_kept() {
    let kept: Capability = "CAP_NET_BIND_SERVICE".parse().unwrap();
    let users = [None, nobody()];
    if own_uid() != 0 {
        return;
    }
    for user in &users {
        let filter = strict();
        let sandbox = Sandbox {
            user: user.as_ref(),
            capabilities: Some(kept.bit()),
            ..confined(&filter, None)
        };
        let text = "
import socket
with socket.socket() as listener: listener.bind(('127.0.0.1', 0))
for line in open('/proc/self/status'):
    if line.startswith('Cap'): print(line.split()[1].lstrip('0'), end=' ')
";
        assert_eq!(python(sandbox, text).await, "400 400 400 400 400 ");
    }
}

#[tokio::test]
async fn a_capability_that_we_have_not_cannot_be_kept() {
    let output = Output::new();
    let mut launch = output.launch("/bin/true", &[]);
    launch.sandbox = Sandbox { capabilities: Some(1 << 63), ..Sandbox::default() };
    let refused = spawn(&launch).unwrap_err().to_string();
    assert!(refused.ends_with("cannot keep CAP_63: this process has not got that itself"));
}

#[tokio::test]
async fn a_program_that_another_user_may_not_execute_is_reported() {
    let Some(nobody) = nobody() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = folder.path().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let filter = strict();
    let sandbox = Sandbox { user: Some(&nobody), ..confined(&filter, None) };
    let finished = run(SpawnMethod::Clone3, sandbox, program.to_str().unwrap(), &[]).await;
    let ExecOutcome::Failed(failure) = finished.outcome else { panic!("{finished:?}") };
    // The report comes through the filter.
    assert_eq!((failure.stage, failure.errno), (Stage::Execute, libc::EACCES));
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_had_is_no_start() {
    // Without no_new_privs only CAP_SYS_ADMIN may, which it has just given away.
    let filter = strict();
    let sandbox = Sandbox { no_new_privileges: false, ..confined(&filter, None) };
    let finished = run(SpawnMethod::Clone3, sandbox, "/bin/true", &[]).await;
    let ExecOutcome::Failed(failure) = finished.outcome else { panic!("{finished:?}") };
    assert_eq!((failure.stage, failure.errno), (Stage::Filter, libc::EACCES));
    let words = "filter the system calls of \"/bin/true\": Permission denied";
    assert_eq!(failure.to_string(), words);
}
