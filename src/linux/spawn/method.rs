//! The two ways in which a child can be made.

use std::fmt;

/// How a child gets into its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnMethod {
    /// It is born in it: `clone3` with `CLONE_INTO_CGROUP`, Linux 5.7.
    Clone3,
    /// It joins before it executes: for older kernels, and sandboxes that refuse `clone3`.
    CloneThenJoin,
}

impl fmt::Display for SpawnMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone3 => f.pad("clone3"),
            Self::CloneThenJoin => f.pad("clone, then join"),
        }
    }
}
