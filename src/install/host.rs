//! The target's systemd: which version it is, and what it has to be told.
#![expect(
    clippy::disallowed_methods,
    reason = "an operator's verb waits for the commands it runs; the orchestrator is not here"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::InstallError;

const UNIT: &str = "blackhole.service";
/// There where systemd is the running system manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Its private library has the version in its name.
const LIBRARY: &str = "libsystemd-shared-";
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/blackhole.service";

/// By the files below `root`, which need not be a running system.
pub(super) fn systemd_version(root: &Path) -> Option<u32> {
    let mut folders = vec![root.join("usr/lib/systemd"), root.join("usr/lib64/systemd")];
    let multiarch = fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    folders.extend(multiarch.map(|entry| entry.path().join("systemd")));
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files.filter_map(|file| version_in(&file.file_name().to_string_lossy())).max()
}

/// `libsystemd-shared-252.so`, `libsystemd-shared-257.7-1.fc42.so`
fn version_in(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(LIBRARY)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// How the unit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    AtRest,
    Enabled,
    Active,
}

/// To whom something can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commands {
    /// The root is that of the running system.
    Running,
    /// It is an image, or systemd does not run here.
    Nobody,
}

impl Commands {
    pub(super) fn of(root: &Path) -> Self {
        let running = root == Path::new("/") && Path::new(BOOTED).is_dir();
        if running { Self::Running } else { Self::Nobody }
    }

    pub(super) fn unit(self, root: &Path) -> Unit {
        if self == Self::Running && is_active() {
            Unit::Active
        } else if root.join(ENABLED).symlink_metadata().is_ok() {
            Unit::Enabled
        } else {
            Unit::AtRest
        }
    }

    /// Makes the user, sets modes, has the unit read.
    pub(super) fn announce_installed(self, ran: &mut Vec<String>) -> Result<(), InstallError> {
        match self {
            Self::Running => {
                run(&["systemd-sysusers", "blackhole.conf"], ran)?;
                run(&["systemd-tmpfiles", "--create", "blackhole.conf"], ran)?;
                run(&["systemctl", "daemon-reload"], ran)
            }
            Self::Nobody => Ok(()),
        }
    }

    pub(super) fn announce_removed(self, ran: &mut Vec<String>) -> Result<(), InstallError> {
        match self {
            Self::Running => run(&["systemctl", "daemon-reload"], ran),
            Self::Nobody => Ok(()),
        }
    }

    /// What the operator wants next.
    pub(super) fn after_install(self, root: &Path) -> String {
        match self {
            // The new binary takes the place of the running one, and no service notices.
            Self::Running if is_active() => format!("systemctl reload {UNIT}"),
            Self::Running => format!("systemctl enable --now {UNIT}"),
            Self::Nobody => format!("systemctl {}enable {UNIT}", root_option(root)),
        }
    }

    pub(super) fn to_put_away(self, root: &Path) -> String {
        match self {
            Self::Running => format!("systemctl disable --now {UNIT}"),
            Self::Nobody => format!("systemctl {}disable {UNIT}", root_option(root)),
        }
    }
}

fn root_option(root: &Path) -> String {
    if root == Path::new("/") { String::new() } else { format!("--root={} ", root.display()) }
}

fn is_active() -> bool {
    let asked = Command::new("systemctl").args(["is-active", "--quiet", UNIT]).status();
    asked.is_ok_and(|status| status.success())
}

fn run(command: &[&str], ran: &mut Vec<String>) -> Result<(), InstallError> {
    let words = command.join(" ");
    let failed = |problem: String| InstallError::Command { command: words.clone(), problem };
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|reason| failed(reason.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, said.trim())));
    }
    ran.push(words);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_librarys_name() {
        assert_eq!(version_in("libsystemd-shared-252.so"), Some(252));
        assert_eq!(version_in("libsystemd-shared-257.7-1.fc42.so"), Some(257));
        assert_eq!(version_in("libsystemd-core-252.so"), None);
        assert_eq!(version_in("libsystemd-shared-x.so"), None);
    }

    #[test]
    fn an_image_is_told_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(systemd_version(root.path()), None);
        let folder = root.path().join("usr/lib/x86_64-linux-gnu/systemd");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libsystemd-shared-257.so"), "").unwrap();
        assert_eq!(systemd_version(root.path()), Some(257));
        assert_eq!(Commands::of(root.path()), Commands::Nobody);
    }

    #[test]
    fn an_enabled_unit_is_seen() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Commands::Nobody.unit(root.path()), Unit::AtRest);
        let link = root.path().join(ENABLED);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/usr/lib/systemd/system/blackhole.service", &link).unwrap();
        assert_eq!(Commands::Nobody.unit(root.path()), Unit::Enabled);
    }
}
