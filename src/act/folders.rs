//! The folders of an instance: its service's data, which stays, and its own runtime folder, which
//! is empty at each start.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;

use super::error::ActError;
use crate::linux::chown::{self, Owner};
use crate::plan::{LaunchPlan, Plan, RUNTIME_FOLDERS};
use crate::units::{InstanceId, RunId};

/// Folders that are being removed are moved here, below the node's runtime folder.
const OLD: &str = "old";

/// Makes the folders that the instance finds at its start, and gives them to the user it runs as.
pub(super) fn make(
    plan: &Plan,
    launch: &LaunchPlan,
    id: &InstanceId,
    run: RunId,
    owner: Owner,
) -> Result<(), ActError> {
    let folder = &launch.sandbox.runtime_folder;
    make_folder(&launch.data_dir)?;
    if !is_as_new(folder, owner) {
        set_aside(&plan.runtime_dir, folder, &format!("{id}.{run}"))?;
        make_folder(&launch.sandbox.temporary_folder())?;
    }
    if owner != Owner::us() {
        let through = [
            Some(plan.runtime_dir.as_path()),
            folder.parent(),
            launch.data_dir.parent(),
            launch.data_dir.parent().and_then(Path::parent),
        ];
        for folder in through.into_iter().flatten() {
            chown::make_searchable(folder).map_err(ActError::Owner)?;
        }
    }
    for folder in [&launch.data_dir, folder] {
        chown::chown_tree(folder, owner).map_err(ActError::Owner)?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), ActError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|reason| ActError::Folder { path: path.to_owned(), reason })
}

/// Makes the runtime folder: its owner's, empty but for the folder for temporary files.
fn is_as_new(folder: &Path, owner: Owner) -> bool {
    let found = |path: &Path| fs::symlink_metadata(path).ok().filter(|found| found.is_dir());
    let belongs = found(folder).is_some_and(|found| found.uid() == owner.uid);
    let temporary = folder.join("tmp");
    let entries = |folder: &Path| fs::read_dir(folder).map(|all| all.take(2).count());
    belongs
        && entries(folder).is_ok_and(|count| count == 1)
        && found(&temporary).is_some()
        && entries(&temporary).is_ok_and(|count| count == 0)
}

/// Moves a folder out of the way at once and empties it on another thread: a service can leave more
/// files in it than the caller may wait for.
fn set_aside(runtime_dir: &Path, folder: &Path, name: &str) -> Result<(), ActError> {
    let old = runtime_dir.join(OLD);
    make_folder(&old)?;
    let aside = old.join(name);
    match fs::rename(folder, &aside) {
        Ok(()) => remove_beside(aside),
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => {}
        Err(reason) => return Err(ActError::Folder { path: folder.to_owned(), reason }),
    }
    Ok(())
}

/// What is left of it is removed by the next start of the node.
fn remove_beside(path: PathBuf) {
    let remove = move || {
        let _left_for_the_next_start = fs::remove_dir_all(path);
    };
    let _without_a_thread = thread::Builder::new().name("remove".to_owned()).spawn(remove);
}

/// Removes the runtime folder of an instance that was retired.
pub(super) fn remove(runtime_dir: &Path, id: &InstanceId) {
    let folder = runtime_dir.join(RUNTIME_FOLDERS).join(id.to_string());
    let _left_for_the_next_start = set_aside(runtime_dir, &folder, &id.to_string());
}

/// Empties what earlier nodes left in the folder of removed ones.
pub(super) fn remove_old(runtime_dir: &Path) {
    // The folder itself stays: others may be moved into it meanwhile.
    let Ok(entries) = fs::read_dir(runtime_dir.join(OLD)) else { return };
    entries.flatten().for_each(|entry| remove_beside(entry.path()));
}

/// For the end of the node, when nothing runs any more.
pub(super) fn clean_up(runtime_dir: &Path) {
    for folder in [RUNTIME_FOLDERS, OLD] {
        let _left_for_the_next_start = fs::remove_dir_all(runtime_dir.join(folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_folder_is_as_new_only_when_nobody_was_in_it() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("web-0");
        let us = Owner::us();
        assert!(!is_as_new(&folder, us));
        make_folder(&folder.join("tmp")).unwrap();
        assert!(is_as_new(&folder, us));
        assert!(!is_as_new(&folder, Owner { uid: us.uid + 1, gid: us.gid }));
        fs::write(folder.join("tmp/x"), "").unwrap();
        assert!(!is_as_new(&folder, us));
        fs::remove_file(folder.join("tmp/x")).unwrap();
        fs::write(folder.join("pid"), "").unwrap();
        assert!(!is_as_new(&folder, us));
    }

    #[test]
    fn a_folder_is_out_of_the_way_at_once_and_gone_in_the_end() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("web-0");
        make_folder(&folder.join("tmp/deep")).unwrap();
        set_aside(lab.path(), &folder, "web-0.7").unwrap();
        assert!(!folder.exists());
        set_aside(lab.path(), &folder, "web-0.8").unwrap();
        let aside = lab.path().join(OLD).join("web-0.7");
        while aside.exists() {
            thread::yield_now();
        }
    }
}
