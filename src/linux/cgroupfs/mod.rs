//! Control groups, version 2: where the hierarchy is, and single operations on a group.
//!
//! Nothing here decides which controllers a group has, or touches a group that it was not given.
//! Source: Documentation/admin-guide/cgroup-v2.rst of the kernel.

mod events;
mod group;
mod hierarchy;
#[cfg(test)]
mod tests;

pub use events::{LimitEvents, MemoryStalls};
pub use group::Group;
pub use hierarchy::Hierarchy;
