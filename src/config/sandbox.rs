//! Reads `[services.NAME.sandbox]`: what a service is kept from, and what it is given back.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::form::Form;
use super::model::{Sandbox, SystemCallFilter};
use super::section::Section;
use super::tree::Value;
use super::values::{Reader, Wrong, absolute_path, choice, flag, text};
use crate::units::{Capability, SystemCall};

/// The longest name of a user or group that shadow(5)'s tools make.
const NAME_MAX: usize = 32;
const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_.-]*[$]?$";

/// How `system_call_filter` is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Default,
    Off,
}

pub(super) const FILTER_ON: &str = "default";
pub(super) const FILTER_OFF: &str = "off";

pub(super) fn read(mut section: Section<'_>) -> Sandbox {
    let capabilities: Vec<_> = Capability::all().map(|one| (one.name(), one)).collect();
    let read = Sandbox {
        user: section.get("user", name()),
        group: section.get("group", name()),
        no_new_privileges: section.or("no_new_privileges", true, flag()),
        capabilities: section.set("capabilities", choice(&capabilities)),
        system_call_filter: system_call_filter(&mut section),
        protect_files: section.or("protect_files", true, flag()),
        read_only_paths: section.set("read_only_paths", absolute_path()),
        read_write_paths: section.set("read_write_paths", absolute_path()),
    };
    check(&mut section, &read);
    section.finish();
    read
}

fn system_call_filter(section: &mut Section<'_>) -> SystemCallFilter {
    let spellings = [(FILTER_ON, Said::Default), (FILTER_OFF, Said::Off)];
    let said = section.or("system_call_filter", Said::Default, choice(&spellings));
    let calls: Vec<_> = SystemCall::all().map(|one| (one.name(), one)).collect();
    let given_back = section.set("allow_system_calls", choice(&calls));
    match said {
        Said::Default => SystemCallFilter::On { given_back },
        Said::Off => {
            if !given_back.is_empty() {
                let what = "without a filter every system call is allowed".to_owned();
                let allowed = "one of the two";
                section.clash(["allow_system_calls", "system_call_filter"], what, allowed);
            }
            SystemCallFilter::Off
        }
    }
}

/// What does not go together.
fn check(section: &mut Section<'_>, read: &Sandbox) {
    if !read.no_new_privileges {
        let allowed = "no_new_privileges = true, or system_call_filter = \"off\" and \
                       protect_files = false beside it";
        if read.system_call_filter != SystemCallFilter::Off {
            let what = "Linux filters the system calls only of what gains no privileges".to_owned();
            section.clash(["no_new_privileges", "system_call_filter"], what, allowed);
        } else if read.protect_files {
            let what = "Landlock is only for what gains no privileges".to_owned();
            section.clash(["no_new_privileges", "protect_files"], what, allowed);
        }
    }
    let without_use = |paths: &BTreeSet<PathBuf>| !read.protect_files && !paths.is_empty();
    for (key, paths) in
        [("read_only_paths", &read.read_only_paths), ("read_write_paths", &read.read_write_paths)]
    {
        if without_use(paths) {
            let what = "without protect_files every path can be used".to_owned();
            section.clash([key, "protect_files"], what, "one of the two");
        }
    }
    if read.group.is_some() && read.user.is_none() {
        let what = "a group is for another user than the node's".to_owned();
        section.clash(["group", "user"], what, "user = \"NAME\" beside it");
    }
}

/// The name of a user or a group; whether there is one, the host says.
fn name() -> Reader<impl Fn(&Value) -> Result<String, Wrong>> {
    Reader::new(Form::text(NAME_PATTERN, NAME_MAX), |value| {
        let allowed = "a name of the system's users or groups, such as \"www-data\"";
        let name = text(value).map_err(|_| Wrong::kind(value, allowed))?;
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let stem = name.strip_suffix('$').unwrap_or(&name);
        let rest = stem.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        let fits = first && rest && name.len() <= NAME_MAX;
        fits.then_some(name).ok_or_else(|| Wrong::new("this cannot be a name", allowed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_the_systems_tools_make() {
        let read = |name: &str| super::name().read(&Value::Text(name.to_owned()));
        for right in ["www-data", "_apt", "a", "host$", "systemd-network", "first.last"] {
            assert_eq!(read(right).unwrap(), right);
        }
        for wrong in ["", "0", "1000", "-x", "a b", "a:b", "$", "a$b", &"x".repeat(33)] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(super::name().read(&Value::Integer(0)).is_err());
    }
}
