//! The one list of built-in services: name, proto, keys of their own, what they are handed, default
//! limits, sandbox profile, dependencies. A new service is one entry here, one folder in `service/`
//! and one proto; the compiler names what was forgotten.

use crate::units::{ByteSize, ServiceName};

/// A service that is this same binary with other arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    Identity,
    Storage,
    Ledger,
    Gateway,
}

/// What is known of a built-in service before any configuration.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    /// The gRPC service it offers; empty: only health.
    pub grpc_service: &'static str,
    pub memory: ByteSize,
    pub max_files: u64,
    pub depends_on: &'static [Builtin],
    /// How many instances may share its data.
    pub instances: u16,
    /// The keys of the configuration that no other service has.
    pub keys: &'static [SizeKey],
    /// What it is handed beside its own gRPC sockets.
    pub needs: &'static [Need],
    pub profile: Profile,
}

/// The most instances that any service may have.
pub const INSTANCES: u16 = 64;

/// What a built-in service is handed beside its gRPC sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The listeners of `[api]`. The service has no port and no socket file of its own.
    Api,
    /// A broker that gives it connections to the orchestrator's read-only `StatusFeed`.
    Status,
}

/// A key of the configuration whose value is a size in bytes, and is told to the service as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeKey {
    pub key: &'static str,
    pub section: KeySection,
    /// None: no limit, which can be written too.
    pub default: Option<ByteSize>,
    pub least: ByteSize,
    pub most: ByteSize,
    /// One of these has to fit into it.
    pub holds: Option<&'static SizeKey>,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySection {
    /// `[services.NAME]`
    Service,
    /// `[services.NAME.resources]`
    Resources,
}

/// The largest block that storage takes.
pub const STORAGE_MAX_BLOCK: SizeKey = SizeKey {
    key: "max_block",
    section: KeySection::Service,
    default: Some(ByteSize::mib(4)),
    least: ByteSize::kib(1),
    most: ByteSize::mib(64),
    holds: None,
};

/// What storage may keep on its disk.
pub const STORAGE_DISK: SizeKey = SizeKey {
    key: "disk",
    section: KeySection::Resources,
    default: None,
    least: ByteSize::mib(1),
    most: ByteSize::gib(1 << 20),
    holds: Some(&STORAGE_MAX_BLOCK),
};

/// The largest payload of one entry of the ledger.
pub const LEDGER_MAX_ENTRY: SizeKey = SizeKey {
    key: "max_entry",
    section: KeySection::Service,
    default: Some(ByteSize::mib(1)),
    least: ByteSize::kib(1),
    most: ByteSize::mib(16),
    holds: None,
};

/// What a service needs of the system; from everything else it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// This binary: its libraries, its own folders, the sockets it is handed and Unix sockets.
    /// Neither other programs nor sockets of the internet.
    Own,
    /// As `Own`, and who speaks to the internet: sockets of IPv4 and IPv6, and what tells the names
    /// of hosts and whose certificates to trust.
    Internet,
    /// Any program: what is installed on the system, read-only, its own folders, and sockets.
    Program,
}

impl Profile {
    /// As `status --security` says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Internet => "internet",
            Self::Program => "program",
        }
    }
}

impl Builtin {
    /// In the order in which an operator expects to read them.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Storage, Self::Ledger, Self::Gateway];

    pub const fn entry(self) -> Entry {
        match self {
            Self::Identity => Entry {
                name: "identity",
                grpc_service: "blackhole.identity.v1.Identity",
                memory: ByteSize::mib(512),
                max_files: 1024,
                depends_on: &[],
                instances: INSTANCES,
                keys: &[],
                needs: &[],
                profile: Profile::Own,
            },
            Self::Storage => Entry {
                name: "storage",
                grpc_service: "blackhole.storage.v1.Storage",
                memory: ByteSize::gib(2),
                max_files: 4096,
                depends_on: &[Self::Identity],
                instances: INSTANCES,
                keys: &[STORAGE_MAX_BLOCK, STORAGE_DISK],
                needs: &[],
                profile: Profile::Own,
            },
            Self::Ledger => Entry {
                name: "ledger",
                grpc_service: "blackhole.ledger.v1.Ledger",
                memory: ByteSize::gib(1),
                max_files: 2048,
                depends_on: &[Self::Identity],
                instances: 1,
                keys: &[LEDGER_MAX_ENTRY],
                needs: &[],
                profile: Profile::Own,
            },
            Self::Gateway => Entry {
                name: "gateway",
                grpc_service: "",
                memory: ByteSize::mib(512),
                max_files: 8192,
                depends_on: &[Self::Identity, Self::Storage, Self::Ledger],
                instances: INSTANCES,
                keys: &[],
                needs: &[Need::Api, Need::Status],
                profile: Profile::Own,
            },
        }
    }

    pub fn needs(self, need: Need) -> bool {
        self.entry().needs.contains(&need)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.entry().name == name)
    }

    pub fn service_name(self) -> ServiceName {
        self.entry().name.parse().expect("catalog names are service names: a test holds it")
    }
}

/// Services of the node's plan that this version does not have yet. Enabling one is an error that
/// says so, rather than "unknown service".
pub const COMING: [&str; 2] = ["analytics", "social"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_usable_and_depends_only_on_earlier_ones() {
        for (position, builtin) in Builtin::ALL.into_iter().enumerate() {
            assert_eq!(builtin.service_name().as_str(), builtin.entry().name);
            assert_eq!(Builtin::from_name(builtin.entry().name), Some(builtin));
            for dependency in builtin.entry().depends_on {
                assert!(Builtin::ALL[..position].contains(dependency), "{builtin:?}");
            }
        }
    }

    #[test]
    fn a_default_is_a_value_that_could_be_written() {
        for key in Builtin::ALL.iter().flat_map(|builtin| builtin.entry().keys) {
            let held = key.holds.and_then(|held| held.default);
            let may_be = |size: ByteSize| (key.least..=key.most).contains(&size);
            assert!(key.default.is_none_or(may_be), "{}", key.key);
            assert!(key.default.is_none_or(|default| held.is_none_or(|held| held <= default)));
        }
    }
}
