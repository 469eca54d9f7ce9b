//! The list of what was installed: which files with which contents, which folders were made for
//! them. It belongs to root, for an uninstall believes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

/// Below the root. Not in the node's own data, which the node may write.
pub(super) const MANIFEST: &str = "usr/lib/blackhole/manifest";

const HEAD: &str = "# blackhole-node: installed files by SHA-256, and the folders made for them";

/// SHA-256
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub(super) [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Digest {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// While an install is under way a file may have the content of before or that of after: both are
/// listed then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    files: BTreeMap<String, BTreeSet<Digest>>,
    folders: BTreeSet<String>,
}

impl Manifest {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The paths of the files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Folders, those within others first.
    pub(super) fn folders_inside_out(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().rev().map(String::as_str)
    }

    pub(super) fn lists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The contents that we left it with.
    pub(super) fn digests(&self, path: &str) -> impl Iterator<Item = Digest> {
        self.files.get(path).into_iter().flatten().copied()
    }

    /// Whether the file is as we left it.
    pub(super) fn has(&self, path: &str, digest: Digest) -> bool {
        self.digests(path).any(|ours| ours == digest)
    }

    pub(super) fn add_file(&mut self, path: &str, digest: Digest) {
        self.files.entry(path.to_owned()).or_default().insert(digest);
    }

    pub(super) fn add_folder(&mut self, path: &str) {
        self.folders.insert(path.to_owned());
    }

    pub(super) fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (path, digests) in &other.files {
            both.files.entry(path.clone()).or_default().extend(digests);
        }
        both.folders.extend(other.folders.iter().cloned());
        both
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (path, digests) in &self.files {
            for digest in digests {
                text += &format!("{digest}  {path}\n");
            }
        }
        for folder in &self.folders {
            text += &format!("folder  {folder}\n");
        }
        text
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut manifest = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') {
                continue;
            }
            let wrong = || format!("line {number}: {line:?}");
            let (what, path) = line.split_once("  ").ok_or_else(wrong)?;
            if !stays_below(path) {
                return Err(wrong());
            }
            match Digest::parse(what) {
                Some(digest) => manifest.add_file(path, digest),
                None if what == "folder" => manifest.add_folder(path),
                None => return Err(wrong()),
            }
        }
        Ok(manifest)
    }
}

fn stays_below(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut manifest = Manifest::default();
        manifest.add_file("usr/bin/b", Digest([7; 32]));
        manifest.add_file("usr/bin/b", Digest([0xab; 32]));
        manifest.add_folder("etc/blackhole");
        assert_eq!(Manifest::parse(&manifest.render()), Ok(manifest.clone()));
        assert!(manifest.has("usr/bin/b", Digest([7; 32])));
        assert!(!manifest.has("usr/bin/b", Digest([8; 32])) && !manifest.lists("usr/bin/c"));
    }

    #[test]
    fn a_manifest_that_leads_elsewhere_is_refused() {
        let digest = Digest([1; 32]);
        for path in ["/etc/passwd", "../x", "usr/../../x", ""] {
            let read = Manifest::parse(&format!("{digest}  {path}\n"));
            assert!(read.unwrap_err().starts_with("line 1"), "{path}");
        }
        for line in ["x", "zz  usr/bin/b", "folders  usr"] {
            assert!(Manifest::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn folders_within_others_come_first() {
        let mut manifest = Manifest::default();
        for folder in ["a", "a/b", "a/b/c"] {
            manifest.add_folder(folder);
        }
        assert_eq!(manifest.folders_inside_out().collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
    }
}
