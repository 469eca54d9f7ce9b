//! The one list of built-in services: name, proto, default limits, sandbox profile, dependencies. A
//! new service is one entry here, one folder in `service/` and one proto; the compiler names what
//! was forgotten.

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
    /// Further sockets and channels it is handed beside its own Unix socket.
    pub extras: Extras,
    pub profile: Profile,
}

/// The most instances that any service may have.
pub const INSTANCES: u16 = 64;

/// What a built-in service is handed beside its gRPC sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    None,
    /// The API's TCP listener and the read-only channel to the orchestrator's status.
    ApiAndStatus,
}

/// What a service needs of the system; from everything else it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// This binary: its libraries, its own folders, the sockets it is handed and Unix sockets.
    /// Neither other programs nor sockets of the internet.
    Own,
    /// Any program: what is installed on the system, read-only, its own folders, and sockets.
    Program,
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
                extras: Extras::None,
                profile: Profile::Own,
            },
            Self::Storage => Entry {
                name: "storage",
                grpc_service: "blackhole.storage.v1.Storage",
                memory: ByteSize::gib(2),
                max_files: 4096,
                depends_on: &[Self::Identity],
                instances: INSTANCES,
                extras: Extras::None,
                profile: Profile::Own,
            },
            Self::Ledger => Entry {
                name: "ledger",
                grpc_service: "blackhole.ledger.v1.Ledger",
                memory: ByteSize::gib(1),
                max_files: 2048,
                depends_on: &[Self::Identity],
                instances: 1,
                extras: Extras::None,
                profile: Profile::Own,
            },
            Self::Gateway => Entry {
                name: "gateway",
                grpc_service: "",
                memory: ByteSize::mib(512),
                max_files: 8192,
                depends_on: &[Self::Identity, Self::Storage, Self::Ledger],
                instances: INSTANCES,
                extras: Extras::ApiAndStatus,
                profile: Profile::Own,
            },
        }
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
}
