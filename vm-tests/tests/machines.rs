//! All tests that need a machine to themselves.

mod confinement;
mod daemon_reload;
mod disks;
mod host;
mod immortal;
mod journal;
mod limits;
mod processes;
mod root_node;
mod service;
mod time;
mod unit;
