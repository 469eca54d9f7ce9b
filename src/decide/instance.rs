//! One instance: what it should do, where it stands, and its past as far as it matters.

use std::collections::VecDeque;

use super::event::Memory;
use super::instance_limits::InstanceLimits;
use super::phase::{Ended, Phase};
use crate::plan::{LimitLayers, Rules};
use crate::units::Tick;

#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub rules: Rules,
    pub limits: InstanceLimits,
    pub wanted: Wanted,
    pub membership: Membership,
    pub phase: Phase,
    /// Restarts in a row without a stable run between them; sets the next delay.
    pub attempt: u32,
    /// When counted restarts were decided, oldest first, none older than the window.
    pub recent: VecDeque<Tick>,
    /// Starts that followed an end nobody asked for, since the node began.
    pub restarts: u64,
    pub last: Option<Ended>,
    /// What the service last said of itself (`STATUS=`).
    pub status_text: String,
    pub last_check: Option<(Tick, bool)>,
    /// Of the present run.
    pub memory: Memory,
}

/// Whether the instance is part of the plan in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Planned,
    /// It is stopped, and removed as soon as it rests. Nobody waits for it.
    Retiring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Up,
    /// Up, and the run that is ending is followed by another whatever its policy says: an operator
    /// or a new plan asked for it.
    Restart,
    Down,
}

impl Instance {
    pub(super) fn new(rules: Rules, limits: LimitLayers) -> Self {
        Self {
            rules,
            limits: InstanceLimits::new(limits),
            wanted: Wanted::Up,
            membership: Membership::Planned,
            phase: Phase::Waiting,
            attempt: 0,
            recent: VecDeque::new(),
            restarts: 0,
            last: None,
            status_text: String::new(),
            last_check: None,
            memory: Memory::default(),
        }
    }

    /// When something must happen even if nothing is heard.
    pub(super) fn deadline(&self) -> Option<Tick> {
        [self.phase.deadline(), self.limits.deadline()].into_iter().flatten().min()
    }

    /// An operator's start: what went wrong before no longer counts.
    pub(super) fn forgive(&mut self) {
        self.attempt = 0;
        self.recent.clear();
    }
}
