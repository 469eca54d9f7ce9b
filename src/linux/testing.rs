//! What this room's tests share: running small programs on the real kernel.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::cgroupfs::{Group, Hierarchy};
use super::fds;
use super::pidfd::Reaped;
use super::process::own_pid;
use super::sandbox::Sandbox;
use super::spawn::{Child, ExecOutcome, Launch, Program};
use crate::units::ExitStatus;

pub(super) fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A pipe that takes a program's stdout and stderr.
pub(super) struct Output {
    read_end: OwnedFd,
    write_end: OwnedFd,
}

/// A program that has run its course.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) outcome: ExecOutcome,
    pub(super) status: ExitStatus,
    pub(super) output: String,
}

impl Output {
    pub(super) fn new() -> Self {
        let (read_end, write_end) = fds::pipe().unwrap();
        Self { read_end, write_end }
    }

    pub(super) fn launch(&self, program: &str, arguments: &[&str]) -> Launch<'_> {
        Launch {
            program: Program::Path(text(program)),
            arguments: [program].iter().chain(arguments).map(|word| text(word)).collect(),
            environment: Vec::new(),
            pid_variables: Vec::new(),
            working_directory: None,
            stdout: self.write_end.as_fd(),
            stderr: self.write_end.as_fd(),
            passed: Vec::new(),
            limits: Vec::new(),
            group: None,
            sandbox: Sandbox::default(),
        }
    }

    pub(super) fn shell(&self, script: &str) -> Launch<'_> {
        self.launch("/bin/sh", &["-c", script])
    }

    /// The end to read from, once only children write.
    pub(super) fn into_reader(self) -> File {
        self.read_end.into()
    }

    /// All that was written, when the last writer has gone.
    pub(super) fn into_text(self) -> String {
        let mut text = String::new();
        self.into_reader().read_to_string(&mut text).unwrap();
        text
    }

    pub(super) async fn finish(self, child: Child) -> Finished {
        let output = self.into_text();
        let outcome = child.exec.outcome().await.unwrap();
        child.pidfd.exited().await.unwrap();
        let Reaped::Ended(status) = child.pidfd.reap().unwrap() else { panic!("not ended") };
        Finished { outcome, status, output }
    }
}

/// A group for one test, gone with all that is in it when the test ends, however it ends.
pub(super) struct TestGroup(Group);

impl TestGroup {
    /// `None`, and a word about it, on hosts without cgroup2.
    pub(super) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(hierarchy) = Hierarchy::find().unwrap() else {
            println!("skipped: no cgroup2");
            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("blackhole-test-{}-{number}", own_pid());
        match Group::own(&hierarchy).and_then(|own| own.create(&name)) {
            Ok(group) => Some(Self(group)),
            Err(refused) if matches!(refused.errno(), Some(libc::EACCES | libc::EROFS)) => {
                println!("skipped: no cgroup2 that we may write to: {refused}");
                None
            }
            Err(refused) => panic!("{refused}"),
        }
    }
}

impl Deref for TestGroup {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.0
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        while self.0.populated().unwrap() {
            std::thread::yield_now();
        }
        self.0.remove().unwrap();
    }
}
