//! What the node hands a built-in service at its start: the launch sheet and the sockets, checked.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::catalog::Builtin;
use crate::linux::listen_fds::{self, ListenFdsError};
use crate::rpc::pb::node::LaunchSheet;
use crate::units::{InstanceId, Level};

/// The most bytes that a launch sheet may have.
const SHEET_MOST: u64 = 64 << 10;
/// The names of the API's listeners, the first of which there has to be.
const HTTP: [&str; 4] = ["http", "http-grpc", "http-ws", "http-metrics"];
/// The longest drain that a sheet may ask for.
const DRAIN_MOST: Duration = Duration::from_secs(3600);
/// The drain of a sheet that says nothing.
const DRAIN_UNSAID: Duration = Duration::from_secs(5);

/// Why a service cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Inherit(#[from] ListenFdsError),
    #[error("there is no built-in service {name:?}; there are {known}")]
    NoSuchService { name: String, known: String },
    #[error("the node passed no descriptor named {0:?}")]
    Missing(&'static str),
    #[error("the passed descriptor {name:?} is not {wanted}")]
    WrongSocket { name: &'static str, wanted: &'static str },
    #[error("cannot read the launch sheet: {0}")]
    ReadSheet(#[source] io::Error),
    #[error("the launch sheet is not a sealed memfd: it could change while it is read")]
    NotSealed,
    #[error("the launch sheet has {0} bytes; from 1 to {SHEET_MOST} are allowed")]
    SheetSize(u64),
    #[error("the launch sheet cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("the launch sheet's {field} is {value:?}: {allowed}")]
    Field { field: &'static str, value: String, allowed: String },
}

/// A checked launch. `sheet` keeps what needs no check, and the service's own settings.
#[derive(Debug)]
pub struct Launch {
    pub sheet: LaunchSheet,
    pub instance: InstanceId,
    /// Absolute, and a folder.
    pub data_dir: PathBuf,
    pub log_level: Level,
    pub drain: Duration,
    /// This instance's own socket, then the service's shared one where there is one.
    pub grpc: Vec<UnixListener>,
    /// A port on which the same is served.
    pub port: Option<TcpListener>,
    /// All of them serve the same.
    pub http: Vec<TcpListener>,
    pub status: Option<UnixStream>,
}

impl Launch {
    /// A field of the settings that this service cannot work with.
    pub fn refuse<V: ToString>(field: &'static str, value: V, allowed: &str) -> LaunchError {
        LaunchError::Field { field, value: value.to_string(), allowed: allowed.to_owned() }
    }
}

/// The built-in service of that name.
pub fn builtin(name: &str) -> Result<Builtin, LaunchError> {
    Builtin::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Builtin::ALL.iter().map(|builtin| builtin.entry().name).collect();
        LaunchError::NoSuchService { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Takes what was passed to this process for `builtin`.
pub fn take(builtin: Builtin) -> Result<Launch, LaunchError> {
    check(builtin, listen_fds::take()?)
}

fn check(builtin: Builtin, mut passed: BTreeMap<String, OwnedFd>) -> Result<Launch, LaunchError> {
    let names: Vec<String> = passed.keys().cloned().collect();
    let sheet = read_sheet(passed.remove("sheet").ok_or(LaunchError::Missing("sheet"))?)?;
    same_names(&sheet, &names)?;
    let instance = instance(builtin, &sheet)?;
    let data_dir = PathBuf::from(&sheet.data_dir);
    if !data_dir.is_absolute() || !data_dir.is_dir() {
        let allowed = "it must be the absolute path of a folder";
        return Err(Launch::refuse("data_dir", &sheet.data_dir, allowed));
    }
    let log_level = sheet
        .log_level
        .parse()
        .map_err(|allowed: String| Launch::refuse("log_level", &sheet.log_level, &allowed))?;
    let drain = match Duration::from_millis(sheet.drain_ms) {
        Duration::ZERO => DRAIN_UNSAID,
        drain if drain <= DRAIN_MOST => drain,
        _ => return Err(Launch::refuse("drain_ms", sheet.drain_ms, "at most an hour")),
    };
    let own = passed.remove("grpc").ok_or(LaunchError::Missing("grpc"))?;
    let mut grpc = vec![unix_listener("grpc", own)?];
    grpc.extend(passed.remove("shared").map(|fd| unix_listener("shared", fd)).transpose()?);
    let port = passed.remove("port").map(|fd| tcp_listener("port", fd)).transpose()?;
    let http = HTTP.into_iter().filter_map(|name| Some((name, passed.remove(name)?)));
    let http = http.map(|(name, fd)| tcp_listener(name, fd)).collect::<Result<_, _>>()?;
    let status = passed.remove("status").map(unix_stream).transpose()?;
    Ok(Launch { sheet, instance, data_dir, log_level, drain, grpc, port, http, status })
}

fn read_sheet(fd: OwnedFd) -> Result<LaunchSheet, LaunchError> {
    let wanted = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    if !fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(wanted)) {
        return Err(LaunchError::NotSealed);
    }
    let file = std::fs::File::from(fd);
    let size = file.metadata().map_err(LaunchError::ReadSheet)?.len();
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if !(1..=SHEET_MOST).contains(&size) {
        return Err(LaunchError::SheetSize(size));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(LaunchError::ReadSheet)?;
    Ok(LaunchSheet::decode(bytes.as_slice())?)
}

fn same_names(sheet: &LaunchSheet, passed: &[String]) -> Result<(), LaunchError> {
    let mut told = sheet.fd_names.clone();
    told.sort_unstable();
    if told == passed {
        return Ok(());
    }
    let allowed = format!("the passed descriptors are {}", passed.join(", "));
    Err(Launch::refuse("fd_names", told.join(", "), &allowed))
}

fn instance(builtin: Builtin, sheet: &LaunchSheet) -> Result<InstanceId, LaunchError> {
    let name = builtin.entry().name;
    if sheet.service != name {
        let allowed = format!("this process was started as {name:?}");
        return Err(Launch::refuse("service", &sheet.service, &allowed));
    }
    let instance: Result<InstanceId, _> = sheet.instance.parse();
    let of_service = instance.ok().filter(|instance| instance.service.as_str() == name);
    of_service.ok_or_else(|| {
        Launch::refuse("instance", &sheet.instance, &format!("an instance of {name:?}"))
    })
}

#[derive(Clone, Copy)]
enum Role {
    Listening,
    Connected,
}

fn is_stream(fd: &OwnedFd, families: &[AddressFamily], role: Role) -> bool {
    let (fd, listening) = (fd.as_fd(), matches!(role, Role::Listening));
    sockopt::socket_type(fd) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(fd).is_ok_and(|family| families.contains(&family))
        && sockopt::socket_acceptconn(fd) == Ok(listening)
}

fn unix_listener(name: &'static str, fd: OwnedFd) -> Result<UnixListener, LaunchError> {
    if is_stream(&fd, &[AddressFamily::UNIX], Role::Listening) {
        return Ok(fd.into());
    }
    Err(LaunchError::WrongSocket { name, wanted: "a listening Unix stream socket" })
}

fn tcp_listener(name: &'static str, fd: OwnedFd) -> Result<TcpListener, LaunchError> {
    if is_stream(&fd, &[AddressFamily::INET, AddressFamily::INET6], Role::Listening) {
        return Ok(fd.into());
    }
    Err(LaunchError::WrongSocket { name, wanted: "a listening TCP socket" })
}

fn unix_stream(fd: OwnedFd) -> Result<UnixStream, LaunchError> {
    if is_stream(&fd, &[AddressFamily::UNIX], Role::Connected) {
        return Ok(fd.into());
    }
    Err(LaunchError::WrongSocket { name: "status", wanted: "a connected Unix stream socket" })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    struct Handed {
        dir: tempfile::TempDir,
        sheet: LaunchSheet,
    }

    impl Handed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let sheet = LaunchSheet {
                service: "storage".into(),
                instance: "storage-0".into(),
                data_dir: dir.path().to_str().unwrap().into(),
                log_level: "info".into(),
                fd_names: ["grpc", "sheet"].map(String::from).to_vec(),
                ..LaunchSheet::default()
            };
            Self { dir, sheet }
        }

        fn passed(&self) -> BTreeMap<String, OwnedFd> {
            let socket = self.dir.path().join("grpc.sock");
            let _ = std::fs::remove_file(&socket);
            let grpc: OwnedFd = UnixListener::bind(socket).unwrap().into();
            let sheet = sealed(&self.sheet.encode_to_vec());
            BTreeMap::from([("grpc".into(), grpc), ("sheet".into(), sheet)])
        }

        fn refused(&self) -> String {
            check(Builtin::Storage, self.passed()).unwrap_err().to_string()
        }
    }

    fn sealed(bytes: &[u8]) -> OwnedFd {
        let fd = memfd_create("sheet", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, bytes).unwrap();
        fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK).unwrap();
        fd
    }

    #[test]
    fn a_good_launch_is_taken_with_its_defaults() {
        let launch = check(Builtin::Storage, Handed::new().passed()).unwrap();
        assert_eq!(launch.instance.to_string(), "storage-0");
        assert_eq!(launch.drain, Duration::from_secs(5));
        assert_eq!((launch.grpc.len(), launch.http.len(), launch.port.is_none()), (1, 0, true));
    }

    #[test]
    fn every_wrong_field_is_named_with_its_value() {
        type Spoil = fn(&mut LaunchSheet);
        let cases: [(Spoil, &str); 6] = [
            (|sheet| sheet.service = "ledger".into(), "service is \"ledger\""),
            (|sheet| sheet.instance = "ledger-0".into(), "instance is \"ledger-0\""),
            (|sheet| sheet.data_dir = "data".into(), "data_dir is \"data\""),
            (|sheet| sheet.log_level = "loud".into(), "log_level is \"loud\""),
            (|sheet| sheet.drain_ms = u64::MAX, "drain_ms is"),
            (|sheet| sheet.fd_names.clear(), "grpc, sheet"),
        ];
        for (spoil, said) in cases {
            let mut handed = Handed::new();
            spoil(&mut handed.sheet);
            let refused = handed.refused();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn a_sheet_that_could_change_or_is_too_large_is_not_read() {
        let open = memfd_create("sheet", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(matches!(read_sheet(open), Err(LaunchError::NotSealed)));
        assert!(matches!(read_sheet(sealed(b"")), Err(LaunchError::SheetSize(0))));
        let large = sealed(&[0; 65_537]);
        assert!(matches!(read_sheet(large), Err(LaunchError::SheetSize(65_537))));
        assert!(matches!(read_sheet(sealed(&[0xff])), Err(LaunchError::Decode(_))));
    }

    #[test]
    fn a_socket_of_another_kind_is_refused() {
        let handed = Handed::new();
        let mut passed = handed.passed();
        let (one, _other) = UnixStream::pair().unwrap();
        passed.insert("grpc".into(), one.into());
        let refused = check(Builtin::Storage, passed).unwrap_err().to_string();
        assert!(refused.contains("\"grpc\" is not a listening Unix"), "{refused}");
    }
}
