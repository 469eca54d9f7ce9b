//! Descriptors that a service stored (`FDSTORE=1`), to be passed to its next run.

use std::os::fd::OwnedFd;

#[derive(Debug, Default)]
pub(super) struct FdStore {
    kept: Vec<(String, OwnedFd)>,
}

/// The outcome of storing descriptors.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    /// Those that are kept now.
    pub(super) fresh: &'a [(String, OwnedFd)],
    /// How many were closed because of the limit.
    pub(super) refused: usize,
}

impl FdStore {
    /// Keeps descriptors up to `limit` in all, and closes the rest.
    pub(super) fn keep(&mut self, name: &str, fds: Vec<OwnedFd>, limit: usize) -> Kept<'_> {
        let before = self.kept.len();
        let room = limit.saturating_sub(before);
        let refused = fds.len().saturating_sub(room);
        self.kept.extend(fds.into_iter().take(room).map(|fd| (name.to_owned(), fd)));
        Kept { fresh: self.kept.get(before..).unwrap_or_default(), refused }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.kept.retain(|(kept, _)| kept != name);
    }

    pub(super) fn all(&self) -> &[(String, OwnedFd)] {
        &self.kept
    }
}
