//! What a process can be kept from before it executes: system calls, files, capabilities.
//! `spawn` puts it into force in the child. Knows nothing of services and what they need.

mod calls;
mod files;
mod filter;

pub use files::{Access, FileRules, Required};
pub use filter::{Families, Filter, FilterRules};

use std::ptr;

use crate::linux::users::User;

/// How a new process is confined. `Sandbox::default()` confines nothing.
#[derive(Debug, Default)]
pub struct Sandbox<'a> {
    /// The user it runs as; none: the user of this process.
    pub user: Option<&'a User>,
    /// The capabilities it keeps, as a bit mask; none: all that this process has.
    pub capabilities: Option<u64>,
    /// No program that it executes gives it rights that it has not (`PR_SET_NO_NEW_PRIVS`). Without
    /// it `files` and `filter` need CAP_SYS_ADMIN.
    pub no_new_privileges: bool,
    pub files: Option<&'a FileRules>,
    pub filter: Option<&'a Filter>,
}

/// What this kernel, or the sandbox around us, lets us use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Support {
    /// The version of Landlock's interface; 0: there is none, or it is switched off.
    pub landlock: u32,
    pub system_call_filter: bool,
}

impl Support {
    /// Asks the kernel.
    #[allow(unsafe_code, reason = "no library asks for the version and the filter alone")]
    pub fn find() -> Self {
        const VERSION: libc::c_long = 1;
        const ACTION_AVAILABLE: libc::c_long = 2;
        let nothing = ptr::null::<libc::c_void>();
        // SAFETY: with this flag the kernel looks at no memory and makes no descriptor.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
        let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
        let wanted = ptr::from_ref(&action);
        // SAFETY: the kernel reads one number, which outlives the call.
        let filter = unsafe { libc::syscall(libc::SYS_seccomp, ACTION_AVAILABLE, 0, wanted) };
        Self {
            landlock: u32::try_from(version).unwrap_or_default(),
            system_call_filter: filter == 0,
        }
    }
}
