//! Descriptors that are kept or passed to other processes: sealed memory, pipes, listeners. All
//! close on exec. Knows nothing of who uses them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::pipe::PipeFlags;

use super::error::{Error, failed};

/// How many connections may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// `fs.pipe-max-size`, the most that an unprivileged process may ask for, is this by default.
const LARGE_PIPE: usize = 1 << 20;

/// Who may connect to a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketAccess {
    /// Mode 0600
    Owner,
    /// Mode 0660
    OwnerAndGroup,
}

impl SocketAccess {
    fn mode(self) -> Mode {
        match self {
            Self::Owner => Mode::from_raw_mode(0o600),
            Self::OwnerAndGroup => Mode::from_raw_mode(0o660),
        }
    }
}

/// Opens a file, closing on exec.
pub(super) fn open(path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, mode).map_err(failed("open", path))
}

/// The program that this process runs, for `spawn::Program::Fd`, even where its file has been
/// replaced or removed since. It can be executed and not read.
pub fn own_executable() -> Result<OwnedFd, Error> {
    open("/proc/self/exe", OFlags::PATH, Mode::empty())
}

/// The file that this process was started from, by its name then. There may be another by now.
pub fn own_path() -> Result<PathBuf, Error> {
    let link = "/proc/self/exe";
    let path = std::fs::read_link(link).map_err(failed("read", link))?;
    let name = path.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    Ok(PathBuf::from(OsStr::from_bytes(name)))
}

/// The file that stands now where ours was, if it is another one.
pub fn replaced_executable() -> Result<Option<PathBuf>, Error> {
    let path = own_path()?;
    let link = "/proc/self/exe";
    let ours = rustix::fs::stat(link).map_err(failed("look at", link))?;
    match rustix::fs::stat(&path) {
        Ok(now) => {
            let same = (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino);
            Ok((!same).then_some(path))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(reason) => Err(failed("look at", path.display())(reason)),
    }
}

/// Memory as a file, with this content for ever: nobody can write, shrink or grow it
/// (`memfd_create(2)`). Positioned at the start; the position is shared with whom it is passed to,
/// so make one for each process that reads it.
pub fn sealed_memory(name: &str, content: &[u8]) -> Result<OwnedFd, Error> {
    sealed(memory(name)?, name, content)
}

/// Sealed memory that journald takes. Before v254 it wants exactly the four seals: memory that is
/// marked as never executable has one more, and is refused.
pub(super) fn memory_for_journald(content: &[u8]) -> Result<OwnedFd, Error> {
    let name = "journal-entry";
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create(name, sealable) {
        // A hardened host makes no other.
        Err(Errno::ACCESS) => memory(name)?,
        made => made.map_err(failed("make memfd", name))?,
    };
    sealed(memory, name, content)
}

fn sealed(memory: OwnedFd, name: &str, content: &[u8]) -> Result<OwnedFd, Error> {
    let mut file = File::from(memory);
    file.write_all(content).map_err(failed("write into memfd", name))?;
    file.rewind().map_err(failed("rewind memfd", name))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed("seal memfd", name))?;
    Ok(file.into())
}

/// Hardened hosts demand that it is never executable; Linux before 6.3 does not know how to say so.
pub(super) fn memory(name: &str) -> Result<OwnedFd, Error> {
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, sealable | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, sealable),
        made => made,
    }
    .map_err(failed("make memfd", name))
}

/// The read end and the write end. Both block: what is set on one does not touch the other.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("make", "a pipe"))
}

/// Lets a pipe hold 1 MiB where the system permits it. Returns how many bytes it holds now.
pub fn enlarge_pipe(pipe: impl AsFd) -> Result<usize, Error> {
    match rustix::pipe::fcntl_setpipe_size(&pipe, LARGE_PIPE) {
        // Too much for this user, or for all this user's pipes together.
        Err(Errno::PERM | Errno::BUSY) => rustix::pipe::fcntl_getpipe_size(&pipe),
        size => size,
    }
    .map_err(failed("enlarge", "a pipe"))
}

/// Two connected stream sockets.
pub fn socket_pair() -> Result<(UnixStream, UnixStream), Error> {
    UnixStream::pair().map_err(failed("make", "a socket pair"))
}

/// A stream listener at `path`. A socket file that nobody listens on is replaced, anything else is
/// left alone (`Error::AddressInUse`). Nobody can connect before the file has its mode.
///
/// It blocks, because services expect that of a listener they are handed; O_NONBLOCK is shared by
/// all who have the socket, so whoever sets it changes it for the others too.
pub fn unix_listener(path: &Path, access: SocketAccess) -> Result<UnixListener, Error> {
    let socket = bound_unix_socket(path, SocketType::STREAM, access)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed("listen on", path.display()))?;
    Ok(socket.into())
}

/// For a listener that another process made: whoever connects from now on is told that we listen
/// (`SO_PEERCRED`).
pub fn listen_again(listener: impl AsFd) -> Result<(), Error> {
    rustix::net::listen(&listener, BACKLOG).map_err(failed("listen on", "an adopted socket"))
}

/// A socket at `path`, with its mode. Callers guard against a second process doing the same at
/// the same time by the instance lock.
pub(super) fn bound_unix_socket(
    path: &Path,
    kind: SocketType,
    access: SocketAccess,
) -> Result<OwnedFd, Error> {
    let address = SocketAddrUnix::new(path)
        .map_err(failed("make a socket address (at most 107 bytes) of", path.display()))?;
    remove_stale(path, &address, kind)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(failed("make a socket for", path.display()))?;
    // The file is made with the socket's mode, less the umask: never more than is wanted.
    rustix::fs::fchmod(&socket, access.mode()).map_err(failed("chmod", path.display()))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind a socket at", path.display()))?;
    rustix::fs::chmod(path, access.mode()).map_err(failed("chmod", path.display()))?;
    Ok(socket)
}

fn remove_stale(path: &Path, address: &SocketAddrUnix, kind: SocketType) -> Result<(), Error> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => {}
        // What is no socket makes `bind` fail, with the right reason.
        Ok(_) | Err(_) => return Ok(()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let caller = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
        .map_err(failed("make a socket for", path.display()))?;
    match rustix::net::connect(&caller, address) {
        Err(Errno::CONNREFUSED) => {
            rustix::fs::unlink(path).map_err(failed("remove the stale socket", path.display()))
        }
        Err(Errno::NOENT) => Ok(()),
        // Connected, full, or of another kind: somebody is there.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(Error::AddressInUse { path: path.to_owned() })
        }
        Err(reason) => Err(failed("see who listens on", path.display())(reason)),
    }
}

/// A TCP listener that may take its port again right after a restart (SO_REUSEADDR). Port 0: any
/// free one. It blocks, for the same reason as `unix_listener`.
pub fn tcp_listener(address: SocketAddr) -> Result<TcpListener, Error> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("make a socket for", address))?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(failed("set SO_REUSEADDR on", address))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind a socket to", address))?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed("listen on", address))?;
    Ok(socket.into())
}

/// A UDP socket at a port, which nobody else can take at the same time. It blocks, for the same
/// reason as `unix_listener`.
pub fn udp_socket(address: SocketAddr) -> Result<UdpSocket, Error> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("make a socket for", address))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind a socket to", address))?;
    Ok(socket.into())
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListensAt {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Udp(SocketAddr),
}

/// `None`: it is neither a stream socket that listens at a path or on a port, nor a UDP socket that
/// is bound to a port and connected to nobody.
pub fn listens_at(fd: impl AsFd) -> Option<ListensAt> {
    let address = rustix::net::getsockname(&fd).ok()?;
    if sockopt::socket_type(&fd) == Ok(SocketType::DGRAM) {
        let bound = SocketAddr::try_from(address).ok().filter(|bound| bound.port() != 0);
        let is_connected = rustix::net::getpeername(&fd).is_ok();
        return bound.filter(|_| !is_connected).map(ListensAt::Udp);
    }
    if !sockopt::socket_acceptconn(&fd).is_ok_and(|listens| listens) {
        return None;
    }
    if let Ok(unix) = SocketAddrUnix::try_from(address.clone()) {
        let path = OsStr::from_bytes(unix.path()?.to_bytes()).into();
        return Some(ListensAt::Unix(path));
    }
    SocketAddr::try_from(address).ok().map(ListensAt::Tcp)
}

/// All that a file holds, from its beginning, whatever its position is; at most `most` bytes of it.
pub fn read_whole(fd: impl AsFd, most: u64) -> Result<Vec<u8>, Error> {
    let unread = |reason| failed("read", "a kept file")(reason);
    let size = rustix::fs::fstat(&fd).map_err(|errno| unread(errno.into()))?.st_size;
    let size = u64::try_from(size).unwrap_or_default().min(most);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut read = 0;
    while read < bytes.len() {
        let rest = bytes.get_mut(read..).unwrap_or_default();
        match rustix::io::pread(&fd, rest, u64::try_from(read).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(unread(io::Error::from(errno))),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn sealed_memory_can_be_read_and_never_changed() {
        let mut file = File::from(sealed_memory("sheet", b"content").unwrap());
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        assert!(file.set_len(100).is_err());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert_eq!(fcntl_getfd(&file), Ok(FdFlags::CLOEXEC));
    }

    #[test]
    fn a_pipe_grows_as_far_as_the_system_permits() {
        let (read_end, write_end) = pipe().unwrap();
        let size = enlarge_pipe(&write_end).unwrap();
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&read_end), Ok(size));
        assert!(size >= 4096, "{size}");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let first = unix_listener(&path, SocketAccess::Owner).unwrap();
        let taken = unix_listener(&path, SocketAccess::Owner).unwrap_err();
        assert!(matches!(taken, Error::AddressInUse { .. }), "{taken}");
        UnixStream::connect(&path).unwrap();
        drop(first);
        let second = unix_listener(&path, SocketAccess::OwnerAndGroup).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(fcntl_getfd(&second), Ok(FdFlags::CLOEXEC));
        let flags = rustix::fs::fcntl_getfl(&second).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let refused = unix_listener(&path, SocketAccess::Owner).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EADDRINUSE), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn a_listener_tells_where_it_listens_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let unix = unix_listener(&path, SocketAccess::Owner).unwrap();
        assert_eq!(listens_at(&unix), Some(ListensAt::Unix(path.clone())));
        let tcp = tcp_listener(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        assert_eq!(listens_at(&tcp), Some(ListensAt::Tcp(tcp.local_addr().unwrap())));
        let udp = udp_socket(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = udp.local_addr().unwrap();
        assert_eq!(listens_at(&udp), Some(ListensAt::Udp(at)));
        let taken = udp_socket(at).unwrap_err();
        assert_eq!(taken.errno(), Some(libc::EADDRINUSE), "{taken}");
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(at).unwrap();
        assert_eq!(listens_at(&connected), None);
        assert_eq!(listens_at(std::os::unix::net::UnixDatagram::unbound().unwrap()), None);
        assert_eq!(listens_at(UnixStream::connect(&path).unwrap()), None);
        assert_eq!(listens_at(pipe().unwrap().0), None);
    }

    #[test]
    fn our_own_file_is_known_and_was_not_replaced() {
        assert_eq!(own_path().unwrap(), std::env::current_exe().unwrap());
        assert_eq!(replaced_executable().unwrap(), None);
    }

    #[test]
    fn a_file_is_read_whole_wherever_it_stands() {
        let memory = sealed_memory("x", b"content").unwrap();
        assert_eq!(rustix::io::read(&memory, &mut [0; 3]), Ok(3));
        assert_eq!(read_whole(&memory, 1 << 20).unwrap(), b"content");
        assert_eq!(read_whole(&memory, 4).unwrap(), b"cont");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_a_clear_error() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let refused = unix_listener(&path, SocketAccess::Owner).unwrap_err().to_string();
        assert!(refused.contains("at most 107 bytes"), "{refused}");
    }

    #[test]
    fn a_listener_gets_its_port_and_says_who_else_has_it_not() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = tcp_listener(any).unwrap();
        let address = listener.local_addr().unwrap();
        let refused = tcp_listener(address).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EADDRINUSE));
        assert!(refused.to_string().contains(&address.to_string()), "{refused}");
        drop(listener);
        tcp_listener(address).unwrap();
    }
}
