//! Notifications to the service manager about the node as a whole: readiness, status, more time.

use std::time::Duration;

use tokio::time::Instant;

use super::runtime_flags::RuntimeFlag;
use super::supervisor::Supervisor;
use super::verbs::WaitFor;
use crate::decide::{Announcement, NodePhase};
use crate::units::Level;

/// How often more time is asked for; each time for three times as long.
const EXTEND_EVERY: Duration = Duration::from_secs(10);

impl Supervisor {
    pub(super) fn announce_to_manager(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Ready => {
                let summary = self.summary();
                self.leave(RuntimeFlag::Ready);
                self.act.service_manager.ready(summary.clone());
                let after = crate::units::human_duration(self.observers.context.clock.now().0);
                self.say(Level::Info, &format!("{summary}, {after} after the start"));
            }
            Announcement::Stopping => {
                self.leave(RuntimeFlag::Stopping);
                self.act.service_manager.stopping();
                self.say(Level::Info, "stopping, dependants first");
            }
            Announcement::Stopped => {}
        }
    }

    /// Sends a status that has changed, and asks for more time where something is under way.
    pub(super) fn tell_manager(&mut self) {
        if !self.act.service_manager.is_connected() {
            return;
        }
        let summary = self.summary();
        self.act.service_manager.status(summary);
        if !self.is_waited_for() {
            self.timers.extend_at = None;
        } else if self.timers.extend_at.is_none() {
            self.extend_timeout();
        }
    }

    /// Ends the reload that `reloading` began, whatever its outcome.
    pub(super) fn end_reload(&mut self) {
        if self.node.is_announced() {
            let summary = self.summary();
            self.act.service_manager.ready(summary);
        }
    }

    fn leave(&self, mark: RuntimeFlag) {
        let runtime_dir = &self.in_force.config.node.runtime_dir;
        if let Err(reason) = mark.set(runtime_dir) {
            let place = runtime_dir.display();
            self.say(Level::Warn, &format!("cannot leave a mark in {place}: {reason}"));
        }
    }

    /// One line for `systemctl status` and the log.
    pub(super) fn summary(&self) -> String {
        let total = self.node.instances().count();
        let ready = self.node.instances().filter(|(_, i)| i.phase.word() == "ready").count();
        let phase = self.node.phase().word();
        let refused =
            self.pending.refused_reload.iter().map(|why| format!("; not reloaded: {why}"));
        format!("{phase}: {ready} of {total} instances ready{}", refused.collect::<String>())
    }

    /// Whether something goes on that the service manager waits for.
    fn is_waited_for(&self) -> bool {
        let is_expected = match self.node.phase() {
            NodePhase::Starting | NodePhase::Stopping => true,
            NodePhase::Ready | NodePhase::Degraded => {
                self.pending.waiters.iter().any(|waiter| waiter.wait_for == WaitFor::Replanned)
            }
        };
        is_expected && self.node.is_moving()
    }

    /// Asks for more time while something is under way that the service manager waits for, from its
    /// beginning. In small portions, so that it notices when the loop hangs.
    pub(super) fn extend_timeout(&mut self) {
        self.timers.extend_at = self.is_waited_for().then(|| {
            self.act.service_manager.extend_timeout(3 * EXTEND_EVERY);
            Instant::now() + EXTEND_EVERY
        });
    }
}
