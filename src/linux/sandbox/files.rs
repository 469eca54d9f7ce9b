//! Which files a process may use, for Landlock: what is not named here it cannot open, and what is
//! outside it cannot signal or trace. Source: landlock(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{Mode, OFlags};

use crate::linux::error::{Error, failed};

/// What may be done with a file, or with all that is in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Read,
    ReadAndExecute,
    /// Reading, writing and what a device's own commands do; neither making nor removing.
    Use,
    /// Everything but executing.
    Write,
    /// Everything.
    WriteAndExecute,
}

/// A Landlock ruleset that a new process puts into force for itself.
#[derive(Debug)]
pub struct FileRules {
    ruleset: OwnedFd,
}

/// The newest version whose rights this was written for (Linux 7.0). Later ones add no rights here:
/// those are not taken away.
const NEWEST: ABI = ABI::V8;

impl FileRules {
    /// Rules by which only these paths can be used. What `required` says of a path that does not
    /// exist holds: it is left out, or an error. `None` where the kernel has no Landlock.
    ///
    /// An older Landlock lets pass what it does not know: truncating files before version 3,
    /// commands to devices before 5, signals and abstract sockets before 6.
    pub fn new<'a>(
        rules: impl IntoIterator<Item = (&'a Path, Access, Required)>,
    ) -> Result<Option<Self>, Error> {
        let mut created = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
            .and_then(Ruleset::create)
            .map_err(refused("make", "Landlock rules"))?;
        for (path, access, required) in rules {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let file = match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(file) => file,
                Err(_) if required == Required::No => continue,
                Err(reason) => {
                    return Err(failed("make usable inside the sandbox", path.display())(reason));
                }
            };
            let rule = PathBeneath::new(file.as_fd(), access.rights());
            created = created
                .add_rule(rule)
                .map_err(refused("make usable inside the sandbox", path.display()))?;
        }
        let ruleset: Option<OwnedFd> = created.into();
        Ok(ruleset.map(|ruleset| Self { ruleset }))
    }

    pub(in crate::linux) fn ruleset(&self) -> &OwnedFd {
        &self.ruleset
    }
}

/// Whether a path has to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    Yes,
    No,
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        let execute = BitFlags::from(AccessFs::Execute);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::Read => read,
            Self::ReadAndExecute => read | execute,
            Self::Use => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
            Self::Write => AccessFs::from_all(NEWEST) & !execute,
            Self::WriteAndExecute => AccessFs::from_all(NEWEST),
        }
    }
}

fn refused(
    operation: &'static str,
    object: impl std::fmt::Display,
) -> impl FnOnce(RulesetError) -> Error {
    move |reason| Error::Sandbox { operation, object: object.to_string(), reason: Box::new(reason) }
}
