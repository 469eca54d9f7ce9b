//! Listening sockets: bound once and kept over every restart, so that a client waits in the backlog
//! instead of being refused. Knows their addresses, not the services that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::error::ActError;
use super::fd_names::FdName;
use super::service_manager::ServiceManager;
use crate::linux::Error;
use crate::linux::fds::{self, ListensAt, SocketAccess};
use crate::linux::procfs::{self, Transport};
use crate::plan::{SocketId, SocketPlace};

#[derive(Debug, Default)]
pub(super) struct Sockets {
    bound: BTreeMap<SocketPlace, Bound>,
    next: u64,
}

/// A listener, and the number in its name in the fd store.
#[derive(Debug)]
struct Bound {
    number: u64,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Sockets {
    /// Binds the listener, unless it is bound, and stores it with the service manager. `id` is for
    /// the error.
    pub(super) fn bind(
        &mut self,
        id: &SocketId,
        place: &SocketPlace,
        service_manager: &mut ServiceManager,
    ) -> Result<(), ActError> {
        if !self.bound.contains_key(place) {
            let (listener, number) = (bind(id, place)?, self.next);
            self.next += 1;
            service_manager.store_fd(FdName::Listener(number), listener.as_fd());
            self.bound.insert(place.clone(), Bound { number, listener });
        }
        Ok(())
    }

    /// Takes over listeners that a former orchestrator bound. A Unix socket without its file, which
    /// no client can reach, and a descriptor that is no listener are closed.
    pub(super) fn take_over(
        &mut self,
        kept: Vec<(u64, OwnedFd)>,
        service_manager: &mut ServiceManager,
    ) {
        for (number, fd) in kept {
            self.next = self.next.max(number.saturating_add(1));
            match place_of(&fd) {
                Some(place) => {
                    let listener = match place {
                        SocketPlace::Unix(_) => Listener::Unix(fd.into()),
                        SocketPlace::Tcp(_) => Listener::Tcp(fd.into()),
                        SocketPlace::Udp(_) => Listener::Udp(fd.into()),
                    };
                    self.bound.insert(place, Bound { number, listener });
                }
                None => service_manager.remove_fd(FdName::Listener(number)),
            }
        }
    }

    /// Gives each planned place with port 0 a listener that was taken over on the same address and
    /// is not planned itself: its clients know the port.
    pub(super) fn match_any_ports(&mut self, planned: &BTreeSet<&SocketPlace>) {
        for place in planned {
            let SocketPlace::Tcp(any) = place else { continue };
            let fits = |bound: &SocketPlace| match bound {
                SocketPlace::Tcp(at) => at.ip() == any.ip() && !planned.contains(bound),
                SocketPlace::Unix(_) | SocketPlace::Udp(_) => false,
            };
            let found = self.bound.keys().find(|bound| fits(bound)).cloned();
            if let (0, Some(found)) = (any.port(), found)
                && let Some(bound) = self.bound.remove(&found)
            {
                self.bound.insert((*place).clone(), bound);
            }
        }
    }

    /// All listeners, with the numbers in their names.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.bound.values().map(|bound| (bound.number, bound.listener.as_fd()))
    }

    pub(super) fn get(&self, place: &SocketPlace) -> Option<BorrowedFd<'_>> {
        Some(self.bound.get(place)?.listener.as_fd())
    }

    pub(super) fn tcp_address(&self, place: &SocketPlace) -> Option<SocketAddr> {
        match &self.bound.get(place)?.listener {
            Listener::Unix(_) | Listener::Udp(_) => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Closes all listeners except the `wanted`, removes them from the fd store, and removes their
    /// files.
    pub(super) fn keep_only(
        &mut self,
        service_manager: &mut ServiceManager,
        wanted: impl Fn(&SocketPlace) -> bool,
    ) {
        self.bound.retain(|place, bound| {
            let stays = wanted(place);
            if stays {
                return true;
            }
            service_manager.remove_fd(FdName::Listener(bound.number));
            if let SocketPlace::Unix(path) = place
                && is_socket(path)
            {
                let _gone_already = std::fs::remove_file(path);
            }
            false
        });
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// The address of a listener that was taken over. `None`: no client can reach it.
fn place_of(fd: &OwnedFd) -> Option<SocketPlace> {
    match fds::listens_at(fd)? {
        ListensAt::Unix(path) => is_socket(&path).then_some(SocketPlace::Unix(path)),
        ListensAt::Tcp(address) => Some(SocketPlace::Tcp(address)),
        ListensAt::Udp(address) => Some(SocketPlace::Udp(address)),
    }
}

/// The file of a Unix socket that was taken over.
pub(super) fn file_of(fd: &OwnedFd) -> Option<PathBuf> {
    match place_of(fd)? {
        SocketPlace::Unix(path) => Some(path),
        SocketPlace::Tcp(_) | SocketPlace::Udp(_) => None,
    }
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

fn bind(id: &SocketId, place: &SocketPlace) -> Result<Listener, ActError> {
    match place {
        SocketPlace::Unix(path) => {
            let listener = fds::unix_listener(path, SocketAccess::Owner)
                .map_err(|reason| ActError::UnixSocket { path: path.clone(), reason })?;
            Ok(Listener::Unix(listener))
        }
        SocketPlace::Tcp(address) => {
            let taken = |reason| taken(id, *address, Transport::Tcp, reason);
            Ok(Listener::Tcp(fds::tcp_listener(*address).map_err(taken)?))
        }
        SocketPlace::Udp(address) => {
            let taken = |reason| taken(id, *address, Transport::Udp, reason);
            Ok(Listener::Udp(fds::udp_socket(*address).map_err(taken)?))
        }
    }
}

fn taken(id: &SocketId, address: SocketAddr, transport: Transport, reason: Error) -> ActError {
    ActError::Port {
        address,
        key: id.key().unwrap_or_default(),
        reason: Box::new(reason),
        holder: procfs::port_holder(transport, address.port()).ok().flatten(),
    }
}
