//! Debian machines in QEMU for tests that need a real systemd, cgroup v2 with all controllers, or a
//! kernel that may be hurt. Knows of the node only how it is built and installed (`node`).
//!
//! In reading order: `release` which machines there are, `image` how one is built, booted once and
//! kept, `qemu` a running one, `agent` what talks to it, `machine` all of these for a test,
//! `evidence` what is left of a failed test.
#![allow(clippy::disallowed_methods, reason = "the node's rule on children is not for its tests")]

pub mod agent;
pub mod error;
mod evidence;
pub mod image;
pub mod machine;
pub mod node;
pub mod qemu;
pub mod release;
mod turn;

pub use agent::Answer;
pub use error::Error;
pub use machine::{Machine, times};
pub use node::{Bystanders, Node};
pub use release::Release;
