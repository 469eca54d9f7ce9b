//! What a child takes from itself before it executes: user, capabilities, files, system calls.
//!
//! `Confinement` is prepared by the parent; the rest runs in the child, which may share the
//! parent's memory: system calls of one thread only. The C library's `setuid` and its like would
//! send signals to threads that are the parent's; rustix's `set_thread_*` do not.
#![allow(unsafe_code, reason = "Landlock and seccomp by their raw system calls")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::errno::checked;
use super::report::{FailureNote, Stage, at};
use crate::linux::error::Error;
use crate::linux::sandbox::{Filter, Sandbox};
use crate::linux::users::User;
use crate::units::capability_names;

/// Everything of a sandbox that the child needs.
pub(super) struct Confinement<'a> {
    user: Option<PreparedUser>,
    capabilities: Option<PreparedCapabilities>,
    no_new_privileges: bool,
    ruleset: Option<OwnedFd>,
    filter: Option<&'a Filter>,
}

struct PreparedUser {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

struct PreparedCapabilities {
    keep: CapabilitySet,
    /// To be taken out of the bounding set.
    drop: CapabilitySet,
    before: CapabilitySets,
}

impl<'a> Confinement<'a> {
    /// An error where a capability is to be kept that we do not have.
    /// `duplicate` gives a descriptor above all that the child overwrites.
    pub(super) fn prepare(
        sandbox: &Sandbox<'a>,
        program: &str,
        duplicate: impl Fn(BorrowedFd<'_>) -> Result<OwnedFd, Error>,
    ) -> Result<Self, Error> {
        let capabilities = match sandbox.capabilities {
            Some(keep) => Some(PreparedCapabilities::prepare(keep, program)?),
            None => None,
        };
        Ok(Self {
            user: sandbox.user.map(PreparedUser::prepare),
            capabilities,
            no_new_privileges: sandbox.no_new_privileges,
            ruleset: match sandbox.files {
                Some(files) => Some(duplicate(files.ruleset().as_fd())?),
                None => None,
            },
            filter: sandbox.filter,
        })
    }

    /// The child is another user's. Then it must not borrow our memory: the kernel would take our
    /// memory for one that has changed its rights, and forbid its dumps and debuggers for good.
    pub(super) fn changes_user(&self) -> bool {
        self.user.is_some()
    }
}

impl PreparedCapabilities {
    fn prepare(keep: u64, program: &str) -> Result<Self, Error> {
        let own = own_capabilities();
        let missing = keep & !own.permitted.bits();
        if missing != 0 {
            let names = capability_names(missing).join(", ");
            return Err(Error::NoCapability { program: program.to_owned(), names });
        }
        let keep = CapabilitySet::from_bits_retain(keep);
        // Without this right the set stays as it is; nobody can use it under no_new_privs.
        let may_drop = own.effective.contains(CapabilitySet::SETPCAP);
        let drop = if may_drop { bounding_set().difference(keep) } else { NO_CAPABILITY };
        Ok(Self { keep, drop, before: own })
    }
}

/// In the child. The filter comes later, as the last of all.
pub(super) fn confine(confinement: &Confinement<'_>) -> Result<(), FailureNote> {
    if let Some(capabilities) = &confinement.capabilities {
        capabilities.drop_bounding().map_err(at(Stage::Capabilities, 0))?;
    }
    if let Some(user) = &confinement.user {
        let capabilities = confinement.capabilities.as_ref();
        let keep = capabilities.map_or(NO_CAPABILITY, |capabilities| capabilities.keep);
        user.become_it(keep).map_err(at(Stage::User, 0))?;
    }
    if let Some(capabilities) = &confinement.capabilities {
        capabilities.keep_only().map_err(at(Stage::Capabilities, 0))?;
    }
    if confinement.no_new_privileges {
        set_no_new_privs(true).map_err(at(Stage::NoNewPrivileges, 0))?;
    }
    if let Some(ruleset) = &confinement.ruleset {
        let ruleset = ruleset.as_raw_fd();
        // SAFETY: the descriptor is of a ruleset; nothing else is read.
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) };
        checked(done).map_err(at(Stage::Files, 0))?;
    }
    Ok(())
}

/// In the child. What comes after it has to pass the filter.
pub(super) fn filter(confinement: &Confinement<'_>) -> Result<(), FailureNote> {
    const SET_MODE_FILTER: libc::c_long = 1;
    let Some(filter) = confinement.filter else { return Ok(()) };
    let instructions = filter.program();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).unwrap_or(u16::MAX),
        filter: instructions.as_ptr().cast_mut(),
    };
    let program = ptr::from_ref(&program);
    // SAFETY: the program is as long as it says; the kernel copies it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, program) };
    checked(done).map_err(at(Stage::Filter, 0))
}

impl PreparedUser {
    fn prepare(user: &User) -> Self {
        Self {
            uid: Uid::from_raw_unchecked(user.uid),
            gid: Gid::from_raw_unchecked(user.gid),
            groups: user.groups.iter().copied().map(Gid::from_raw_unchecked).collect(),
        }
    }

    fn become_it(&self, keep: CapabilitySet) -> Result<(), Errno> {
        if !keep.is_empty() {
            set_keep_capabilities(true)?;
        }
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        set_thread_res_uid(self.uid, self.uid, self.uid)
    }
}

impl PreparedCapabilities {
    fn drop_bounding(&self) -> Result<(), Errno> {
        clear_ambient_capability_set()?;
        members(self.drop).try_for_each(remove_capability_from_bounding_set)
    }

    /// Ambient ones stay over the execution of any program. Who has none to drop does not ask: a
    /// service manager's filter may forbid it.
    fn keep_only(&self) -> Result<(), Errno> {
        if self.before == NO_CAPABILITIES {
            return Ok(());
        }
        let keep = self.keep;
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: keep };
        set_capabilities(None, sets)?;
        members(keep).try_for_each(|one| configure_capability_in_ambient_set(one, true))
    }
}

const NO_CAPABILITY: CapabilitySet = CapabilitySet::empty();

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: NO_CAPABILITY,
    permitted: NO_CAPABILITY,
    inheritable: NO_CAPABILITY,
};

/// Every capability that there may be, each as a set of its own; the kernel's may be newer than our
/// names.
fn each() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

fn members(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    each().filter(move |one| set.contains(*one))
}

/// Those of this thread; none where they cannot be told.
fn own_capabilities() -> CapabilitySets {
    capabilities(None).unwrap_or(NO_CAPABILITIES)
}

/// What this thread's programs can gain at most. The kernel refuses the first number that it has no
/// capability for, and all above it.
fn bounding_set() -> CapabilitySet {
    let known = each().map_while(|one| Some((one, capability_is_in_bounding_set(one).ok()?)));
    known.filter(|(_, is_in)| *is_in).map(|(one, _)| one).collect()
}
