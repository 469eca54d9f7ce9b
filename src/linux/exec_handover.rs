//! Becoming another program in place: the same process, with the descriptors that it is to keep
//! under their names (`execve(2)`). Knows nothing of what they are for.
#![allow(unsafe_code, reason = "exec, and numbers that become owned descriptors again")]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};

use super::error::{Error, failed};
use super::fds;
use super::listen_fds::{self, ListenFdsError};
use super::process::own_pid;

/// The variable with the number of the descriptor that holds the list of the others.
const VARIABLE: &str = "BLACKHOLE_SUCCESSION";
/// The longest list that is read, in bytes.
const LIST_MOST: u64 = 16 << 20;

/// Why the descriptors that another program handed over cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("{VARIABLE} is {0:?}: it must be the number of an open descriptor")]
    Variable(String),
    #[error(transparent)]
    Inherit(#[from] ListenFdsError),
    #[error("cannot read the list of what the former orchestrator handed over: {0}")]
    Read(#[source] io::Error),
    #[error("the list of what the former orchestrator handed over holds {0:?}")]
    Line(String),
}

/// The descriptors that are handed over, with names that may repeat and hold no line feed.
pub type HandedFds = Vec<(String, OwnedFd)>;

/// Takes the descriptors that the program handed over which executed this one. `None`: there was no
/// handover, or it was for another process. To be called before anything opens descriptors.
pub fn take() -> Result<Option<HandedFds>, HandoverError> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let wrong = || HandoverError::Variable(text.to_string_lossy().into_owned());
    let (pid, number) = text.to_str().and_then(|text| text.split_once(':')).ok_or_else(wrong)?;
    if pid != own_pid().to_string() {
        return Ok(None);
    }
    let list = listen_fds::own(number.parse().map_err(|_| wrong())?, "list")?;
    let list = File::from(list);
    let size = list.metadata().map_err(HandoverError::Read)?.len().min(LIST_MOST);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    list.read_exact_at(&mut bytes, 0).map_err(HandoverError::Read)?;
    String::from_utf8_lossy(&bytes).lines().map(own).collect::<Result<_, _>>().map(Some)
}

/// `NUMBER NAME`
fn own(line: &str) -> Result<(String, OwnedFd), HandoverError> {
    let read = line.split_once(' ').and_then(|(number, name)| Some((number.parse().ok()?, name)));
    let (number, name) = read.ok_or_else(|| HandoverError::Line(line.to_owned()))?;
    Ok((name.to_owned(), listen_fds::own(number, name)?))
}

/// Becomes `program`, which gets `fds` and nothing else that is open but standard input, output
/// and error. Returns only when that failed; then everything is as before.
pub fn exec(
    program: &Path,
    arguments: &[OsString],
    fds: &[(String, impl AsFd)],
) -> Result<std::convert::Infallible, Error> {
    let list: Vec<String> =
        fds.iter().map(|(name, fd)| format!("{} {name}\n", fd.as_fd().as_raw_fd())).collect();
    let list = fds::sealed_memory("succession", list.concat().as_bytes())?;
    let kept = fds.iter().map(|(_, fd)| fd.as_fd()).chain([list.as_fd()]);
    let kept: Vec<_> = kept.collect();
    for fd in &kept {
        fcntl_setfd(fd, FdFlags::empty()).map_err(failed("keep over exec", "a descriptor"))?;
    }
    let reason = execute(program, arguments, list.as_raw_fd());
    for fd in kept {
        // It was set so before: what fails here leaves a descriptor open for a child, which closes
        // all that it is not told to keep.
        let _as_before = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
    Err(reason)
}

fn execute(program: &Path, arguments: &[OsString], list: RawFd) -> Error {
    let failed = |reason: io::Error| failed("execute", program.display())(reason);
    let texts = || {
        let path = c_string(program.as_os_str())?;
        let arguments: Vec<CString> =
            arguments.iter().map(|text| c_string(text)).collect::<io::Result<_>>()?;
        Ok((path, arguments, environment(list)?))
    };
    let (path, arguments, environment) = match texts() {
        Ok(texts) => texts,
        Err(reason) => return failed(reason),
    };
    let pointers = |all: &[CString]| {
        all.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: the path and both lists are NUL-terminated and live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    failed(io::Error::last_os_error())
}

/// Our environment, without the variables that number descriptors, and with `VARIABLE`.
fn environment(list: RawFd) -> io::Result<Vec<CString>> {
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"] {
        all.remove(OsStr::new(name));
    }
    all.insert(VARIABLE.into(), format!("{}:{list}", own_pid()).into());
    let entry = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        c_string(&name)
    };
    all.into_iter().map(entry).collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_executed_leaves_everything_as_it_was() {
        let (read_end, _write_end) = fds::pipe().unwrap();
        let fds = [("pipe".to_owned(), read_end)];
        let refused = exec(Path::new("/no/such"), &["x".into()], &fds).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::ENOENT));
        let flags = rustix::io::fcntl_getfd(&fds[0].1).unwrap();
        assert_eq!(flags, FdFlags::CLOEXEC);
    }

    #[test]
    fn a_list_that_is_none_is_refused_by_its_line() {
        let refused = own("x y").unwrap_err().to_string();
        assert!(refused.contains("\"x y\""), "{refused}");
        assert!(own("1000000 pipe").unwrap_err().to_string().contains("\"pipe\""));
    }
}
