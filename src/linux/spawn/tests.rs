//! Children on the real kernel: what they are given, and what is reported when they cannot start.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::linux::pidfd::{Reaped, Sent};
use crate::linux::process::own_pid;
use crate::linux::testing::{Finished, Output, TestGroup, text};
use crate::linux::{fds, procfs};
use crate::units::{Core, ExitStatus, Signal};

const METHODS: [SpawnMethod; 2] = [SpawnMethod::Clone3, SpawnMethod::CloneThenJoin];

async fn run(method: SpawnMethod, script: &str) -> Finished {
    let output = Output::new();
    let child = spawn_with(method, &output.shell(script)).unwrap();
    output.finish(child).await
}

/// The failure of a launch that was changed so that it must fail.
async fn failure(program: &str, spoil: impl FnOnce(&mut Launch<'_>)) -> ExecFailure {
    let output = Output::new();
    let mut launch = output.launch(program, &[]);
    spoil(&mut launch);
    let child = spawn(&launch).unwrap();
    let finished = output.finish(child).await;
    assert_eq!(finished.status, ExitStatus::Code(127));
    match finished.outcome {
        ExecOutcome::Failed(failure) => failure,
        ExecOutcome::Executed => panic!("{program} was executed"),
    }
}

#[tokio::test]
async fn a_child_is_born_in_its_group() {
    let Some(group) = TestGroup::new() else { return };
    for method in METHODS {
        let output = Output::new();
        let mut launch = output.launch("/bin/cat", &["/proc/self/cgroup"]);
        launch.group = Some(&group);
        let child = spawn_with(method, &launch).unwrap();
        let finished = output.finish(child).await;
        let name = group.path().file_name().unwrap().to_str().unwrap();
        let line = finished.output.lines().find(|line| line.starts_with("0::")).unwrap();
        assert!(line.ends_with(name), "{method}: {line}");
    }
}

#[tokio::test]
async fn a_child_has_its_declared_descriptors_and_no_other() {
    // What a careless library or an ancestor might leave: open over exec.
    let careless = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 200).unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    let (read_end, write_end) = fds::pipe().unwrap();
    for method in METHODS {
        let output = Output::new();
        let mut launch = output.launch("/bin/ls", &["-l", "/proc/self/fd"]);
        launch.passed = vec![read_end.as_fd(), write_end.as_fd()];
        let child = spawn_with(method, &launch).unwrap();
        let listed = output.finish(child).await.output;
        let open: Vec<_> = listed.lines().filter_map(|line| line.split_once(" -> ")).collect();
        let numbers: Vec<_> = open.iter().map(|(name, _)| name.rsplit_once(' ')).collect();
        let numbers: Vec<_> = numbers.into_iter().flatten().map(|(_, number)| number).collect();
        // ls itself opens 5 to read the folder.
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"], "{method}: {listed}");
        assert_eq!(open[0].1, "/dev/null");
        assert!(open[5].1.starts_with("/proc/"), "{listed}");
    }
}

#[tokio::test]
async fn descriptors_arrive_in_their_order_whatever_their_numbers_here() {
    let pipes: Vec<_> = (0..20).map(|_| fds::pipe().unwrap()).collect();
    let output = Output::new();
    let mut launch = output.shell("for i in 3 4 5 9 22; do echo $i > /proc/self/fd/$i; done");
    launch.passed = pipes.iter().rev().map(|(_, write_end)| write_end.as_fd()).collect();
    let child = spawn(&launch).unwrap();
    let finished = output.finish(child).await;
    assert_eq!(finished.status, ExitStatus::Code(0), "{}", finished.output);
    for (target, expected) in [(3, "3\n"), (4, "4\n"), (5, "5\n"), (9, "9\n"), (22, "22\n")] {
        let (read_end, _) = &pipes[22 - target];
        let mut bytes = [0; 16];
        let read = rustix::io::read(read_end, &mut bytes).unwrap();
        assert_eq!(&bytes[..read], expected.as_bytes());
    }
}

#[tokio::test]
async fn the_environment_is_the_declared_one() {
    for method in METHODS {
        let output = Output::new();
        let mut launch = output.launch("/usr/bin/env", &[]);
        launch.environment = vec![text("A=1"), text("ODD=a=b c"), text("EMPTY=")];
        launch.pid_variables = vec!["LISTEN_PID", "WATCHDOG_PID"];
        let child = spawn_with(method, &launch).unwrap();
        let pid = child.pid;
        let printed = output.finish(child).await.output;
        let expected = format!("LISTEN_PID={pid}\nWATCHDOG_PID={pid}\nA=1\nODD=a=b c\nEMPTY=\n");
        assert_eq!(printed, expected, "{method}");
    }
}

#[tokio::test]
async fn signals_are_at_their_defaults_and_unblocked() {
    let mask = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        u64::from_str_radix(line[name.len()..].trim(), 16).unwrap()
    };
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    // Otherwise there would be nothing to reset.
    assert_ne!(mask(&own, "SigIgn:"), 0);
    for method in METHODS {
        let printed = run(method, "grep ^Sig /proc/self/status").await.output;
        assert_eq!(mask(&printed, "SigIgn:"), 0, "{method}: {printed}");
        assert_eq!(mask(&printed, "SigBlk:"), 0, "{method}: {printed}");
    }
    let after = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(mask(&after, "SigBlk:"), mask(&own, "SigBlk:"));
}

#[tokio::test]
async fn limits_directory_and_session_are_the_childs_own() {
    let output = Output::new();
    let mut launch = output.shell("ulimit -Sn; ulimit -Hn; ulimit -c; pwd; read x <&3");
    let (read_end, write_end) = fds::pipe().unwrap();
    launch.passed = vec![read_end.as_fd()];
    launch.working_directory = Some(text("/proc"));
    launch.limits = vec![
        Limit { resource: Resource::OpenFiles, soft: 30, hard: 60 },
        Limit { resource: Resource::Core, soft: 0, hard: u64::MAX },
    ];
    let child = spawn(&launch).unwrap();
    let Child { pid, pidfd, exec } = child;
    assert_eq!(exec.outcome().await.unwrap(), ExecOutcome::Executed);
    let stat = procfs::stat(pid).unwrap().unwrap();
    assert_eq!((stat.session, stat.parent), (pid, own_pid()));
    drop(write_end);
    pidfd.exited().await.unwrap();
    assert_eq!(output.into_text(), "30\n60\n0\n/proc\n");
    assert!(matches!(pidfd.reap().unwrap(), Reaped::Ended(_)));
}

#[tokio::test]
async fn our_own_program_is_executed_from_its_descriptor() {
    let executable = fds::own_executable().unwrap();
    for method in METHODS {
        let output = Output::new();
        let mut launch = output.launch("blackhole-node", &["--list"]);
        launch.program = Program::Fd(executable.as_fd());
        let child = spawn_with(method, &launch).unwrap();
        let finished = output.finish(child).await;
        assert_eq!(finished.outcome, ExecOutcome::Executed);
        assert!(finished.output.contains("our_own_program_is_executed"), "{}", finished.output);
    }
}

/// Writes a file from another process: while this one has it open for writing, a child of a test
/// that runs beside this one could hold it open too, and execution would fail with ETXTBSY.
async fn file_made_elsewhere(path: &Path, command: &str) {
    let finished = run(SpawnMethod::Clone3, &format!("{command} > {}", path.display())).await;
    assert_eq!(finished.status, ExitStatus::Code(0), "{}", finished.output);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn every_reason_not_to_execute_is_reported_with_its_stage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let name = path.to_str().unwrap();

    let missing = failure(name, |_| {}).await;
    assert_eq!((missing.stage, missing.errno), (Stage::Execute, libc::ENOENT));
    assert_eq!(missing.to_string(), format!("execute {name:?}: No such file or directory"));

    file_made_elsewhere(&path, "echo no program").await;
    set_mode(&path, 0o644);
    assert_eq!(failure(name, |_| {}).await.errno, libc::EACCES);
    set_mode(&path, 0o755);
    assert_eq!(failure(name, |_| {}).await.errno, libc::ENOEXEC);

    let long = "x".repeat(1 << 20);
    let too_big = failure("/bin/true", |launch| launch.arguments.push(text(&long))).await;
    assert_eq!((too_big.stage, too_big.errno), (Stage::Execute, libc::E2BIG));
}

#[tokio::test]
async fn a_program_that_is_being_written_is_reported_as_busy() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if release.starts_with("6.11.") || release.starts_with("6.12.") {
        println!("skipped: Linux {release} executes files that are open for writing");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    file_made_elsewhere(&path, "cat /bin/true").await;
    set_mode(&path, 0o755);
    let _writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let busy = failure(path.to_str().unwrap(), |_| {}).await;
    assert_eq!((busy.stage, busy.errno), (Stage::Execute, libc::ETXTBSY));
}

#[tokio::test]
async fn a_failure_before_exec_names_what_failed() {
    let no_folder = failure("/bin/true", |l| l.working_directory = Some(text("/no/such"))).await;
    assert_eq!(no_folder.to_string(), "chdir to \"/no/such\": No such file or directory");
    assert_eq!((no_folder.stage, no_folder.errno), (Stage::WorkingDirectory, libc::ENOENT));

    let limits = vec![
        Limit { resource: Resource::Core, soft: 0, hard: 0 },
        Limit { resource: Resource::Stack, soft: 2, hard: 1 },
    ];
    let wrong = failure("/bin/true", |launch| launch.limits = limits).await;
    assert_eq!(wrong.to_string(), "set RLIMIT_STACK: Invalid argument");
}

#[tokio::test]
async fn a_group_that_cannot_be_joined_is_reported_by_both_methods() {
    let Some(group) = TestGroup::new() else { return };
    // A threaded sibling makes a group "domain invalid": nothing may join it.
    group.create("threads").unwrap().write("cgroup.type", "threaded").unwrap();
    let invalid = group.create("invalid").unwrap();
    let output = Output::new();
    let mut launch = output.launch("/bin/true", &[]);
    launch.group = Some(&invalid);
    let refused = spawn_with(SpawnMethod::Clone3, &launch).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::EOPNOTSUPP), "{refused}");

    let child = spawn_with(SpawnMethod::CloneThenJoin, &launch).unwrap();
    let finished = output.finish(child).await;
    let ExecOutcome::Failed(failure) = finished.outcome else { panic!("{finished:?}") };
    assert_eq!((failure.stage, failure.errno), (Stage::JoinGroup, libc::EOPNOTSUPP));
    assert!(failure.to_string().contains(invalid.path().to_str().unwrap()), "{failure}");
}

#[test]
fn clone3_is_given_up_for_good_only_when_the_call_itself_is_refused() {
    let is_refused = |errno| is_clone3_refused(&io::Error::from_raw_os_error(errno));
    assert!([libc::ENOSYS, libc::EPERM, libc::E2BIG, libc::EINVAL].into_iter().all(is_refused));
    let passing = [libc::EAGAIN, libc::ENOMEM, libc::EBUSY, libc::EACCES, libc::ENODEV];
    assert!(!passing.into_iter().any(is_refused));
}

#[tokio::test]
async fn a_removed_group_starts_nothing() {
    let Some(group) = TestGroup::new() else { return };
    let removed = group.create("removed").unwrap();
    removed.remove().unwrap();
    for method in METHODS {
        let output = Output::new();
        let mut launch = output.launch("/bin/true", &[]);
        launch.group = Some(&removed);
        spawn_with(method, &launch).unwrap_err();
    }
}

#[test]
fn a_launch_without_arguments_is_refused() {
    let output = Output::new();
    let mut launch = output.launch("/bin/true", &[]);
    launch.arguments.clear();
    let refused = spawn(&launch).unwrap_err().to_string();
    assert!(refused.contains("\"/bin/true\""), "{refused}");
}

#[tokio::test]
async fn a_child_that_finds_another_parent_does_not_execute() {
    let output = Output::new();
    let launch = output.shell("echo executed");
    let (mut setup, report) = ChildSetup::prepare(SpawnMethod::Clone3, &launch).unwrap();
    setup.parent = rustix::process::Pid::INIT;
    let (pid, pidfd) = clone::clone(SpawnMethod::Clone3, None, &mut setup).unwrap();
    drop(setup);
    let exec = ExecReport::new(report, Subjects::of(&launch));
    let finished = output.finish(Child { pid, pidfd, exec }).await;
    assert_eq!((finished.output.as_str(), finished.status), ("", ExitStatus::Code(127)));
}

/// Those that end a process by default: not CHLD, CONT, URG, WINCH, and not the STOP family.
fn deadly_signals() -> impl Iterator<Item = i32> {
    (1..=31).filter(|number| ![17, 18, 19, 20, 21, 22, 23, 28].contains(number))
}

#[tokio::test]
async fn the_signal_that_killed_is_the_one_that_is_reported() {
    const DUMPING: [i32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];
    for number in deadly_signals() {
        let output = Output::new();
        let mut launch = output.launch("/bin/sleep", &["30"]);
        launch.limits = vec![Limit { resource: Resource::Core, soft: 0, hard: 0 }];
        let child = spawn(&launch).unwrap();
        assert_eq!(child.pidfd.reap().unwrap(), Reaped::StillRunning);
        assert_eq!(child.pidfd.send(Signal(number)).unwrap(), Sent::Delivered);
        match output.finish(child).await.status {
            ExitStatus::Signal { number: reported, core } => {
                assert_eq!(reported, Signal(number));
                // With a limit of 0 it depends on the host whether a core handler is run.
                assert!(core == Core::None || DUMPING.contains(&number), "{reported}");
            }
            other @ (ExitStatus::Code(_) | ExitStatus::Unseen) => {
                panic!("signal {number} reported as {other}")
            }
        }
    }
}

#[tokio::test]
async fn the_core_flag_is_set_exactly_when_there_is_a_core() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/', '@']) {
        println!("skipped: cores go to {pattern}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Output::new();
    let mut launch = output.shell("kill -SEGV $$");
    launch.working_directory = Some(text(folder.path().to_str().unwrap()));
    launch.limits = vec![Limit { resource: Resource::Core, soft: 1 << 30, hard: 1 << 30 }];
    let child = spawn(&launch).unwrap();
    let status = output.finish(child).await.status;
    let written = fs::read_dir(folder.path()).unwrap().count();
    let core = if written > 0 { Core::Dumped } else { Core::None };
    assert_eq!(status, ExitStatus::Signal { number: Signal(11), core });
}

#[tokio::test]
async fn a_thousand_children_leave_no_descriptor_and_no_zombie() {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, mut pids) = (open(), BTreeSet::new());
    let null = fds::open("/dev/null", rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty());
    let null = null.unwrap();
    let output = Output::new();
    for round in 0..1000 {
        let mut launch = output.launch("/bin/true", &[]);
        (launch.stdout, launch.stderr) = (null.as_fd(), null.as_fd());
        launch.passed = vec![null.as_fd()];
        let child = spawn_with(METHODS[round % 2], &launch).unwrap();
        assert_eq!(child.exec.outcome().await.unwrap(), ExecOutcome::Executed);
        child.pidfd.exited().await.unwrap();
        assert_eq!(child.pidfd.reap().unwrap(), Reaped::Ended(ExitStatus::Code(0)));
        assert_eq!(child.pidfd.reap().unwrap(), Reaped::NotOurChild);
        pids.insert(child.pid);
    }
    // Tests that run beside this one open a few; a leak would be hundreds.
    assert!(open() < before + 200, "{before} before, {} after", open());
    let left: Vec<_> = procfs::own_children().unwrap();
    assert!(left.iter().all(|pid| !pids.contains(pid)), "{left:?}");
}
