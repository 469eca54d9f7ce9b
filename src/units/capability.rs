//! Linux capabilities by name (capabilities(7)).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// In the order of their numbers, which begin with 0.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// One capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).zip(NAMES).map(|(number, _)| Self(number))
    }

    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    /// Its number in `linux/capability.h`.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Its bit in a set as the kernel has it.
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().find(|one| one.name() == text);
        found.ok_or_else(|| "a capability's name, such as CAP_NET_BIND_SERVICE".to_owned())
    }
}

/// The set as one number, as the kernel has it.
pub fn capability_bits(all: &BTreeSet<Capability>) -> u64 {
    all.iter().fold(0, |bits, one| bits | one.bit())
}

/// The names in a set as the kernel has it; numbers that have no name here as `CAP_63`.
pub fn capability_names(bits: u64) -> Vec<String> {
    let name = |number: usize| match NAMES.get(number) {
        Some(name) => (*name).to_owned(),
        None => format!("CAP_{number}"),
    };
    (0..64).filter(|number| bits & (1 << number) != 0).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_kernel() {
        for (name, number) in
            [("CAP_CHOWN", 0), ("CAP_NET_BIND_SERVICE", 10), ("CAP_CHECKPOINT_RESTORE", 40)]
        {
            let one: Capability = name.parse().unwrap();
            assert_eq!((one.number(), one.to_string()), (number, name.to_owned()));
        }
        assert!("cap_chown".parse::<Capability>().is_err());
        let two = BTreeSet::from(["CAP_KILL".parse().unwrap(), "CAP_CHOWN".parse().unwrap()]);
        assert_eq!(capability_bits(&two), 0x21);
        assert_eq!(capability_names(0x21 | 1 << 50), ["CAP_CHOWN", "CAP_KILL", "CAP_50"]);
    }
}
