//! What has to be done: from the files that are wanted, those that are there, and the manifest of
//! the install before. Pure.

use std::collections::BTreeMap;

use super::error::{Conflict, InstallError};
use super::manifest::{Digest, Manifest};
use super::package::{Item, Role};

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File(Digest),
    /// A folder, a link, a device.
    Other,
}

/// What becomes of files in our places that are not ours, or not as we left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    Respect,
    Overwrite,
}

/// One file and what becomes of it. `path` is relative to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    pub path: String,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Write,
    Replace,
    Unchanged,
    /// It is not as it was installed: the operator's, and left alone.
    Keep,
    Remove,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            Self::Write => "written",
            Self::Replace => "replaced",
            Self::Unchanged => "unchanged",
            Self::Keep => "kept",
            Self::Remove => "removed",
        }
    }
}

/// A file in its place, or the end of one.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Put(&'a Item),
    Remove(String),
}

#[derive(Debug)]
pub(super) struct Steps<'a> {
    deeds: Vec<Deed>,
    pub(super) steps: Vec<Step<'a>>,
    /// What is installed afterwards.
    pub(super) after: Manifest,
}

impl<'a> Steps<'a> {
    /// All conflicts at once, where there are some.
    pub(super) fn to_install(
        wanted: &[(&'a Item, Digest)],
        found: &BTreeMap<String, Found>,
        before: &Manifest,
        others: Others,
    ) -> Result<Self, InstallError> {
        let mut steps = Self { deeds: Vec::new(), steps: Vec::new(), after: Manifest::default() };
        let mut conflicts = Vec::new();
        for (item, digest) in wanted {
            let there = found.get(&item.path).copied().unwrap_or(Found::Nothing);
            match place(item, *digest, there, before, others) {
                Ok(what) => steps.take(item, *digest, what, before),
                Err(conflict) => conflicts.push(conflict),
            }
        }
        if !conflicts.is_empty() {
            return Err(InstallError::Conflicts { conflicts });
        }
        let wanted = |path: &str| wanted.iter().any(|(item, _)| item.path == path);
        for path in before.paths().filter(|path| !wanted(path)) {
            steps.give_up(path, found, before);
        }
        for folder in before.folders_inside_out() {
            steps.after.add_folder(folder);
        }
        Ok(steps)
    }

    pub(super) fn to_uninstall(found: &BTreeMap<String, Found>, before: &Manifest) -> Self {
        let mut steps = Self { deeds: Vec::new(), steps: Vec::new(), after: Manifest::default() };
        for path in before.paths() {
            steps.give_up(path, found, before);
        }
        steps
    }

    pub(super) fn deeds(&self) -> Vec<Deed> {
        self.deeds.clone()
    }

    pub(super) fn to_put(&self) -> impl Iterator<Item = &'a Item> {
        self.steps.iter().filter_map(|step| match step {
            Step::Put(item) => Some(*item),
            Step::Remove(_) => None,
        })
    }

    /// All that may be touched.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.deeds.iter().map(|deed| deed.path.as_str())
    }

    fn take(&mut self, item: &'a Item, digest: Digest, what: Placing, before: &Manifest) {
        match what {
            Placing::Put(what) => {
                self.steps.push(Step::Put(item));
                self.after.add_file(&item.path, digest);
                self.deeds.push(Deed { path: item.path.clone(), what });
            }
            Placing::Ours => {
                self.after.add_file(&item.path, digest);
                self.deeds.push(Deed { path: item.path.clone(), what: What::Unchanged });
            }
            Placing::Theirs(what) => {
                // It stays listed as it was installed: an uninstall names it, too.
                for digest in before.digests(&item.path) {
                    self.after.add_file(&item.path, digest);
                }
                self.deeds.push(Deed { path: item.path.clone(), what });
            }
        }
    }

    /// A file that is listed and not wanted any more.
    fn give_up(&mut self, path: &str, found: &BTreeMap<String, Found>, before: &Manifest) {
        let what = match found.get(path).copied().unwrap_or(Found::Nothing) {
            Found::Nothing => return,
            Found::File(digest) if before.has(path, digest) => What::Remove,
            Found::File(_) | Found::Other => What::Keep,
        };
        if what == What::Remove {
            self.steps.push(Step::Remove(path.to_owned()));
        }
        self.deeds.push(Deed { path: path.to_owned(), what });
    }
}

enum Placing {
    Put(What),
    /// It is there, from an earlier install.
    Ours,
    /// It is there, and an uninstall leaves it.
    Theirs(What),
}

fn place(
    item: &Item,
    digest: Digest,
    there: Found,
    before: &Manifest,
    others: Others,
) -> Result<Placing, Conflict> {
    let path = item.path.clone();
    let there = match (there, item.role) {
        (Found::Nothing, _) => return Ok(Placing::Put(What::Write)),
        (Found::File(there), _) => there,
        (Found::Other, Role::Configuration) => return Ok(Placing::Theirs(What::Keep)),
        (Found::Other, Role::Other) => return Err(Conflict::NoFile { path }),
    };
    let listed = before.lists(&item.path);
    if there == digest {
        return Ok(if listed { Placing::Ours } else { Placing::Theirs(What::Unchanged) });
    }
    match (before.has(&item.path, there), item.role, others) {
        (true, _, _) => Ok(Placing::Put(What::Replace)),
        (false, Role::Configuration, _) => Ok(Placing::Theirs(What::Keep)),
        (false, Role::Other, Others::Overwrite) => Ok(Placing::Put(What::Replace)),
        (false, Role::Other, Others::Respect) if listed => Err(Conflict::Changed { path }),
        (false, Role::Other, Others::Respect) => Err(Conflict::NotOurs { path }),
    }
}
