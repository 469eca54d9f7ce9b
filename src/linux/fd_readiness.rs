//! Waiting until the kernel says that a descriptor is ready. Knows nothing of what it is.
#![allow(unsafe_code, reason = "tokio asks for a promise that the descriptor stays open")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns at once when `fd` is ready already; nothing is lost between a read before this call and
/// the wait, because registering looks at the state. Dropping the future ends the wait.
///
/// A descriptor may be waited for once at a time (`EEXIST`), inside a tokio runtime.
pub(super) async fn ready(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
    // SAFETY: the borrow keeps `fd` open, and the same, for longer than `watched` lives.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) }?;
    watched.ready(interest).await?.retain_ready();
    Ok(())
}

/// For a descriptor that reports an event only once, such as a PSI trigger: it stays registered
/// between two waits, so that no event is missed there.
pub(super) fn registered(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, which deregisters it before closing it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) }?;
    Ok(watched)
}
