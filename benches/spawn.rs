//! What a sandbox adds to a start: the time from the decision to the end of `/bin/true`, plain and
//! with each part of the sandbox that services get by default, and plain with one program more in
//! between, which is the least that a second stage would cost. The ratio is to the plain one.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use blackhole_node::linux::fds;
use blackhole_node::linux::sandbox::{
    Access, Families, FileRules, Filter, FilterRules, Required, Sandbox,
};
use blackhole_node::linux::spawn::{Launch, Program, spawn};

const ROUNDS: usize = 1_000;

/// About as many as a service is given.
const PATHS: [&str; 24] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/nix/store",
    "/run/systemd/resolve",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/shm",
    "/tmp",
    "/var",
    "/home",
    "/srv",
    "/run",
    "/mnt",
];

#[derive(Clone, Copy)]
struct Parts {
    name: &'static str,
    capabilities: bool,
    filter: bool,
    files: bool,
    words: &'static [&'static str],
}

const TRUE: &[&str] = &["/bin/true"];
const TRUE_BY_ENV: &[&str] = &["/usr/bin/env", "/bin/true"];

const PLAIN: Parts =
    Parts { name: "plain", capabilities: false, filter: false, files: false, words: TRUE };

const ALL: [Parts; 6] = [
    PLAIN,
    Parts { name: "capabilities", capabilities: true, ..PLAIN },
    Parts { name: "filter", filter: true, ..PLAIN },
    Parts { name: "files", files: true, ..PLAIN },
    Parts { name: "all", capabilities: true, filter: true, files: true, ..PLAIN },
    Parts { name: "second stage", words: TRUE_BY_ENV, ..PLAIN },
];

fn main() {
    let filter = Filter::new(&FilterRules { families: Families::Common, allowed: BTreeSet::new() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut took = ALL.map(|_| Vec::with_capacity(ROUNDS));
    runtime.block_on(async {
        // Interleaved, so that what disturbs one disturbs all.
        for _ in 0..ROUNDS {
            for (parts, took) in ALL.iter().zip(&mut took) {
                took.push(start_and_end(*parts, &filter).await);
            }
        }
    });
    let medians = took.map(|mut all| {
        all.sort_unstable();
        all[all.len() / 2]
    });
    println!("{:<12}  median us  ratio", "");
    for (parts, median) in ALL.iter().zip(&medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("{:<12}  {:>9}  {ratio:.2}", parts.name, median.as_micros());
    }
}

async fn start_and_end(parts: Parts, filter: &Filter) -> Duration {
    let null = fds::sealed_memory("nothing", b"").expect("memory");
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let start = Instant::now();
    let files = parts.files.then(file_rules).flatten();
    let word = |word: &&str| CString::new(*word).expect("no NUL byte");
    let arguments: Vec<CString> = parts.words.iter().map(word).collect();
    let child = spawn(&Launch {
        program: Program::Path(arguments[0].clone()),
        arguments,
        environment: Vec::new(),
        pid_variables: Vec::new(),
        working_directory: None,
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        passed: Vec::new(),
        limits: Vec::new(),
        group: None,
        sandbox: Sandbox {
            user: None,
            capabilities: parts.capabilities.then_some(0),
            no_new_privileges: true,
            files: files.as_ref(),
            filter: parts.filter.then_some(filter),
        },
    });
    let child = child.expect("a process");
    child.pidfd.exited().await.expect("its end");
    let took = start.elapsed();
    child.pidfd.reap().expect("its status");
    took
}

fn file_rules() -> Option<FileRules> {
    let rules = PATHS.map(|path| (Path::new(path), Access::ReadAndExecute, Required::No));
    FileRules::new(rules).expect("rules")
}
