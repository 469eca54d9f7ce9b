//! The house rules that a compiler does not know: who may import whom, how long things may be,
//! where `unsafe` may stand. Messages name the file and the line.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "tidy/rings.rs"]
mod rings;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use blackhole_node::catalog::Builtin;

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
const IMPURE: [&str; 16] = [
    "serde",
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

/// Each file's path below `folder` and its text.
fn texts_below(folder: &str) -> Vec<(String, String)> {
    let below = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
    sources(folder).into_iter().map(|source| (below(&source.path), source.text)).collect()
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

/// A new service is an entry there, a line here, a folder and a proto.
#[test]
fn built_in_services_are_told_apart_only_in_the_catalog_and_by_their_host() {
    let may = ["src/catalog.rs", "src/service/mod.rs"].map(Path::new);
    let is_test = |path: &Path| path.to_string_lossy().contains("tests");
    let mut problems = Vec::new();
    let sources = sources("src").into_iter();
    for source in sources.filter(|one| !may.contains(&one.path.as_path()) && !is_test(&one.path)) {
        let code = source.code().take_while(|(_, line)| !line.starts_with("mod tests {"));
        for (number, line) in code {
            for one in Builtin::ALL.iter().filter(|one| line.contains(&format!("Builtin::{one:?}")))
            {
                problems.push(format!("{}: names {one:?}", source.at(number)));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn the_core_is_pure() {
    let mut problems = Vec::new();
    for source in sources("src/decide") {
        for (number, line) in source.code() {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                problems.push(format!("{}: the core may not touch {word}", source.at(number)));
            }
            let root = line.trim_start().strip_prefix("use ").map(first_word);
            let known = ["std", "crate", "super", "serde"];
            if let Some(root) = root.filter(|root| !known.contains(&root.as_str())) {
                problems.push(format!("{}: {root} is an outside crate", source.at(number)));
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

#[test]
fn no_files_use_each_other_in_a_ring() {
    let graph = rings::graph(&texts_below("src"));
    let found = rings::rings(&graph);
    let problems = found.iter().map(|ring| {
        let files = ring.iter().cloned().collect::<Vec<_>>().join(", ");
        format!(
            "a ring: {} (of {files}): move what both need into a file of its own",
            rings::cycle(&graph, ring)
        )
    });
    assert_none(problems.collect());
}

#[test]
fn a_ring_is_seen_wherever_it_closes() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = rings::Graph::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        graph
    };
    let line = graph(&[("a", "b"), ("b", "c"), ("a", "c")]);
    assert!(rings::rings(&line).is_empty());
    let two = graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("d", "e"), ("e", "d")]);
    let found = rings::rings(&two);
    let cycles: Vec<_> = found.iter().map(|ring| rings::cycle(&two, ring)).collect();
    assert_eq!(cycles, ["b -> c -> b", "d -> e -> d"]);
    let long = graph(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("d", "x")]);
    let found = rings::rings(&long);
    assert_eq!(found.len(), 1);
    assert_eq!(rings::cycle(&long, &found[0]), "a -> b -> c -> d -> a");
}

/// The rings of made-up files of one room, each as the shortest way round it.
fn rings_of(files: &[(&str, &str)]) -> Vec<String> {
    let texts: Vec<_> =
        files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    let graph = rings::graph(&texts);
    rings::rings(&graph).iter().map(|ring| rings::cycle(&graph, ring)).collect()
}

#[test]
fn every_way_to_name_another_file_makes_an_edge() {
    let mod_rs = "mod a; mod b; pub use b::Thing; pub use a::*;";
    let b = "use super::a::Other; pub struct Thing;";
    for a in [
        "use super::b::Thing; pub struct Other;",
        "use super::{b::{self, Thing as T}}; pub struct Other;",
        "use crate::room::b::Thing; pub struct Other;",
        // What `mod.rs` re-exports is used from where it is defined.
        "use super::Thing; pub struct Other;",
        "use crate::room::Thing; pub struct Other;",
        "pub struct Other(super::b::Thing);",
        "use super::b; pub struct Other(b::Thing);",
        "pub struct Other; fn f() { super::b::go() }",
        "pub struct Other; fn f() { use super::b::go; go() }",
        "pub struct Other; fn f() { println!(\"{}\", super::b::NAME) }",
        "pub struct Other; mod inner { fn f() { super::super::b::go() } }",
        "pub struct Other; #[show(super::b::go)] struct Shown;",
    ] {
        let found = rings_of(&[("room/mod.rs", mod_rs), ("room/a.rs", a), ("room/b.rs", b)]);
        assert_eq!(found, ["room/a.rs -> room/b.rs -> room/a.rs"], "{a}");
    }
}

#[test]
fn what_is_no_ring_is_not_called_one() {
    // A re-export, a name from further up, another room, and what is only for tests.
    let mod_rs = "mod a; mod b; #[cfg(test)] mod tests; pub use a::Other; use crate::far::Name;";
    let a = "use super::Name; pub struct Other; /* super::b::X */ const T: &str = \"super::b::X\"; \
             #[cfg(test)] mod tests { use super::super::b::Thing; }";
    let b = "use super::Other; pub struct Thing; fn f() { let b = 1; std::mem::drop(b) }";
    let tests = "use super::a::Other; use super::b::Thing;";
    let far = "mod room { } pub struct Name;";
    let files = [
        ("room/mod.rs", mod_rs),
        ("room/a.rs", a),
        ("room/b.rs", b),
        ("room/tests.rs", tests),
        ("far.rs", far),
    ];
    assert_eq!(rings_of(&files), Vec::<String>::new());
    // But a folder's `mod.rs` that uses a file which uses it.
    let files = [
        ("room/mod.rs", "mod a; pub struct Here; fn f() { a::go() }"),
        ("room/a.rs", "use super::Here;"),
    ];
    assert_eq!(rings_of(&files), ["room/a.rs -> room/mod.rs -> room/a.rs"]);
}
