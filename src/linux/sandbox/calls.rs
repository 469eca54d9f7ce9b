//! The numbers of system calls on this architecture.

use std::ops::RangeInclusive;

use crate::units::SystemCall;

/// The system calls there were when this was written (Linux 6.10). Those in between do not exist.
#[cfg(target_arch = "x86_64")]
pub(super) const KNOWN: [RangeInclusive<u32>; 2] = [0..=336, 424..=462];
#[cfg(target_arch = "aarch64")]
pub(super) const KNOWN: [RangeInclusive<u32>; 2] = [0..=294, 424..=462];

/// `linux/audit.h`: the calling convention of a 64-bit program.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;

/// Its number, where this architecture has it.
pub(super) fn number(call: SystemCall) -> Option<u32> {
    let all = COMMON.iter().chain(OWN);
    let found = all.into_iter().find(|(name, _)| *name == call.name());
    found.and_then(|(_, number)| u32::try_from(*number).ok())
}

const COMMON: &[(&str, libc::c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("adjtimex", libc::SYS_adjtimex),
    ("bpf", libc::SYS_bpf),
    ("chroot", libc::SYS_chroot),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("clock_settime", libc::SYS_clock_settime),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("delete_module", libc::SYS_delete_module),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("init_module", libc::SYS_init_module),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    // Not in the libc crate; the same on every architecture.
    ("lsm_set_self_attr", 460),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pivot_root", libc::SYS_pivot_root),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday),
    ("socket", libc::SYS_socket),
    ("swapoff", libc::SYS_swapoff),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("vhangup", libc::SYS_vhangup),
];

#[cfg(target_arch = "x86_64")]
const OWN: &[(&str, libc::c_long)] = &[
    ("ioperm", libc::SYS_ioperm),
    ("iopl", libc::SYS_iopl),
    ("modify_ldt", libc::SYS_modify_ldt),
    ("sysfs", libc::SYS_sysfs),
    ("uselib", libc::SYS_uselib),
    ("ustat", libc::SYS_ustat),
];
#[cfg(target_arch = "aarch64")]
const OWN: &[(&str, libc::c_long)] = &[];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_refused_call_has_its_number_here() {
        let named: BTreeSet<&str> = COMMON.iter().chain(OWN).map(|(name, _)| *name).collect();
        assert_eq!(named.len(), COMMON.len() + OWN.len());
        for call in SystemCall::all() {
            let own_elsewhere = cfg!(target_arch = "aarch64") && number(call).is_none();
            assert!(named.contains(call.name()) || own_elsewhere, "{call}");
        }
        let numbers: Vec<u32> = SystemCall::all().filter_map(number).collect();
        assert!(numbers.iter().all(|n| KNOWN.iter().any(|known| known.contains(n))));
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        assert_eq!(named.len(), numbers.len());
    }
}
