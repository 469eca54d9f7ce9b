//! What an installed node consists of: every file, its place below the root, its mode.

use std::path::PathBuf;

/// Files that the next install may not overwrite once they are edited are `Configuration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Configuration,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// That of a file, which is not below the root.
    Of(PathBuf),
}

/// A file to be. `path` is relative to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub path: String,
    pub mode: u32,
    pub content: Content,
    pub role: Role,
}

/// What others make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The program to be installed.
    pub executable: PathBuf,
    pub pages: Vec<Page>,
}

/// A manual page, a completion script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub path: String,
    pub text: String,
}

/// The first version that knows what the drop-in says.
const DROP_IN_SINCE: u32 = 254;

const UNIT: &str = include_str!("../../systemd/blackhole.service");
const DROP_IN: &str = include_str!("../../systemd/50-systemd-254.conf");
const SYSUSERS: &str = include_str!("../../systemd/sysusers.conf");
const TMPFILES: &str = include_str!("../../systemd/tmpfiles.conf");
const CONFIGURATION: &str = include_str!("../../config/blackhole.toml");

/// In the order of their paths. `systemd` is the target's version; the base unit serves all.
pub(super) fn items(package: Package, systemd: Option<u32>) -> Vec<Item> {
    let Package { executable, pages } = package;
    let text = |path: &str, text: &str| Item {
        path: path.to_owned(),
        mode: 0o644,
        content: Content::Bytes(text.as_bytes().to_vec()),
        role: Role::Other,
    };
    let configuration =
        Item { role: Role::Configuration, ..text("etc/blackhole/config.toml", CONFIGURATION) };
    let binary = Item {
        path: "usr/bin/blackhole-node".to_owned(),
        mode: 0o755,
        content: Content::Of(executable),
        role: Role::Other,
    };
    let mut items = vec![
        configuration,
        binary,
        text("usr/lib/systemd/system/blackhole.service", UNIT),
        text("usr/lib/sysusers.d/blackhole.conf", SYSUSERS),
        text("usr/lib/tmpfiles.d/blackhole.conf", TMPFILES),
        text("usr/share/doc/blackhole-node/config.toml", CONFIGURATION),
    ];
    if systemd.is_some_and(|version| version >= DROP_IN_SINCE) {
        let path = "usr/lib/systemd/system/blackhole.service.d/50-systemd-254.conf";
        items.push(text(path, DROP_IN));
    }
    items.extend(pages.into_iter().map(|page| text(&page.path, &page.text)));
    items.sort_by(|one, other| one.path.cmp(&other.path));
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        Package { executable: "/proc/self/exe".into(), pages: Vec::new() }
    }

    fn paths(systemd: Option<u32>) -> Vec<String> {
        items(package(), systemd).into_iter().map(|item| item.path).collect()
    }

    #[test]
    fn the_drop_in_is_for_those_who_know_it() {
        let with = |paths: &[String]| paths.iter().any(|path| path.contains("service.d"));
        assert!(with(&paths(Some(254))) && with(&paths(Some(257))));
        assert!(!with(&paths(Some(253))) && !with(&paths(None)));
    }

    #[test]
    fn only_the_configuration_is_the_operators_to_edit() {
        let all = items(package(), None);
        let edited = all.iter().filter(|item| item.role == Role::Configuration);
        let edited: Vec<&str> = edited.map(|item| item.path.as_str()).collect();
        assert_eq!(edited, ["etc/blackhole/config.toml"]);
    }
}
