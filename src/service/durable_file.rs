//! Durable files: what a caller was told is stored survives a power cut.
//!
//! A file is written beside its place, flushed, renamed into place, and the folder is flushed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An operation that failed on a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path:?}: {source}")]
pub struct FileError {
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// Whether there is no room: the disk, the user's quota or the file size limit is used up.
    pub fn is_no_room(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }
}

/// RESOURCE_EXHAUSTED: no room on the disk; else INTERNAL. The caller does not see the path.
impl From<FileError> for tonic::Status {
    fn from(error: FileError) -> Self {
        tracing::error!(%error, "file work failed");
        let said = format!("cannot {}: {}", error.doing, error.source);
        if error.is_no_room() { Self::resource_exhausted(said) } else { Self::internal(said) }
    }
}

/// Adds the operation and its object to an I/O error.
pub trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|error| FileError { doing, path: path.to_owned(), source: error.into() })
    }
}

/// Makes the folder (mode 0700) where it is not there yet, and its name durable; its parent must
/// exist.
pub fn ensure(folder: &Path) -> Result<(), FileError> {
    make(folder)?;
    folder.parent().map_or(Ok(()), flush)
}

/// As `ensure`, but the caller flushes the parent, once for many folders.
pub fn make(folder: &Path) -> Result<(), FileError> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).doing("make the folder", folder),
    }
}

/// Makes renames, new names and removals in the folder durable.
pub fn flush(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|opened| opened.sync_all()).doing("flush the folder", folder)
}

/// A new, empty file that only this user may read.
pub fn create_private(path: &Path) -> Result<File, FileError> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).doing("create", path)
}

/// Puts `bytes` at `path` by way of `beside`, which must be on the same filesystem and not exist.
/// On an error nothing is left at `beside`, and `path` is as it was.
pub fn write_durably(path: &Path, beside: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = create_private(beside)?;
    let placed = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .doing("write", beside)
        .and_then(|()| fs::rename(beside, path).doing("put into place", path));
    if placed.is_err() {
        remove_quietly(beside);
    }
    placed?;
    path.parent().map_or(Ok(()), flush)
}

/// Removes a file that is not needed any more. A failure is logged; the next start tries again.
pub fn remove_quietly(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove a leftover"),
    }
}

/// Removes what an interrupted process left: the files of `folder` whose names begin with `prefix`.
pub fn remove_leftovers(folder: &Path, prefix: &str) -> Result<usize, FileError> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).doing("list", folder)? {
        let entry = entry.doing("list", folder)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            fs::remove_file(&path).doing("remove the leftover", &path)?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(folder = %folder.display(), removed, "removed what torn writes left");
    }
    Ok(removed)
}

/// The file names in the folder, in byte order. Names that are not UTF-8 are not ours and left out.
pub fn sorted_names(folder: &Path) -> Result<Vec<String>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).doing("list", folder)? {
        names.extend(entry.doing("list", folder)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_write_replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("a"), dir.path().join(".new-0"));
        write_durably(&path, &beside, b"one").unwrap();
        write_durably(&path, &beside, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(sorted_names(dir.path()).unwrap(), ["a"]);
    }

    #[test]
    fn a_failed_write_names_its_object_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("taken"), dir.path().join(".new-0"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), b"").unwrap();
        let error = write_durably(&path, &beside, b"one").unwrap_err().to_string();
        assert!(error.contains("put into place") && error.contains("taken"), "{error}");
        assert_eq!(sorted_names(dir.path()).unwrap(), ["taken"]);
    }

    #[test]
    fn only_leftovers_of_the_prefix_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".new-0-1", ".new-0-2", ".new-1-1", "kept"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(remove_leftovers(dir.path(), ".new-0-").unwrap(), 2);
        assert_eq!(sorted_names(dir.path()).unwrap(), [".new-1-1", "kept"]);
    }
}
