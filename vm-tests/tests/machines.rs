//! All tests that need a machine to themselves. They are begun in the order of their names: those
//! of the clocks, who wait the longest and need a processor the least, come first.

mod clocks;
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
mod unit;
mod versions;
