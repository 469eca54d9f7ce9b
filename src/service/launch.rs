//! What the node passes to a built-in service at its start, checked: the launch sheet and the
//! sockets.

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

use crate::catalog::{Builtin, Need, SizeKey};
use crate::linux::listen_fds::{self, ListenFdsError};
use crate::rpc::pb::node::setting::Value;
use crate::rpc::pb::node::{LaunchSheet, Setting};
use crate::units::{ByteSize, InstanceId, Level};

/// The most bytes that a launch sheet may have.
const SHEET_MOST: u64 = 64 << 10;
/// The names of the API's listeners; the first is required.
const API: [&str; 4] = ["http", "http-grpc", "http-ws", "http-metrics"];
/// The longest drain that a sheet may set.
const DRAIN_MOST: Duration = Duration::from_secs(3600);
/// The drain if the sheet sets none.
const DRAIN_UNSAID: Duration = Duration::from_secs(5);

/// Why a launch is refused.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Inherit(#[from] ListenFdsError),
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

/// A checked launch.
#[derive(Debug)]
pub struct Launch {
    pub instance: InstanceId,
    pub run: u64,
    /// Absolute, and an existing folder.
    pub data_dir: PathBuf,
    pub log_level: Level,
    pub drain: Duration,
    /// The instance's own socket, then the one that all instances of the service share, if there is
    /// one.
    pub grpc: Vec<UnixListener>,
    /// A TCP port on which the service is served too.
    pub port: Option<TcpListener>,
    /// [`Need::Api`]: the listeners of the API, which all serve the same.
    pub api: Vec<TcpListener>,
    /// [`Need::Status`]
    pub status: Option<UnixStream>,
    sizes: BTreeMap<String, ByteSize>,
}

impl Launch {
    /// The value of a key that has a default, in bytes.
    pub fn size(&self, key: &SizeKey) -> Result<u64, LaunchError> {
        self.limit(key)?.ok_or_else(|| refuse(key.key, "", &allowed(key)))
    }

    /// The value of a key, in bytes; `None`: no limit.
    pub fn limit(&self, key: &SizeKey) -> Result<Option<u64>, LaunchError> {
        let Some(said) = self.sizes.get(key.key) else { return Ok(None) };
        if !(key.least..=key.most).contains(said) {
            return Err(refuse(key.key, said.0, &allowed(key)));
        }
        Ok(Some(said.0))
    }
}

fn allowed(key: &SizeKey) -> String {
    format!("from {} to {} bytes", key.least.0, key.most.0)
}

fn refuse<V: ToString>(field: &'static str, value: V, allowed: &str) -> LaunchError {
    LaunchError::Field { field, value: value.to_string(), allowed: allowed.to_owned() }
}

/// Takes the descriptors that were passed to this process for `builtin`.
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
        return Err(refuse("data_dir", &sheet.data_dir, allowed));
    }
    let log_level = sheet
        .log_level
        .parse()
        .map_err(|allowed: String| refuse("log_level", &sheet.log_level, &allowed))?;
    let drain = match Duration::from_millis(sheet.drain_ms) {
        Duration::ZERO => DRAIN_UNSAID,
        drain if drain <= DRAIN_MOST => drain,
        _ => return Err(refuse("drain_ms", sheet.drain_ms, "at most an hour")),
    };
    let own = passed.remove("grpc").ok_or(LaunchError::Missing("grpc"))?;
    let mut grpc = vec![unix_listener("grpc", own)?];
    grpc.extend(passed.remove("shared").map(|fd| unix_listener("shared", fd)).transpose()?);
    let port = passed.remove("port").map(|fd| tcp_listener("port", fd)).transpose()?;
    let (mut api, mut status) = (Vec::new(), None);
    for need in builtin.entry().needs {
        match need {
            Need::Api => api = api_listeners(&mut passed)?,
            Need::Status => {
                let fd = passed.remove("status").ok_or(LaunchError::Missing("status"))?;
                status = Some(unix_stream(fd)?);
            }
        }
    }
    let (run, sizes) = (sheet.run, sizes(sheet.settings));
    Ok(Launch { instance, run, data_dir, log_level, drain, grpc, port, api, status, sizes })
}

fn api_listeners(passed: &mut BTreeMap<String, OwnedFd>) -> Result<Vec<TcpListener>, LaunchError> {
    if !passed.contains_key(API[0]) {
        return Err(LaunchError::Missing(API[0]));
    }
    let all = API.into_iter().filter_map(|name| Some((name, passed.remove(name)?)));
    all.map(|(name, fd)| tcp_listener(name, fd)).collect()
}

fn sizes(settings: Vec<Setting>) -> BTreeMap<String, ByteSize> {
    let size = |setting: Setting| match setting.value? {
        Value::Size(bytes) => Some((setting.key, ByteSize(bytes))),
    };
    settings.into_iter().filter_map(size).collect()
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
    Err(refuse("fd_names", told.join(", "), &allowed))
}

fn instance(builtin: Builtin, sheet: &LaunchSheet) -> Result<InstanceId, LaunchError> {
    let name = builtin.entry().name;
    if sheet.service != name {
        let allowed = format!("this process was started as {name:?}");
        return Err(refuse("service", &sheet.service, &allowed));
    }
    let instance: Result<InstanceId, _> = sheet.instance.parse();
    let most = builtin.entry().instances;
    let is_one = |id: &InstanceId| id.service.as_str() == name && id.index < most;
    instance.ok().filter(is_one).ok_or_else(|| {
        let allowed = format!("an instance of {name:?}, from {name}-0 to {name}-{}", most - 1);
        refuse("instance", &sheet.instance, &allowed)
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
    use crate::catalog::{STORAGE_DISK, STORAGE_MAX_BLOCK};

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
        assert_eq!((launch.grpc.len(), launch.api.len(), launch.port.is_none()), (1, 0, true));
    }

    #[test]
    fn every_wrong_field_is_named_with_its_value() {
        type Spoil = fn(&mut LaunchSheet);
        let cases: [(Spoil, &str); 7] = [
            (|sheet| sheet.service = "ledger".into(), "service is \"ledger\""),
            (|sheet| sheet.instance = "ledger-0".into(), "instance is \"ledger-0\""),
            (|sheet| sheet.instance = "storage-64".into(), "from storage-0 to storage-63"),
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
    fn a_size_is_checked_as_the_configuration_is() {
        let (block, disk) = (&STORAGE_MAX_BLOCK, &STORAGE_DISK);
        for (said, expected) in [
            (vec![], ("max_block is \"\": from 1024 to", Some(None))),
            (
                vec![("max_block", 1023)],
                ("max_block is \"1023\": from 1024 to 67108864", Some(None)),
            ),
            (vec![("max_block", u64::MAX)], ("max_block is", Some(None))),
            (vec![("max_block", 1024), ("disk", 0)], ("", None)),
            (vec![("max_block", 1024), ("disk", 1 << 20)], ("", Some(Some(1 << 20)))),
        ] {
            let mut handed = Handed::new();
            let size = |(key, size): (&str, u64)| Setting {
                key: key.to_owned(),
                value: Some(Value::Size(size)),
            };
            handed.sheet.settings = said.into_iter().map(size).collect();
            let launch = check(Builtin::Storage, handed.passed()).unwrap();
            match launch.size(block) {
                Ok(size) => assert_eq!((size, expected.0), (1024, "")),
                Err(error) => assert!(error.to_string().contains(expected.0), "{error}"),
            }
            assert_eq!(launch.limit(disk).ok(), expected.1);
        }
    }

    #[test]
    fn what_a_service_needs_has_to_be_passed() {
        let mut handed = Handed::new();
        handed.sheet.service = "gateway".into();
        handed.sheet.instance = "gateway-0".into();
        let refused = |handed: &Handed| check(Builtin::Gateway, handed.passed()).unwrap_err();
        assert!(matches!(refused(&handed), LaunchError::Missing("http")));
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
