//! The owners of files and folders. Knows nothing of what is in them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::error::{Error, failed};

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// The effective user and group of this process.
    pub fn us() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { uid: uid.as_raw(), gid: gid.as_raw() }
    }
}

/// Gives a file, a socket or an empty folder to its owner; follows no symbolic link.
pub fn chown(path: &Path, owner: Owner) -> Result<(), Error> {
    let (uid, gid) = numbers(owner);
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("change the owner of", path.display()))
}

/// Gives a folder to its owner if it is somebody else's, and with it what in it belonged to that
/// one before. Files with a second name elsewhere keep their owner: they may be more than they
/// seem.
pub fn chown_tree(path: &Path, owner: Owner) -> Result<(), Error> {
    let unread = |reason| failed("look at", path.display())(reason);
    let found = fs::symlink_metadata(path).map_err(unread)?;
    if (found.uid(), found.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    let refused = || failed("change the owner of what is in", path.display());
    let folder = open_folder(CWD, path).map_err(refused())?;
    chown_below(&folder, found.uid(), owner).map_err(refused())?;
    // Last: a change that was broken off begins anew.
    chown(path, owner)
}

fn chown_below(folder: &OwnedFd, before: u32, owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = numbers(owner);
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if found.st_uid != before || (!is_folder && found.st_nlink > 1) {
            continue;
        }
        if is_folder {
            chown_below(&open_folder(folder, name)?, before, owner)?;
        }
        rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn open_folder(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn numbers(owner: Owner) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

/// Lets everybody go through a folder of ours to what they know the name of; they cannot list it.
pub fn make_searchable(folder: &Path) -> Result<(), Error> {
    const SEARCH: u32 = 0o011;
    let refused = || failed("let other users through", folder.display());
    let mode = fs::metadata(folder).map_err(refused())?.permissions().mode() & 0o7777;
    if mode & SEARCH == SEARCH {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode | SEARCH)).map_err(refused())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_changes_hands_with_all_that_belonged_to_its_owner() {
        if Owner::us().uid != 0 {
            println!("skipped: only root can give files away");
            return;
        }
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("data");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        let (file, others) = (folder.join("a/b/file"), folder.join("a/others"));
        for path in [&file, &others, &folder.join("shared"), &lab.path().join("outside")] {
            fs::write(path, "x").unwrap();
        }
        chown(&others, Owner { uid: 7, gid: 7 }).unwrap();
        symlink(lab.path().join("outside"), folder.join("link")).unwrap();
        fs::hard_link(folder.join("shared"), lab.path().join("shared")).unwrap();

        let new = Owner { uid: 1234, gid: 4321 };
        chown_tree(&folder, new).unwrap();
        let owner = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        for path in [&folder, &folder.join("a"), &folder.join("a/b"), &file, &folder.join("link")] {
            assert_eq!(owner(path), (1234, 4321), "{}", path.display());
        }
        assert_eq!(owner(&others), (7, 7));
        assert_eq!(owner(&lab.path().join("outside")), (0, 0));
        assert_eq!(owner(&folder.join("shared")), (0, 0));
        chown_tree(&folder, Owner::us()).unwrap();
        assert_eq!((owner(&file), owner(&others)), ((0, 0), (7, 7)));
    }

    #[test]
    fn others_are_let_through_and_see_nothing() {
        let lab = tempfile::tempdir().unwrap();
        fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o700)).unwrap();
        make_searchable(lab.path()).unwrap();
        assert_eq!(fs::metadata(lab.path()).unwrap().permissions().mode() & 0o7777, 0o711);
    }
}
