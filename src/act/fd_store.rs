//! Descriptors a service left with us, to be handed to its next run.

use std::os::fd::OwnedFd;

#[derive(Debug, Default)]
pub(super) struct FdStore {
    kept: Vec<(String, OwnedFd)>,
}

impl FdStore {
    /// Keeps as many as fit below `limit`; returns how many were closed instead.
    pub(super) fn keep(&mut self, name: &str, fds: Vec<OwnedFd>, limit: usize) -> usize {
        let room = limit.saturating_sub(self.kept.len());
        let refused = fds.len().saturating_sub(room);
        self.kept.extend(fds.into_iter().take(room).map(|fd| (name.to_owned(), fd)));
        refused
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.kept.retain(|(kept, _)| kept != name);
    }

    pub(super) fn all(&self) -> &[(String, OwnedFd)] {
        &self.kept
    }
}
