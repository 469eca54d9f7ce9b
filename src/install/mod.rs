//! Puts the node on a host as a service, and takes it away again: its binary, the systemd units,
//! the configuration, manual pages and completions, with a manifest of what was written.
//!
//! What belongs where is `package`, what has to be done `steps`: both are pure. `disk` does it, all
//! or nothing; `host` asks and tells systemd. Nothing here knows the node itself.

mod disk;
mod error;
mod host;
mod manifest;
mod package;
mod steps;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::{Conflict, InstallError};
pub use package::{Content, Item, Package, Page, Role};
pub use steps::{Deed, Others, What};

use disk::{Root, Transaction};
use host::{Commands, Unit};
use manifest::{MANIFEST, Manifest};
use steps::{Found, Steps};

/// Where to, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// `/`, or the root folder of an image.
    pub root: PathBuf,
    /// The version of its systemd, where that is not to be looked up.
    pub systemd: Option<u32>,
    pub others: Others,
    pub extent: Extent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Only tell what would be done.
    DryRun,
    Real,
}

/// What was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub deeds: Vec<Deed>,
    /// Of the target; `None` where none was found.
    pub systemd: Option<u32>,
    /// Commands that were run.
    pub ran: Vec<String>,
    /// What the operator has to know.
    pub remarks: Vec<String>,
    /// The command that the operator wants next, if any.
    pub next: Option<String>,
}

/// Puts everything in its place, or changes nothing.
pub fn install(target: &Target, package: Package) -> Result<Report, InstallError> {
    let root = Root::open(&target.root)?;
    let systemd = target.systemd.or_else(|| host::systemd_version(root.path()));
    let items = package::items(package, systemd);
    let before = manifest(&root)?;
    let wanted = items.iter().map(|item| Ok((item, root.digest_of(&item.content)?)));
    let wanted = wanted.collect::<Result<Vec<_>, InstallError>>()?;
    let found = look(&root, items.iter().map(|item| item.path.as_str()), &before)?;
    let steps = Steps::to_install(&wanted, &found, &before, target.others)?;
    let commands = Commands::of(root.path());
    let mut report = Report {
        deeds: steps.deeds(),
        systemd,
        ran: Vec::new(),
        remarks: remarks(systemd, &target.root),
        next: Some(commands.after_install(&target.root)),
    };
    if target.extent == Extent::Real {
        let mut transaction = Transaction::begin(&root, steps.paths())?;
        let done = transaction
            .carry_out(&steps, &before)
            .and_then(|()| commands.announce_installed(&mut report.ran));
        finish(transaction, done, &commands, &mut report)?;
    }
    Ok(report)
}

/// Takes away what the manifest lists and nobody has changed since.
pub fn uninstall(target: &Target) -> Result<Report, InstallError> {
    let root = Root::open(&target.root)?;
    let before = manifest(&root)?;
    if before.is_empty() {
        return Err(InstallError::NotInstalled { manifest: root.path().join(MANIFEST) });
    }
    let commands = Commands::of(root.path());
    match commands.unit(root.path()) {
        Unit::AtRest => {}
        Unit::Enabled | Unit::Active => {
            return Err(InstallError::InUse { command: commands.to_put_away(&target.root) });
        }
    }
    let found = look(&root, [], &before)?;
    let steps = Steps::to_uninstall(&found, &before);
    let data = "the data in /var/lib/blackhole and /var/cache/blackhole, and the user blackhole, \
                are left";
    let mut report = Report {
        deeds: steps.deeds(),
        systemd: None,
        ran: Vec::new(),
        remarks: vec![data.to_owned()],
        next: None,
    };
    if target.extent == Extent::Real {
        let mut transaction = Transaction::begin(&root, steps.paths())?;
        let done = transaction
            .carry_out(&steps, &before)
            .and_then(|()| commands.announce_removed(&mut report.ran));
        finish(transaction, done, &commands, &mut report)?;
    }
    Ok(report)
}

fn finish(
    transaction: Transaction<'_>,
    done: Result<(), InstallError>,
    commands: &Commands,
    report: &mut Report,
) -> Result<(), InstallError> {
    match done {
        Ok(()) => {
            report.remarks.extend(transaction.commit());
            Ok(())
        }
        Err(cause) => {
            let left = transaction.roll_back();
            // systemd may have read units that are gone again.
            let _told_as_well_as_can_be = commands.announce_removed(&mut Vec::new());
            if left.is_empty() {
                return Err(cause);
            }
            Err(InstallError::NotUndone { cause: Box::new(cause), left })
        }
    }
}

fn remarks(systemd: Option<u32>, root: &Path) -> Vec<String> {
    if systemd.is_some() {
        return Vec::new();
    }
    vec![format!(
        "no systemd was found in {}: the unit is written as for version 252; --systemd VERSION \
         says otherwise",
        root.display()
    )]
}

fn manifest(root: &Root) -> Result<Manifest, InstallError> {
    match root.read(MANIFEST)? {
        Some(text) => Manifest::parse(&text).map_err(|problem| InstallError::Manifest {
            path: root.path().join(MANIFEST),
            problem,
        }),
        None => Ok(Manifest::default()),
    }
}

/// How it looks in all places that are concerned.
fn look<'a>(
    root: &Root,
    items: impl IntoIterator<Item = &'a str>,
    before: &'a Manifest,
) -> Result<BTreeMap<String, Found>, InstallError> {
    let places = items.into_iter().chain(before.paths());
    places.map(|path| Ok((path.to_owned(), root.look(path)?))).collect()
}
