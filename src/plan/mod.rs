//! From a configuration to what is to be run: instances, their rules, sockets and launch facts.
//! Does no I/O; what the host can do comes in as a value.

mod rules;

pub use rules::{Readiness, RestartPolicy, RestartRules, Rules};
