//! The only unsafe code and the only system calls: owned types and single operations on the kernel.
//! No policy here, and no other room is known but `units`. Needs Linux 5.4 at least.

mod error;
#[cfg(test)]
mod testing;
mod watch;

pub mod cgroupfs;
pub mod farewell;
pub mod fds;
pub mod inherited;
pub mod journal;
pub mod line;
pub mod manager;
pub mod members;
pub mod notify;
pub mod owner;
pub mod peek;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod sandbox;
pub mod shared;
pub mod spawn;
pub mod succession;
pub mod users;

pub use error::Error;
