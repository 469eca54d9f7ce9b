//! `cargo xtask previous`: the version before this one, built from its commit once and kept in
//! `target/previous/`, for the tests in which it and this one take over from each other. The path
//! of its binary is the last line on stdout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::{root, target};

/// The commit of that version. With a release it becomes the released one.
const PREVIOUS: &str = "5286a20489486d822bf86aee767233ec488d83a0";
/// Its profile is made that of this version, so that the crates that both need are built once.
const PROFILE: [&str; 10] = [
    "profile.dev.opt-level=1",
    "profile.dev.panic='unwind'",
    "profile.dev.package.'*'.debug=false",
    "profile.dev.package.blackhole-node.opt-level=0",
    "profile.dev.package.curve25519-dalek.opt-level=1",
    "profile.dev.package.sha2.opt-level=1",
    "profile.dev.package.toml.opt-level=1",
    "profile.dev.package.toml_parser.opt-level=1",
    "profile.dev.package.saphyr-parser.opt-level=1",
    "profile.dev.package.strsim.opt-level=1",
];

pub fn run() -> ExitCode {
    match binary() {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("xtask: no version before this one: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Takes it from where it was built, or builds it, which takes minutes. Others who want it wait.
pub fn binary() -> Result<PathBuf, String> {
    let folder = target().join("previous").join(PREVIOUS);
    let failed = |error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let binary = folder.join("blackhole-node");
    let _held = lock(&folder.join("lock"))?;
    if !binary.exists() {
        build(&folder, &binary)?;
    }
    Ok(binary)
}

/// Held until it is dropped.
fn lock(path: &Path) -> Result<File, String> {
    let lock = File::create(path).and_then(|file| file.lock().map(|()| file));
    lock.map_err(|error| format!("{}: {error}", path.display()))
}

fn build(folder: &Path, binary: &Path) -> Result<(), String> {
    let (sources, binaries) = (folder.join("source"), folder.join("build"));
    check_out(&sources)?;
    let crates = target();
    let crates = crates.canonicalize().map_err(|why| format!("{}: {why}", crates.display()))?;
    eprintln!("building the version before this one, {PREVIOUS}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&sources);
    command.env("CARGO_TARGET_DIR", &binaries).env("CARGO_BUILD_BUILD_DIR", crates);
    // What is selected decides the features of crates: these are those of the tests.
    command.args(["build", "--quiet", "--locked", "--workspace"]);
    command.args(["--bin", "blackhole-node", "--example", "race"]);
    command.args(PROFILE.iter().flat_map(|setting| ["--config", *setting]));
    done(command)?;
    let built = binaries.join("debug/blackhole-node");
    let failed = |error: std::io::Error| format!("{}: {error}", built.display());
    // What is at the last name is whole, and what it was built of is not needed any more.
    let fresh = folder.join("new");
    fs::copy(&built, &fresh).map_err(failed)?;
    fs::rename(&fresh, binary).map_err(failed)?;
    fs::remove_dir_all(&binaries).and_then(|()| fs::remove_dir_all(&sources)).map_err(failed)
}

fn check_out(sources: &Path) -> Result<(), String> {
    let is_there = git(&["cat-file", "-e", &format!("{PREVIOUS}^{{commit}}")]);
    done(is_there).map_err(|_| {
        format!(
            "the commit {PREVIOUS} is not in this repository's history; in a shallow clone \
             `git fetch --unshallow` brings it"
        )
    })?;
    fs::create_dir_all(sources).map_err(|error| format!("{}: {error}", sources.display()))?;
    let archive = git(&["archive", PREVIOUS]).stdout(Stdio::piped()).spawn();
    let mut archive = archive.map_err(|error| format!("git archive: {error}"))?;
    let mut unpack = Command::new("tar");
    unpack.arg("-x").arg("-C").arg(sources);
    unpack.stdin(archive.stdout.take().map_or_else(Stdio::null, Stdio::from));
    let unpacked = done(unpack);
    let archived = archive.wait().map_err(|error| format!("git archive: {error}"))?;
    if !archived.success() {
        return Err(format!("git archive: {archived}"));
    }
    unpacked
}

fn git(arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(root()).args(arguments).stderr(Stdio::null());
    git
}

fn done(mut command: Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}
