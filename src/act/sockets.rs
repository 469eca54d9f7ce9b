//! Listening sockets: bound once, kept over every restart, so that a client waits in the backlog
//! instead of being refused. Knows where they stand, not whose they are.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;

use super::error::ActError;
use crate::linux::fds::{self, SocketAccess};
use crate::linux::procfs;
use crate::plan::{SocketId, SocketPlace};

#[derive(Debug, Default)]
pub(super) struct Sockets {
    bound: BTreeMap<SocketPlace, Listener>,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Sockets {
    /// Binds it, unless it is bound. `id` says whose it is, should that fail.
    pub(super) fn bind(&mut self, id: &SocketId, place: &SocketPlace) -> Result<(), ActError> {
        if !self.bound.contains_key(place) {
            self.bound.insert(place.clone(), bind(id, place)?);
        }
        Ok(())
    }

    pub(super) fn get(&self, place: &SocketPlace) -> Option<BorrowedFd<'_>> {
        Some(match self.bound.get(place)? {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        })
    }

    pub(super) fn tcp_address(&self, place: &SocketPlace) -> Option<SocketAddr> {
        match self.bound.get(place)? {
            Listener::Unix(_) => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Closes all others, and removes their files.
    pub(super) fn keep_only(&mut self, wanted: impl Fn(&SocketPlace) -> bool) {
        self.bound.retain(|place, _| {
            let stays = wanted(place);
            if let (SocketPlace::Unix(path), false) = (place, stays)
                && path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket())
            {
                let _gone_already = std::fs::remove_file(path);
            }
            stays
        });
    }
}

fn bind(id: &SocketId, place: &SocketPlace) -> Result<Listener, ActError> {
    match place {
        SocketPlace::Unix(path) => {
            let listener = fds::unix_listener(path, SocketAccess::Owner)
                .map_err(|reason| ActError::UnixSocket { path: path.clone(), reason })?;
            Ok(Listener::Unix(listener))
        }
        SocketPlace::Tcp(address) => {
            let listener = fds::tcp_listener(*address).map_err(|reason| ActError::Port {
                address: *address,
                key: id.key().unwrap_or_default(),
                reason: Box::new(reason),
                holder: procfs::port_holder(address.port()).ok().flatten(),
            })?;
            Ok(Listener::Tcp(listener))
        }
    }
}
