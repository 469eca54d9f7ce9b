//! `blackhole-node`: one binary that turns a bare-metal Linux server into a node.
//!
//! The rooms, in reading order. The flow is one circle:
//! `config -> plan -> decide -> act -> linux -> (kernel) -> observe -> decide`.

pub mod catalog;
pub mod units;

pub mod config;
pub mod decide;
pub mod plan;

pub mod act;
pub mod linux;
pub mod observe;

pub mod rpc;
pub mod service;
pub mod telemetry;

pub mod cli;
pub mod control;
pub mod install;

pub mod node;
