//! The status for those who watch it (`StatusFeed.Watch`): built when something may have changed
//! and somebody watches, and sent when it differs. Only the newest is kept, so a watcher that lags
//! blocks nobody. Knows neither the core nor connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::rpc::pb::node::NodeStatus;

/// The least time between two statuses; building one takes time for each instance.
const APART: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct StatusWatchers {
    newest: watch::Sender<Arc<NodeStatus>>,
    /// When a status was built last.
    built: Option<Instant>,
    /// When the next one is to be built; `None`: nothing has changed since.
    due: Option<Instant>,
}

impl StatusWatchers {
    /// Something may have changed. After a pause of `APART` a status is due at once.
    pub(super) fn note_change(&mut self, now: Instant) {
        if self.due.is_none() && self.is_watched() {
            self.due = Some(self.built.map_or(now, |built| now.max(built + APART)));
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_watched(&self) -> bool {
        self.newest.receiver_count() > 0
    }

    /// The status that was due. Watchers are woken only if it differs from the one before.
    pub(super) fn give(&mut self, now: Instant, status: NodeStatus) {
        (self.built, self.due) = (Some(now), None);
        self.newest.send_if_modified(|newest| {
            let has_changed = **newest != status;
            if has_changed {
                *newest = Arc::new(status);
            }
            has_changed
        });
    }

    /// Adds a watcher. `status`: that of now, with which it begins.
    pub(super) fn add(
        &mut self,
        now: Instant,
        status: NodeStatus,
    ) -> watch::Receiver<Arc<NodeStatus>> {
        self.give(now, status);
        self.newest.subscribe()
    }

    /// Nobody watches any more.
    pub(super) fn rest(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(disabled: &str) -> NodeStatus {
        NodeStatus { disabled: vec![disabled.to_owned()], ..NodeStatus::default() }
    }

    #[test]
    fn nothing_is_due_while_nobody_watches() {
        let (mut watchers, now) = (StatusWatchers::default(), Instant::now());
        watchers.note_change(now);
        assert_eq!(watchers.due(), None);
        drop(watchers.add(now, status("a")));
        watchers.note_change(now);
        assert_eq!(watchers.due(), None);
    }

    #[test]
    fn changes_close_together_are_one_status_and_a_later_one_is_due_at_once() {
        let (mut watchers, now) = (StatusWatchers::default(), Instant::now());
        let _watcher = watchers.add(now, status("a"));
        let soon = now + APART / 10;
        watchers.note_change(soon);
        watchers.note_change(soon + APART / 10);
        assert_eq!(watchers.due(), Some(now + APART));
        watchers.give(now + APART, status("b"));
        assert_eq!(watchers.due(), None);
        let later = now + 5 * APART;
        watchers.note_change(later);
        assert_eq!(watchers.due(), Some(later));
    }

    #[test]
    fn a_watcher_that_lags_finds_the_newest_and_one_that_comes_that_of_now() {
        let (mut watchers, now) = (StatusWatchers::default(), Instant::now());
        let mut lags = watchers.add(now, status("a"));
        for name in ["b", "c", "d"] {
            watchers.give(now, status(name));
        }
        assert_eq!(**lags.borrow_and_update(), status("d"));
        watchers.give(now, status("d"));
        assert!(!lags.has_changed().unwrap());
        let fresh = watchers.add(now, status("e"));
        assert_eq!(**fresh.borrow(), status("e"));
        assert!(lags.has_changed().unwrap());
    }
}
