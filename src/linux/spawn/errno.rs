//! What a raw system call returned, as a result. The child uses it between clone and exec.

use std::io;

use rustix::io::Errno;

/// Below 0 the call failed, and `errno` says why.
pub(super) fn checked(returned: libc::c_long) -> Result<(), Errno> {
    if returned < 0 { Err(last_error()) } else { Ok(()) }
}

pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
