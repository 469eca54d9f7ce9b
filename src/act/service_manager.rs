//! The service manager that started this process, if one did (sd_notify(3)): notifications to it,
//! and the fd store that it keeps for the next orchestrator. Never blocks on it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use sd_notify::NotifyState;

use super::fd_budget::Room;
use super::fd_names::{FdName, InheritedFds};
use super::manager_fd_store::{Change, ManagerFdStore, Place, Shortage};
use super::manager_outbox::{Accepted, Outbox};
use crate::linux::manager::ManagerSocket;

/// The connection to the service manager. Sends nothing where `NOTIFY_SOCKET` is not set.
#[derive(Debug)]
pub struct ServiceManager {
    /// The interval of `WATCHDOG=1`: a third of `WATCHDOG_USEC`.
    pub watchdog_interval: Option<Duration>,
    outbox: Outbox,
    fd_store: ManagerFdStore,
    /// The last `STATUS=`; only another one is sent.
    last_status: String,
    /// Whether the log was told that the fd store is full.
    is_shortage_logged: bool,
}

/// Whether a descriptor with a reserved place is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It is, or there is no service manager that could store it.
    Kept,
    /// It could not be sent, and will not be.
    Lost,
}

impl ServiceManager {
    /// The service manager that the environment names. The error: why one that is named cannot be
    /// reached.
    pub fn find() -> (Self, Option<crate::linux::Error>) {
        let watchdog_interval = sd_notify::watchdog_enabled().map(|patience| patience / 3);
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
            return (Self::with(watchdog_interval, Outbox::default(), None), None);
        };
        let limit = std::env::var("FDSTORE").ok().and_then(|limit| limit.parse().ok());
        match ManagerSocket::connect(&address) {
            Ok(socket) => (Self::with(watchdog_interval, Outbox::to(socket), limit), None),
            Err(error) => (Self::with(None, Outbox::default(), None), Some(error)),
        }
    }

    /// `limit`: how many descriptors its fd store takes, if it tells.
    fn with(watchdog_interval: Option<Duration>, outbox: Outbox, limit: Option<usize>) -> Self {
        let fd_store = ManagerFdStore::new(Room::below_limit(limit));
        let last_status = String::new();
        Self { watchdog_interval, outbox, fd_store, last_status, is_shortage_logged: false }
    }

    /// For tests: without a service manager.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        Self::with(None, Outbox::default(), None)
    }

    pub fn is_connected(&self) -> bool {
        self.outbox.is_connected()
    }

    /// How many messages were lost because it read none for too long, or was not there.
    pub(super) fn lost(&self) -> u64 {
        self.outbox.lost()
    }

    /// What has no place in its fd store; `None`: everything has one.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        self.fd_store.shortage()
    }

    pub fn ready(&mut self, status: String) {
        self.say(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.last_status = status;
    }

    pub fn status(&mut self, status: String) {
        if status != self.last_status {
            self.say(&[NotifyState::Status(&status)]);
            self.last_status = status;
        }
    }

    /// A reload begins; `ready` ends it (sd_notify(3), `RELOADING=1`).
    pub fn reloading(&mut self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.say(&[NotifyState::Reloading, now]);
        }
    }

    pub fn stopping(&mut self) {
        self.say(&[NotifyState::Stopping]);
    }

    /// Asks that the start, stop or reload that is under way may go on for `more` from now, also
    /// beyond its time limit.
    pub fn extend_timeout(&mut self, more: Duration) {
        let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.say(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    pub fn watchdog(&mut self) {
        // One message that waits is enough.
        if self.outbox.is_empty() {
            self.say(&[NotifyState::Watchdog]);
        }
    }

    /// Stores the control socket's listener: operators wait in its backlog while no orchestrator is
    /// there.
    pub fn store_control(&mut self, listener: &UnixListener) {
        let _counted_if_lost = self.store_reserved(FdName::Control, listener.as_fd());
    }

    /// Stores a descriptor in its reserved place, instead of the one that is stored by that name.
    pub(super) fn store_reserved(&mut self, name: FdName, fd: BorrowedFd<'_>) -> Reserved {
        self.outbox.remove(name.to_string());
        match self.outbox.store(name.to_string(), fd) {
            Accepted::No if self.is_connected() => Reserved::Lost,
            Accepted::Yes | Accepted::No => Reserved::Kept,
        }
    }

    /// Removes descriptors from their reserved places.
    pub(super) fn remove_reserved(&mut self, names: impl IntoIterator<Item = FdName>) {
        for name in names {
            self.outbox.remove(name.to_string());
        }
    }

    /// Takes over the accounts of the fd store from a former orchestrator. Descriptors whose names
    /// are not ours are removed from it.
    pub(super) fn inherit(&mut self, inherited: &InheritedFds) {
        if !self.is_connected() {
            return;
        }
        for name in &inherited.unknown {
            self.outbox.remove(name.clone());
        }
        let mut held = Vec::new();
        for (name, fd) in inherited.named() {
            let place =
                if inherited.not_stored.contains(&name) { Place::Here } else { Place::Stored };
            match fd.try_clone_to_owned() {
                Ok(fd) => held.push((name, fd, place)),
                Err(_) => self.outbox.count_as_lost(),
            }
        }
        let changes = self.fd_store.inherit(held.into_iter());
        self.obey(changes);
    }

    /// Stores a duplicate of the descriptor, if there is room for it.
    pub(super) fn store_fd(&mut self, name: FdName, fd: BorrowedFd<'_>) {
        self.store_fds([(name, Some(fd))]);
    }

    /// Stores duplicates of several descriptors at once. `None` takes the place for one that will
    /// come under this name.
    pub(super) fn store_fds<'a>(
        &mut self,
        fds: impl IntoIterator<Item = (FdName, Option<BorrowedFd<'a>>)>,
    ) {
        if !self.is_connected() {
            return;
        }
        let mut held = Vec::new();
        for (name, fd) in fds {
            match fd.map(|fd| fd.try_clone_to_owned()).transpose() {
                Ok(fd) => held.push((name, fd)),
                Err(_) => self.outbox.count_as_lost(),
            }
        }
        let changes = self.fd_store.add(held.into_iter());
        self.obey(changes);
    }

    /// Removes all stored descriptors of these names.
    pub(super) fn remove_fds(&mut self, names: impl IntoIterator<Item = FdName>) {
        let changes = self.fd_store.remove(names.into_iter());
        self.obey(changes);
    }

    pub(super) fn remove_fd(&mut self, name: FdName) {
        self.remove_fds([name]);
    }

    /// The names of descriptors that are to be stored and are not.
    pub(super) fn not_stored(&self) -> BTreeSet<String> {
        let here = self.fd_store.not_stored().map(|name| name.to_string());
        here.chain(self.outbox.unsent().map(str::to_owned)).collect()
    }

    fn obey(&mut self, changes: Vec<Change>) {
        let Self { outbox, fd_store, is_shortage_logged, .. } = self;
        if fd_store.is_short() && !*is_shortage_logged {
            *is_shortage_logged = true;
            tracing::warn!("the service manager's store for descriptors is full; see `status`");
        }
        for change in changes {
            match change {
                Change::Remove(name) => outbox.remove(name.to_string()),
                Change::Store(name) => {
                    let text = name.to_string();
                    fd_store.send(&name, |fd| match outbox.store(text.clone(), fd) {
                        Accepted::Yes => Place::Stored,
                        Accepted::No => Place::Here,
                    });
                }
            }
        }
    }

    fn say(&mut self, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        self.outbox.say(lines.join("\n"));
    }

    /// Waits until a waiting message may be sent; pending for ever when none waits.
    pub async fn writable(&self) {
        self.outbox.writable().await;
    }

    /// Waits until no message waits any more.
    pub async fn flush(&mut self) {
        while !self.outbox.is_empty() {
            self.writable().await;
            self.send_waiting();
        }
    }

    /// Sends waiting messages until the socket is full; when none waits any more, also the
    /// descriptors that were lost before.
    pub fn send_waiting(&mut self) {
        self.outbox.send_waiting();
        if self.outbox.is_empty() {
            let unsent = self.fd_store.unsent();
            self.obey(unsent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fds::{self, SocketAccess};
    use crate::linux::notify::NotifySocket;

    /// More than may wait at once is stored in the end, each once.
    #[tokio::test]
    async fn what_could_not_even_wait_is_stored_when_the_manager_reads_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager");
        let manager = NotifySocket::bind(&path, SocketAccess::Owner).unwrap();
        let outbox = Outbox::to(ManagerSocket::connect(path.as_os_str()).unwrap());
        let room = Room { places: usize::MAX, name_bytes: usize::MAX };
        let fd_store = ManagerFdStore::new(room);
        let mut service_manager =
            ServiceManager { fd_store, ..ServiceManager::with(None, outbox, None) };
        let (read_end, _write_end) = fds::pipe().unwrap();
        // Restarts while it reads nothing: listeners that come and go.
        let mut number = 0;
        while service_manager.lost() == 0 {
            service_manager.store_fd(FdName::Listener(number), read_end.as_fd());
            number += 1;
        }
        let last = number - 1;
        assert!(service_manager.not_stored().contains(&format!("listener.{last}")));
        let mut times = 0;
        for _ in 0..number {
            let text = loop {
                tokio::select! {
                    biased;
                    datagram = manager.receive() => break datagram.unwrap().bytes,
                    () = service_manager.writable() => service_manager.send_waiting(),
                }
            };
            let text = String::from_utf8(text).unwrap();
            times += usize::from(text.contains(&format!("FDNAME=listener.{last}\n")));
        }
        assert_eq!(times, 1);
        assert!(service_manager.not_stored().is_empty());
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_waits() {
        let mut service_manager = ServiceManager::silent();
        let (read_end, _write_end) = fds::pipe().unwrap();
        service_manager.ready("ready".to_owned());
        service_manager.store_fd(FdName::Listener(0), read_end.as_fd());
        service_manager.remove_fd(FdName::Listener(0));
        assert!(!service_manager.is_connected() && service_manager.outbox.is_empty());
        assert!(service_manager.not_stored().is_empty());
    }
}
