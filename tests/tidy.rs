//! The house rules that a compiler does not know: who may import whom, how long things may be,
//! where `unsafe` may stand. Messages name the file and the line.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room and what it may import. `node` drives all; nothing imports it.
const ROOMS: [(&str, &[&str]); 15] = [
    ("units", &[]),
    ("catalog", &["units"]),
    ("config", &["units", "catalog"]),
    ("plan", &["units", "catalog", "config"]),
    ("decide", &["units", "plan"]),
    ("linux", &["units"]),
    ("rpc", &["units"]),
    ("telemetry", &["units", "linux", "rpc"]),
    ("observe", &["units", "plan", "decide", "linux", "rpc", "telemetry"]),
    ("act", &["units", "catalog", "config", "plan", "decide", "linux", "rpc"]),
    ("control", &["units", "linux", "rpc"]),
    ("install", &[]),
    ("cli", &["units", "catalog", "config", "control", "rpc", "telemetry", "install"]),
    ("service", &["units", "catalog", "linux", "rpc", "telemetry"]),
    (
        "node",
        &[
            "units",
            "catalog",
            "config",
            "plan",
            "decide",
            "linux",
            "rpc",
            "telemetry",
            "observe",
            "act",
            "control",
        ],
    ),
];

/// What the pure core may not touch.
const IMPURE: [&str; 15] = [
    "tokio",
    "tonic",
    "rustix",
    "libc",
    "tracing",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::io",
    "std::sync",
    "Instant",
    "SystemTime",
    "HashMap",
];

const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Lines with their numbers, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn room(&self) -> String {
        let below = self.path.strip_prefix("src").unwrap();
        let first = below.iter().next().unwrap().to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn all() -> Vec<Source> {
    ["src", "tests", "vm-tests", "xtask", "benches"].into_iter().flat_map(sources).collect()
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The rooms that a line names: `crate::room` and `use crate::{room, ...}`.
fn rooms_named(line: &str) -> BTreeSet<String> {
    let after = line.match_indices("crate::").map(|(at, found)| &line[at + found.len()..]);
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split([',', '}']).map(str::trim).map(first_word).collect(),
            None => vec![first_word(rest)],
        })
        .filter(|word| ROOMS.iter().any(|(room, _)| room == word))
        .collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_import_only_what_the_map_allows() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let room = source.room();
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            if room != "lib" && room != "main" {
                problems.push(format!("{}: {room} is not on the map", source.path.display()));
            }
            continue;
        };
        for (number, line) in source.code() {
            for named in rooms_named(line) {
                if named != room && !allowed.contains(&named.as_str()) {
                    problems.push(format!("{}: {room} may not import {named}", source.at(number)));
                }
            }
        }
    }
    assert_none(problems);
}

#[test]
fn the_import_check_sees_what_it_should() {
    assert_eq!(rooms_named("use crate::decide::Event;"), BTreeSet::from(["decide".to_owned()]));
    let both = BTreeSet::from(["act".to_owned(), "linux".to_owned()]);
    assert_eq!(rooms_named("use crate::{act, linux::fds};"), both);
    assert_eq!(rooms_named("let x = crate::node::main();"), BTreeSet::from(["node".to_owned()]));
}

#[test]
fn the_core_is_pure() {
    let mut problems = Vec::new();
    for source in sources("src/decide") {
        for (number, line) in source.code() {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                problems.push(format!("{}: the core may not touch {word}", source.at(number)));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn unsafe_stands_in_the_linux_room_only() {
    let elsewhere = all().into_iter().filter(|source| !source.path.starts_with("src/linux"));
    let mut problems = Vec::new();
    for source in elsewhere.filter(|source| source.path != Path::new("tests/tidy.rs")) {
        for (number, line) in source.code() {
            if line.contains("unsafe ") || line.contains("allow(unsafe_code") {
                problems.push(format!("{}: unsafe outside src/linux", source.at(number)));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    let mut problems = Vec::new();
    for source in all() {
        if !source.text.starts_with("//!") {
            problems.push(format!("{}: begins without //!", source.path.display()));
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines", source.path.display()));
        }
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                problems.push(format!("{}: {columns} columns", source.at(index + 1)));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn names_say_what_a_thing_is() {
    let endings = ["Manager", "Handler", "Helper", "Util", "Utils"];
    // What systemd calls itself (sd_notify(3)).
    let words_of_the_field = ["ServiceManager"];
    let mut problems = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            let declared = ["struct ", "enum ", "trait ", "mod "].iter().find_map(|keyword| {
                let at = line.find(keyword)?;
                Some(first_word(&line[at + keyword.len()..]))
            });
            let Some(name) = declared else { continue };
            let vague = endings.iter().any(|ending| name.ends_with(ending))
                && !words_of_the_field.contains(&name.as_str());
            if vague || ["util", "utils", "common", "helpers"].contains(&name.as_str()) {
                problems.push(format!("{}: {name} does not say what it is", source.at(number)));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_to_do() {
    let mut problems = Vec::new();
    for source in all().into_iter().filter(|source| source.path != Path::new("tests/tidy.rs")) {
        for (number, line) in source.code() {
            for word in ["#[ignore", "todo!(", "unimplemented!(", "should_panic"] {
                // What another test runs in a process of its own is no test by itself.
                let is_part = line.contains("#[ignore = \"run by ");
                if line.contains(word) && !is_part {
                    problems.push(format!("{}: {word}", source.at(number)));
                }
            }
        }
    }
    assert_none(problems);
}

#[test]
fn the_map_is_short_and_the_changes_are_told() {
    let map = fs::read_to_string("ARCHITECTURE.md").unwrap();
    assert!(map.lines().count() <= 200, "ARCHITECTURE.md has {} lines", map.lines().count());
    for (room, _) in ROOMS {
        assert!(map.contains(&format!("`{room}`")), "ARCHITECTURE.md does not name {room}");
    }
    let changes = fs::read_to_string("CHANGELOG.md").unwrap();
    assert!(changes.contains("## [Unreleased]"), "CHANGELOG.md has no [Unreleased]");
}
