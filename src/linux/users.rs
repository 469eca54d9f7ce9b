//! The system's users and groups by name, as the C library finds them (nsswitch.conf(5)).
#![allow(unsafe_code, reason = "getpwnam_r, getgrnam_r and getgrouplist")]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::error::{Error, failed};

/// As whom a process can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// All that it belongs to, the first one among them.
    pub groups: Vec<u32>,
}

/// More room than one entry of the user or group database needs, in bytes.
const ROOM_MAX: usize = 1 << 20;
/// NGROUPS_MAX of Linux.
const GROUPS_MAX: usize = 65_536;

/// The user of this name, with the groups that the system gives it; `group` takes the place of its
/// own first one. `None` where there is no such user.
pub fn user(name: &str, group: Option<u32>) -> Result<Option<User>, Error> {
    let text = c_name(name, "user")?;
    let Some(entry) = passwd(&text).map_err(failed("look for the user", name))? else {
        return Ok(None);
    };
    let gid = group.unwrap_or(entry.pw_gid);
    let groups = groups_of(&text, gid).map_err(failed("find the groups of the user", name))?;
    Ok(Some(User { uid: entry.pw_uid, gid, groups }))
}

/// The name of the user with this number; `None` where there is none.
pub fn name(uid: u32) -> Result<Option<String>, Error> {
    let mut found = ptr::null_mut();
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let name = with_room(|room| {
        let (buffer, length) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: the buffer is as long as said.
        let code =
            unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer, length, &raw mut found) };
        // SAFETY: where it is not null, it points to `entry`, which was filled in then.
        let entry = unsafe { found.as_ref() };
        let text = entry.map(|entry| {
            // SAFETY: it points to a text with NUL at its end in `room`, which is still there.
            unsafe { CStr::from_ptr(entry.pw_name) }
        });
        (code, text.map(|text| text.to_string_lossy().into_owned()))
    });
    name.map_err(failed("look for the user number", uid))
}

/// The number of the group of this name; `None` where there is none.
pub fn group(name: &str) -> Result<Option<u32>, Error> {
    let text = c_name(name, "group")?;
    let mut found = ptr::null_mut();
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let gid = with_room(|room| {
        let (buffer, length) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: the name ends with NUL, and the buffer is as long as said.
        let code = unsafe {
            libc::getgrnam_r(text.as_ptr(), entry.as_mut_ptr(), buffer, length, &raw mut found)
        };
        // SAFETY: where it is not null, it points to `entry`, which was filled in then.
        (code, unsafe { found.as_ref() }.map(|entry| entry.gr_gid))
    });
    gid.map_err(failed("look for the group", name))
}

fn passwd(name: &CStr) -> io::Result<Option<Numbers>> {
    let mut found = ptr::null_mut();
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    with_room(|room| {
        let (buffer, length) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: the name ends with NUL, and the buffer is as long as said.
        let code = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer, length, &raw mut found)
        };
        // SAFETY: where it is not null, it points to `entry`, which was filled in then.
        let entry = unsafe { found.as_ref() };
        (code, entry.map(|entry| Numbers { pw_uid: entry.pw_uid, pw_gid: entry.pw_gid }))
    })
}

struct Numbers {
    pw_uid: u32,
    pw_gid: u32,
}

/// Asks with more and more room until the entry fits.
fn with_room<T>(mut ask: impl FnMut(&mut [u8]) -> (i32, Option<T>)) -> io::Result<Option<T>> {
    let mut room = vec![0; 4096];
    loop {
        match ask(&mut room) {
            (libc::ERANGE, _) if room.len() < ROOM_MAX => room.resize(room.len() * 2, 0),
            (libc::EINTR, _) => {}
            // What "no such entry" is varies between the sources (getpwnam(3)).
            (0 | libc::ENOENT | libc::ESRCH, found) => return Ok(found),
            (errno, _) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn groups_of(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: the name ends with NUL, and there is room for as many groups as said.
        let code =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or_default();
        if code >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

fn c_name(name: &str, what: &'static str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::Content {
        file: format!("the name of a {what}"),
        expected: "a text without NUL bytes",
        found: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_their_names() {
        let root = user("root", None).unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0), "{root:?}");
        let nobody = user("nobody", Some(0)).unwrap().unwrap();
        assert!(nobody.uid != 0 && nobody.gid == 0 && nobody.groups.contains(&0), "{nobody:?}");
        assert_eq!(group("root").unwrap(), Some(0));
        assert_eq!(name(0).unwrap().as_deref(), Some("root"));
        assert_eq!(name(u32::MAX - 7).unwrap(), None);
        assert_eq!(user("no-such-user", None).unwrap(), None);
        assert_eq!(group("no-such-group").unwrap(), None);
        assert!(user("a\0b", None).is_err());
    }
}
