//! What tests and benchmarks need on this machine beside the Rust toolchain: Debian packages.

use std::process::{Command, Stdio};

use crate::succeeds;

/// The end-to-end tests run foreign services in Python that speak gRPC, and have strace end the
/// node at a system call of their choice. systemd judges its own units.
pub const OF_TESTS: [&str; 5] =
    ["python3", "python3-grpcio", "python3-protobuf", "strace", "systemd"];

/// The machines of `vm-tests` are built of Debian packages, checked by Debian's keys, and emulated.
pub const OF_MACHINES: [&str; 4] =
    ["qemu-system-x86", "mmdebstrap", "e2fsprogs", "debian-archive-keyring"];

/// Installs what is missing, or says what to do.
pub fn install(packages: &[&str]) -> Result<(), String> {
    let mut missing = Vec::new();
    for package in packages {
        if !is_installed(package)? {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root()? {
        return Err(format!(
            "these packages are missing; install them with\n\n    sudo apt-get install -y {}\n",
            missing.join(" ")
        ));
    }
    println!("installing {}", missing.join(" "));
    if !succeeds(apt_get(&["update"])) {
        return Err("apt-get update failed".to_owned());
    }
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if !succeeds(apt_get(&install)) {
        return Err(format!("apt-get {} failed", install.join(" ")));
    }
    Ok(())
}

fn is_installed(package: &str) -> Result<bool, String> {
    let asked = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    let output = asked.map_err(|error| {
        format!(
            "cannot run dpkg-query ({error}): this is set up for Debian and its relatives, and \
             needs {package}"
        )
    })?;
    Ok(output.status.success() && output.stdout == b"installed")
}

fn is_root() -> Result<bool, String> {
    let output = Command::new("id").arg("-u").output();
    let output = output.map_err(|error| format!("cannot run id -u: {error}"))?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}
