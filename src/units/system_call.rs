//! The system calls that services are refused, by name.

use std::fmt;
use std::str::FromStr;

/// A system call that no service needs in its daily work, and that its sandbox therefore refuses;
/// or, for `clone` and `socket`, refuses in part. Only these can be given back to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemCall(&'static str);

impl SystemCall {
    /// New name spaces, which `clone` makes by its flags. `clone3` hides its flags from a filter.
    pub const CLONE: Self = Self("clone");
    pub const CLONE3: Self = Self("clone3");
    /// Other families than Unix, IPv4, IPv6 and netlink.
    pub const SOCKET: Self = Self("socket");

    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(Self)
    }

    pub const fn name(self) -> &'static str {
        self.0
    }
}

const NAMES: [&str; 59] = [
    // Name spaces of its own, in which it would be root, and those of others.
    "clone",
    "clone3",
    "setns",
    "unshare",
    // What is mounted where.
    "chroot",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "swapoff",
    "swapon",
    "umount2",
    // Other processes' memory, descriptors and secrets.
    "kcmp",
    "perf_event_open",
    "pidfd_getfd",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "add_key",
    "keyctl",
    "request_key",
    // The kernel itself, and its largest surfaces.
    "bpf",
    "delete_module",
    "finit_module",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "lsm_set_self_attr",
    "userfaultfd",
    // The machine as a whole.
    "acct",
    "reboot",
    "setdomainname",
    "sethostname",
    "syslog",
    "vhangup",
    "quotactl",
    "quotactl_fd",
    "fanotify_init",
    // Past the permissions of folders.
    "open_by_handle_at",
    // The clock.
    "adjtimex",
    "clock_adjtime",
    "clock_settime",
    "settimeofday",
    // The processor's ports and segments.
    "ioperm",
    "iopl",
    "modify_ldt",
    // Obsolete; and sockets of unusual families.
    "lookup_dcookie",
    "socket",
    "sysfs",
    "uselib",
    "ustat",
];

impl fmt::Display for SystemCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for SystemCall {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().find(|call| call.0 == text);
        found.ok_or_else(|| "a system call that services are refused, such as ptrace".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_there_once_and_read_back() {
        let all: BTreeSet<SystemCall> = SystemCall::all().collect();
        assert_eq!(all.len(), NAMES.len());
        for call in &all {
            assert_eq!(call.name().parse(), Ok(*call));
        }
        assert!("read".parse::<SystemCall>().is_err());
        for special in [SystemCall::CLONE, SystemCall::CLONE3, SystemCall::SOCKET] {
            assert!(all.contains(&special));
        }
    }
}
