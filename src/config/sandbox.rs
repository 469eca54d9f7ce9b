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

impl Sandbox {
    /// What it leaves out of, or gives back from, what every service is kept from: the keys with
    /// their values, as they are written.
    pub fn given_back(&self) -> Vec<String> {
        fn list(texts: impl Iterator<Item = String>) -> Option<String> {
            let texts: Vec<String> = texts.map(|text| format!("{text:?}")).collect();
            (!texts.is_empty()).then(|| format!("[{}]", texts.join(", ")))
        }
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let calls = match &self.system_call_filter {
            SystemCallFilter::On { given_back } => list(given_back.iter().map(ToString::to_string)),
            SystemCallFilter::Off => None,
        };
        let off = self.system_call_filter == SystemCallFilter::Off;
        let all = [
            ("no_new_privileges", (!self.no_new_privileges).then(|| "false".to_owned())),
            ("capabilities", list(self.capabilities.iter().map(ToString::to_string))),
            ("system_call_filter", off.then(|| format!("{FILTER_OFF:?}"))),
            ("allow_system_calls", calls),
            ("protect_files", (!self.protect_files).then(|| "false".to_owned())),
            ("read_only_paths", list(self.read_only_paths.iter().map(path))),
            ("read_write_paths", list(self.read_write_paths.iter().map(path))),
        ];
        let written = |(key, value): (&str, Option<String>)| Some(format!("{key} = {}", value?));
        all.into_iter().filter_map(written).collect()
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
    use crate::config::show;
    use crate::config::tests::load_text;

    fn web(sandbox: &str) -> Result<Sandbox, String> {
        let text = format!("[services.web]\ncommand = ['x']\n[services.web.sandbox]\n{sandbox}");
        let loaded = load_text(&text).map_err(|errors| errors.to_string())?;
        let web = &loaded.config.services[&"web".parse().unwrap()];
        // What is shown is the same again.
        assert_eq!(load_text(&show(&loaded)).unwrap().config, loaded.config);
        Ok(web.sandbox.clone())
    }

    #[test]
    fn a_service_that_says_nothing_gets_nothing_back() {
        let plain = web("").unwrap();
        assert_eq!(plain.given_back(), Vec::<String>::new());
        assert!(plain.no_new_privileges && plain.protect_files && plain.user.is_none());
    }

    #[test]
    fn what_is_given_back_is_told_as_it_is_written() {
        let some = web("capabilities = ['CAP_NET_BIND_SERVICE', 'CAP_CHOWN']\n\
             allow_system_calls = ['ptrace']\nread_only_paths = ['/srv/b', '/srv/a']\n\
             read_write_paths = ['/var/log/web']\nuser = 'www-data'\ngroup = 'adm'");
        let expected = [
            "capabilities = [\"CAP_CHOWN\", \"CAP_NET_BIND_SERVICE\"]",
            "allow_system_calls = [\"ptrace\"]",
            "read_only_paths = [\"/srv/a\", \"/srv/b\"]",
            "read_write_paths = [\"/var/log/web\"]",
        ];
        assert_eq!(some.unwrap().given_back(), expected);
        let all = "no_new_privileges = false\nsystem_call_filter = 'off'\nprotect_files = false";
        let expected =
            ["no_new_privileges = false", "system_call_filter = \"off\"", "protect_files = false"];
        assert_eq!(web(all).unwrap().given_back(), expected);
    }

    #[test]
    fn what_does_not_go_together_is_told_with_its_place() {
        for (wrong, place, told) in [
            ("no_new_privileges = false", "node.toml:4:21", "filters the system calls only"),
            (
                "no_new_privileges = false\nsystem_call_filter = 'off'",
                "node.toml:4:21",
                "Landlock is only for what gains no privileges",
            ),
            (
                "system_call_filter = 'off'\nallow_system_calls = ['bpf']",
                "node.toml:5:22",
                "without a filter every system call is allowed",
            ),
            (
                "protect_files = false\nread_only_paths = ['/srv']",
                "node.toml:5:19",
                "without protect_files every path can be used",
            ),
            ("group = 'adm'", "node.toml:4:9", "a group is for another user"),
            ("capabilities = ['CAP_ALL']", "node.toml:4:17", "CAP_ALL"),
            ("allow_system_calls = ['read']", "node.toml:4:23", "read"),
            ("capabilities = ['CAP_KILL', 'CAP_KILL']", "node.toml:4:29", "there twice"),
            ("read_only_paths = ['srv']", "node.toml:4:20", "not absolute"),
            ("read_write_paths = '/srv'", "node.toml:4:20", "a list"),
            ("user = ''", "node.toml:4:8", "cannot be a name"),
        ] {
            let errors = web(wrong).unwrap_err();
            assert!(errors.contains(place) && errors.contains(told), "{wrong}: {errors}");
        }
    }

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
