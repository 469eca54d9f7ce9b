//! Files below a root, changed all or not at all: each is written beside its place and flushed,
//! then all are renamed into place; what was there before is kept until everything is done.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::InstallError;
use super::manifest::{Digest, MANIFEST, Manifest};
use super::package::{Content, Item};
use super::steps::{Found, Step, Steps};

/// Whatever the umask is.
const FOLDER_MODE: u32 = 0o755;
const MANIFEST_MODE: u32 = 0o644;

/// The folder below which everything happens.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, InstallError> {
        let path = path.canonicalize().map_err(failed("find the root folder", path))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The place of `relative`. In an image a link may be meant for another root than ours.
    fn place(&self, relative: &str) -> Result<PathBuf, InstallError> {
        let place = self.path.join(relative);
        for folder in place.ancestors().skip(1) {
            match folder.canonicalize() {
                Ok(real) if real.starts_with(&self.path) => return Ok(place),
                Ok(_) => {
                    let path = folder.to_owned();
                    return Err(InstallError::LeadsOut { path, root: self.path.clone() });
                }
                Err(reason) if reason.kind() == io::ErrorKind::NotFound => {}
                Err(reason) => return Err(failed("look at", folder)(reason)),
            }
        }
        Ok(place)
    }

    pub(super) fn look(&self, relative: &str) -> Result<Found, InstallError> {
        let place = self.place(relative)?;
        match place.symlink_metadata() {
            Ok(found) if found.is_file() => Ok(Found::File(digest_of_file(&place)?)),
            Ok(_) => Ok(Found::Other),
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(reason) => Err(failed("look at", &place)(reason)),
        }
    }

    pub(super) fn read(&self, relative: &str) -> Result<Option<String>, InstallError> {
        let place = self.place(relative)?;
        match fs::read_to_string(&place) {
            Ok(text) => Ok(Some(text)),
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(reason) => Err(failed("read", &place)(reason)),
        }
    }

    pub(super) fn digest_of(&self, content: &Content) -> Result<Digest, InstallError> {
        match content {
            Content::Bytes(bytes) => Ok(Digest(Sha256::digest(bytes).into())),
            Content::Of(file) => digest_of_file(file),
        }
    }
}

fn digest_of_file(path: &Path) -> Result<Digest, InstallError> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part).map_err(failed("read", path))? {
            0 => return Ok(Digest(hash.finalize().into())),
            length => hash.update(part.get(..length).unwrap_or_default()),
        }
    }
}

/// What takes a deed back.
#[derive(Debug)]
enum Undo {
    RemoveFolder(PathBuf),
    RemoveFile(PathBuf),
    /// The file of before is beside it.
    Restore(PathBuf),
}

impl Undo {
    fn place(&self) -> &Path {
        match self {
            Self::RemoveFolder(place) | Self::RemoveFile(place) | Self::Restore(place) => place,
        }
    }
}

/// One install at a time. Given back expressly: a child that is just being made has the descriptor
/// too, and would hold it on.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(root: &Path) -> Result<Self, InstallError> {
        let folder = File::open(root).map_err(failed("open", root))?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(folder)),
            Err(Errno::WOULDBLOCK) => Err(InstallError::Busy { root: root.to_owned() }),
            Err(reason) => Err(failed("lock", root)(reason.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The end of the process gives it back, too.
        let _given_back = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Changes that are all kept (`commit`) or all taken back (`roll_back`).
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    root: &'a Root,
    undo: Vec<Undo>,
    /// Folders to be removed at the end where they are empty then, the inner ones first.
    emptied: Vec<String>,
    _lock: Lock,
    /// How many changes are let through before one is refused.
    #[cfg(test)]
    pub(super) allowance: Option<usize>,
}

impl<'a> Transaction<'a> {
    /// One at a time. `paths` are all that may be touched: what an install that was cut off left
    /// beside them is removed.
    pub(super) fn begin<'p>(
        root: &'a Root,
        paths: impl Iterator<Item = &'p str>,
    ) -> Result<Self, InstallError> {
        let lock = Lock::take(&root.path)?;
        for path in paths.chain([MANIFEST]) {
            let place = root.place(path)?;
            remove_if_there(&fresh(&place))?;
            remove_if_there(&former(&place))?;
        }
        Ok(Self {
            root,
            undo: Vec::new(),
            emptied: Vec::new(),
            _lock: lock,
            #[cfg(test)]
            allowance: None,
        })
    }

    /// The manifest is written first: whatever cuts this off, it lists all that is ours.
    pub(super) fn carry_out(
        &mut self,
        steps: &Steps<'_>,
        before: &Manifest,
    ) -> Result<(), InstallError> {
        let mut after = steps.after.clone();
        for path in steps.to_put().map(|item| item.path.as_str()).chain([MANIFEST]) {
            self.missing_folders(path).iter().for_each(|folder| after.add_folder(folder));
        }
        self.make_folders(MANIFEST)?;
        self.put_manifest(&before.with(&after))?;
        for item in steps.to_put() {
            self.stage(item)?;
        }
        for step in &steps.steps {
            match step {
                Step::Put(item) => self.place(&item.path)?,
                Step::Remove(path) => self.remove(path)?,
            }
        }
        if after.is_empty() {
            self.emptied = before.folders_inside_out().map(str::to_owned).collect();
            return self.remove(MANIFEST);
        }
        self.put_manifest(&after)
    }

    fn stage(&mut self, item: &Item) -> Result<(), InstallError> {
        self.make_folders(&item.path)?;
        let source: &mut dyn Read = match &item.content {
            Content::Bytes(bytes) => &mut bytes.as_slice(),
            Content::Of(file) => &mut File::open(file).map_err(failed("read", file))?,
        };
        self.write_beside(&item.path, item.mode, source)
    }

    fn write_beside(
        &mut self,
        path: &str,
        mode: u32,
        source: &mut dyn Read,
    ) -> Result<(), InstallError> {
        let beside = fresh(&self.root.place(path)?);
        self.may_go_on("write", &beside)?;
        self.undo.push(Undo::RemoveFile(beside.clone()));
        let mut options = File::options();
        let opened = options.write(true).create_new(true).mode(0o600).open(&beside);
        opened
            .and_then(|mut file| {
                io::copy(source, &mut file)?;
                file.set_permissions(Permissions::from_mode(mode))?;
                file.sync_all()
            })
            .map_err(failed("write", &beside))
    }

    fn put_manifest(&mut self, manifest: &Manifest) -> Result<(), InstallError> {
        self.write_beside(MANIFEST, MANIFEST_MODE, &mut manifest.render().as_bytes())?;
        self.place(MANIFEST)
    }

    /// What was written beside its place goes there.
    fn place(&mut self, path: &str) -> Result<(), InstallError> {
        let place = self.root.place(path)?;
        self.may_go_on("replace", &place)?;
        self.keep_former(&place)?;
        fs::rename(fresh(&place), &place).map_err(failed("replace", &place))
    }

    fn remove(&mut self, path: &str) -> Result<(), InstallError> {
        let place = self.root.place(path)?;
        self.may_go_on("remove", &place)?;
        self.keep_former(&place)?;
        remove_if_there(&place)
    }

    /// Under a second name, and only the first of several.
    fn keep_former(&mut self, place: &Path) -> Result<(), InstallError> {
        match fs::hard_link(place, former(place)) {
            Ok(()) => self.undo.push(Undo::Restore(place.to_owned())),
            Err(reason) if reason.kind() == io::ErrorKind::AlreadyExists => {}
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                self.undo.push(Undo::RemoveFile(place.to_owned()));
            }
            Err(reason) => return Err(failed("keep the former", place)(reason)),
        }
        Ok(())
    }

    fn make_folders(&mut self, path: &str) -> Result<(), InstallError> {
        for relative in self.missing_folders(path) {
            let folder = self.root.path.join(relative);
            self.may_go_on("make the folder", &folder)?;
            let made = DirBuilder::new().mode(FOLDER_MODE).create(&folder);
            made.map_err(failed("make the folder", &folder))?;
            self.undo.push(Undo::RemoveFolder(folder.clone()));
            let opened = fs::set_permissions(&folder, Permissions::from_mode(FOLDER_MODE));
            opened.map_err(failed("chmod", &folder))?;
        }
        Ok(())
    }

    /// Those that a file at `path` needs, the outer ones first.
    fn missing_folders(&self, path: &str) -> Vec<String> {
        let folders = Path::new(path).ancestors().skip(1);
        let missing = folders.filter(|relative| !self.root.path.join(relative).exists());
        let mut missing: Vec<String> =
            missing.map(|relative| relative.to_string_lossy().into_owned()).collect();
        missing.reverse();
        missing
    }

    /// Keeps the changes. Returns what could not be tidied up.
    pub(super) fn commit(self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |done: Result<(), InstallError>| {
            problems.extend(done.err().map(|error| error.to_string()));
        };
        let mut folders = BTreeSet::new();
        for undo in &self.undo {
            match undo {
                Undo::Restore(place) => note(remove_if_there(&former(place))),
                Undo::RemoveFile(_) | Undo::RemoveFolder(_) => {}
            }
            folders.extend(undo.place().parent());
        }
        folders.into_iter().for_each(|folder| note(flush_folder(folder)));
        for folder in &self.emptied {
            let folder = self.root.path.join(folder);
            match fs::remove_dir(&folder) {
                Ok(()) => {}
                // Others have files there, or took it away themselves.
                Err(reason) if reason.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(reason) if reason.kind() == io::ErrorKind::NotFound => {}
                Err(reason) => note(Err(failed("remove the folder", &folder)(reason))),
            }
        }
        problems
    }

    /// Takes all changes back, the last one first. Returns what could not be.
    pub(super) fn roll_back(self) -> Vec<String> {
        let undone = self.undo.into_iter().rev().map(|undo| match undo {
            Undo::RemoveFolder(folder) => {
                fs::remove_dir(&folder).map_err(failed("remove the folder", &folder))
            }
            Undo::RemoveFile(place) => remove_if_there(&place),
            Undo::Restore(place) => {
                fs::rename(former(&place), &place).map_err(failed("restore", &place))
            }
        });
        undone.filter_map(|done| done.err().map(|error| error.to_string())).collect()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests make it refuse")]
    fn may_go_on(&mut self, _: &'static str, _: &Path) -> Result<(), InstallError> {
        Ok(())
    }

    #[cfg(test)]
    fn may_go_on(&mut self, doing: &'static str, place: &Path) -> Result<(), InstallError> {
        match &mut self.allowance {
            Some(0) => Err(failed(doing, place)(io::ErrorKind::StorageFull.into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The new content of a place, until it is renamed. No program reads names that begin with a dot.
fn fresh(place: &Path) -> PathBuf {
    beside(place, ".blackhole-new")
}

/// The former content of a place, until all is done.
fn former(place: &Path) -> PathBuf {
    beside(place, ".blackhole-old")
}

fn beside(place: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(ending);
    place.with_file_name(name)
}

fn remove_if_there(place: &Path) -> Result<(), InstallError> {
    match fs::remove_file(place) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", place)),
    }
}

fn flush_folder(folder: &Path) -> Result<(), InstallError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(failed("flush the folder", folder))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |reason| InstallError::File { doing, path: path.to_owned(), reason }
}
