//! The only unsafe code and the only system calls: owned types and single operations on the kernel.
//! No policy here, and no other room is known but `units`. Needs Linux 5.4 at least.

mod error;
mod fd_readiness;
#[cfg(test)]
mod testing;

pub mod build_id;
pub mod cgroupfs;
pub mod chown;
pub mod connection_broker;
pub mod die_by_signal;
pub mod exec_handover;
pub mod fds;
pub mod journal;
pub mod kept_memory;
pub mod listen_fds;
pub mod manager;
pub mod members;
pub mod notify;
pub mod pidfd;
pub mod pipe_peek;
pub mod process;
pub mod procfs;
pub mod sandbox;
pub mod shared_memory;
pub mod spawn;
pub mod users;

pub use error::Error;
