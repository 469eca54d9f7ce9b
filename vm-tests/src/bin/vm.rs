//! `cargo xtask vm`: machines for people.

use std::fs;
use std::process::ExitCode;
use std::thread;

use vm_tests::image::{Image, run_folder};
use vm_tests::machine::set_clock;
use vm_tests::node::{self, UPLOADED};
use vm_tests::qemu::{Console, Qemu, Start};
use vm_tests::{Error, Release};

const HELP: &str = "\
usage: cargo xtask vm VERB

  build [MACHINE]   make the machines bookworm and trixie, or one of them, where they are not there,
                    and the node that tests put on them
  shell [MACHINE]   a root shell in one (bookworm unless told otherwise) with the node's binary in
                    /root; Ctrl-A X ends it, and nothing of it is kept

They are kept in ~/.cache/blackhole-vm, or where BLACKHOLE_VM_CACHE says. BLACKHOLE_VM_KVM=1 has KVM
run them, BLACKHOLE_VM_MACHINES says how many tests have one at a time: else one for each processor,
and one more while a processor is idle.

Some tests repeat what they do more often when they are told to: DEATHS=200 kills of the
orchestrator, CUTS=100 power cuts, RELOADS=100 of the service manager, with

  cargo test -p vm-tests -- immortal power_cut daemon_reload";

/// The exit code of a command line that makes no sense, as in clap and the shells.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["build"] => build(&Release::ALL),
        ["build", name] => match name.parse() {
            Ok(release) => build(&[release]),
            Err(reason) => return usage(&reason),
        },
        ["shell"] => shell(Release::Bookworm),
        ["shell", name] => match name.parse() {
            Ok(release) => shell(release),
            Err(reason) => return usage(&reason),
        },
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [] => return usage("build or shell?"),
        other => return usage(&format!("there is no {}", other.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(reason: &str) -> ExitCode {
    eprintln!("vm: {reason}\n\n{HELP}");
    ExitCode::from(USAGE)
}

/// A machine is made while cargo builds the node.
fn build(releases: &[Release]) -> Result<(), Error> {
    thread::scope(|scope| {
        let image = |release: Release| scope.spawn(move || Image::of(release));
        let images: Vec<_> = releases.iter().map(|release| (*release, image(*release))).collect();
        node::built()?;
        for (release, builder) in images {
            let panicked = |_| Err(Error::Boot("its builder panicked".to_owned()));
            println!("{release}: {}", builder.join().unwrap_or_else(panicked)?.booted.display());
        }
        Ok(())
    })
}

/// A machine at this terminal, until it is ended there.
fn shell(release: Release) -> Result<(), Error> {
    let image = Image::of(release)?;
    let binary = node::built()?;
    let folder = run_folder()?;
    let disk = folder.path().join("disk");
    fs::copy(&image.booted, &disk).map_err(Error::io("copy", &image.booted))?;
    let hardware = image.hardware(&disk, "qcow2");
    let (qemu, mut agent) =
        Qemu::start(&hardware, Start::Restore, Console::Terminal, folder.path())?;
    agent.run(&set_clock())?;
    agent.put(UPLOADED, binary)?;
    agent.run(&format!("chmod 755 {UPLOADED}"))?;
    eprint!("{release}: the node is {UPLOADED}; press Enter; Ctrl-A X ends the machine\r\n");
    qemu.wait()
}
