//! What a child takes from itself before it executes: user, capabilities, files, system calls.
//!
//! `Confinement` is prepared by the parent; the rest runs in the child, which may share the
//! parent's memory: raw system calls only. The C library's `setuid` and its like would send signals
//! to threads that are the parent's.
#![allow(unsafe_code, reason = "credentials, Landlock and seccomp by their raw system calls")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use super::errno::checked;
use super::report::{FailureNote, Stage, at};
use crate::linux::error::Error;
use crate::linux::sandbox::Sandbox;
use crate::units::capability_names;

/// `_LINUX_CAPABILITY_VERSION_3`: two halves of 32 bits.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// Capabilities that there may be.
const CAPABILITIES: u32 = 64;
const CAP_SETPCAP: u64 = 1 << 8;

/// Everything of a sandbox that the child needs.
pub(super) struct Confinement<'a> {
    user: Option<PreparedUser<'a>>,
    capabilities: Option<PreparedCapabilities>,
    no_new_privileges: bool,
    ruleset: Option<OwnedFd>,
    filter: Option<libc::sock_fprog>,
}

struct PreparedUser<'a> {
    uid: u32,
    gid: u32,
    groups: &'a [u32],
}

struct PreparedCapabilities {
    keep: u64,
    /// To be taken out of the bounding set.
    drop: u64,
    before: Sets,
}

impl<'a> Confinement<'a> {
    /// An error where a capability is to be kept that we do not have.
    /// `lifted` duplicates a descriptor above all that the child overwrites.
    pub(super) fn prepare(
        sandbox: &'a Sandbox<'_>,
        program: &str,
        lifted: impl Fn(BorrowedFd<'_>) -> Result<OwnedFd, Error>,
    ) -> Result<Self, Error> {
        let capabilities = match sandbox.capabilities {
            Some(keep) => Some(PreparedCapabilities::prepare(keep, program)?),
            None => None,
        };
        let user = sandbox.user.map(|user| PreparedUser {
            uid: user.uid,
            gid: user.gid,
            groups: &user.groups,
        });
        let filter = sandbox.filter.map(|filter| {
            let program = filter.program();
            libc::sock_fprog {
                len: u16::try_from(program.len()).unwrap_or(u16::MAX),
                filter: program.as_ptr().cast_mut(),
            }
        });
        Ok(Self {
            user,
            capabilities,
            no_new_privileges: sandbox.no_new_privileges,
            ruleset: match sandbox.files {
                Some(files) => Some(lifted(files.ruleset().as_fd())?),
                None => None,
            },
            filter,
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
        let missing = keep & !own.permitted;
        if missing != 0 {
            let names = capability_names(missing).join(", ");
            return Err(Error::NoCapability { program: program.to_owned(), names });
        }
        // Without this right the set stays as it is; nobody can use it under no_new_privs.
        let may_drop = own.effective & CAP_SETPCAP != 0;
        let drop = if may_drop { bounding_set() & !keep } else { 0 };
        Ok(Self { keep, drop, before: own })
    }
}

/// In the child. The filter comes later, as the last of all.
pub(super) fn confine(confinement: &Confinement<'_>) -> Result<(), FailureNote> {
    if let Some(capabilities) = &confinement.capabilities {
        capabilities.drop_bounding().map_err(at(Stage::Capabilities, 0))?;
    }
    if let Some(user) = &confinement.user {
        let keep = confinement.capabilities.as_ref().map_or(0, |capabilities| capabilities.keep);
        user.become_it(keep).map_err(at(Stage::User, 0))?;
    }
    if let Some(capabilities) = &confinement.capabilities {
        capabilities.keep_only().map_err(at(Stage::Capabilities, 0))?;
    }
    if confinement.no_new_privileges {
        control(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(at(Stage::NoNewPrivileges, 0))?;
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
    let Some(program) = &confinement.filter else { return Ok(()) };
    let program = ptr::from_ref(program);
    // SAFETY: the program is as long as it says; the kernel copies it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, program) };
    checked(done).map_err(at(Stage::Filter, 0))
}

impl PreparedUser<'_> {
    fn become_it(&self, keep: u64) -> Result<(), Errno> {
        if keep != 0 {
            control(libc::PR_SET_KEEPCAPS, 1, 0)?;
        }
        let (length, groups) = (self.groups.len(), self.groups.as_ptr());
        // SAFETY: there are as many groups as said.
        checked(unsafe { libc::syscall(libc::SYS_setgroups, length, groups) })?;
        // SAFETY: plain numbers.
        checked(unsafe { libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid) })?;
        // SAFETY: plain numbers.
        checked(unsafe { libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid) })
    }
}

impl PreparedCapabilities {
    fn drop_bounding(&self) -> Result<(), Errno> {
        control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
        for capability in members(self.drop) {
            control(libc::PR_CAPBSET_DROP, capability, 0)?;
        }
        Ok(())
    }

    /// Ambient ones stay over the execution of any program. Who has none to drop does not ask: a
    /// service manager's filter may forbid it.
    fn keep_only(&self) -> Result<(), Errno> {
        if self.before == Sets::default() {
            return Ok(());
        }
        set_capabilities(Sets {
            effective: self.keep,
            permitted: self.keep,
            inheritable: self.keep,
        })?;
        for capability in members(self.keep) {
            control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability)?;
        }
        Ok(())
    }
}

fn members(bits: u64) -> impl Iterator<Item = i32> {
    (0..)
        .take_while(|number| *number < CAPABILITIES.cast_signed())
        .filter(move |number| bits & (1 << number) != 0)
}

/// `prctl(2)` with plain numbers.
fn control(what: libc::c_int, first: libc::c_int, second: libc::c_int) -> Result<(), Errno> {
    let (first, second) = (libc::c_long::from(first), libc::c_long::from(second));
    // SAFETY: none of the operations used here takes a pointer.
    checked(unsafe { libc::syscall(libc::SYS_prctl, what, first, second, 0, 0) })
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// The lower 32 bits of each set, then the upper ones.
#[repr(C)]
#[derive(Default)]
struct Halves([[u32; 3]; 2]);

const OURS: Header = Header { version: CAPABILITY_VERSION, pid: 0 };

fn set_capabilities(sets: Sets) -> Result<(), Errno> {
    let half = |shift: u32| {
        let of = |set: u64| u32::try_from(set >> shift & u64::from(u32::MAX)).unwrap_or_default();
        [of(sets.effective), of(sets.permitted), of(sets.inheritable)]
    };
    let (header, data) = (OURS, Halves([half(0), half(32)]));
    let (header, data) = (ptr::from_ref(&header), ptr::from_ref(&data));
    // SAFETY: both are as large as this version of the structure says.
    checked(unsafe { libc::syscall(libc::SYS_capset, header, data) })
}

/// Those of this thread; none where they cannot be told.
fn own_capabilities() -> Sets {
    let (header, mut data) = (OURS, Halves::default());
    let pointers = (ptr::from_ref(&header), ptr::from_mut(&mut data));
    // SAFETY: both are as large as this version of the structure says.
    let done = unsafe { libc::syscall(libc::SYS_capget, pointers.0, pointers.1) };
    if checked(done).is_err() {
        return Sets::default();
    }
    let Halves([low, high]) = data;
    let [effective, permitted, inheritable] =
        [0, 1, 2].map(|set: usize| u64::from(low[set]) | u64::from(high[set]) << 32);
    Sets { effective, permitted, inheritable }
}

/// What this thread's programs can gain at most.
fn bounding_set() -> u64 {
    let holds = |number: &u32| {
        let number = libc::c_long::from(*number);
        // SAFETY: it reads one flag; numbers that do not exist are refused.
        unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, number, 0, 0, 0) == 1 }
    };
    (0..CAPABILITIES).filter(holds).fold(0, |bits, number| bits | 1 << number)
}
