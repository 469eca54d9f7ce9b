//! Lays the sources over each other: host defaults, file, `--set`, options. Knows which keys the
//! host and the options stand for, and no other.

use std::path::Path;

use super::problem::{Place, Problem};
use super::report::Report;
use super::sources::{HostDefaults, Sources};
use super::tree::{Node, Table, Value};
use super::values::Wrong;
use super::{toml_text, yaml_text};

/// The longest file or value that is read, in bytes.
const TEXT_MAX: usize = 1 << 20;
/// More sections than any key has.
const MAX_DEPTH: usize = 16;

const NAME: [&str; 2] = ["node", "name"];
const DATA_DIR: [&str; 2] = ["node", "data_dir"];
const RUNTIME_DIR: [&str; 2] = ["node", "runtime_dir"];

/// What all sources together say; the later one wins.
pub(super) fn tree(sources: &Sources<'_>, host: &HostDefaults, report: &Report) -> Table {
    let mut tree = match sources.file {
        Some((path, text)) => read_file(path, text, report),
        None => Table::EMPTY,
    };
    for (order, set) in sources.sets.iter().enumerate() {
        lay_set(&mut tree, order, set, report);
    }
    let options = [
        (DATA_DIR, "--data-dir", sources.data_dir),
        (RUNTIME_DIR, "--runtime-dir", sources.runtime_dir),
    ];
    for (key, option, path) in options {
        if let Some(path) = path {
            lay_path(&mut tree, key, Place::Option(option), path, report);
        }
    }
    lay_host(&mut tree, host, report);
    tree
}

fn read_file(path: &Path, text: &str, report: &Report) -> Table {
    if text.len() > TEXT_MAX {
        let place = Place::File { path: path.into(), line: 1, column: 1 };
        let what = format!("the file has {} bytes", text.len());
        report.problem(Problem::new(&place, "", what).allowed("at most 1MiB"));
        report.text_is_damaged();
        return Table::EMPTY;
    }
    let ending = path.extension().unwrap_or_default();
    if ["yaml", "yml"].iter().any(|yaml| ending.eq_ignore_ascii_case(yaml)) {
        yaml_text::read(path, text, report)
    } else {
        toml_text::read(path, text, report)
    }
}

fn lay_host(tree: &mut Table, host: &HostDefaults, report: &Report) {
    if !is_written(tree, NAME) {
        lay(
            tree,
            &NAME,
            Node { place: Place::Default, value: Value::Text(host.node_name.clone()) },
            report,
        );
    }
    for (key, path) in [(DATA_DIR, &host.data_dir), (RUNTIME_DIR, &host.runtime_dir)] {
        if !is_written(tree, key) {
            lay_path(tree, key, Place::Default, path, report);
        }
    }
}

/// Also where the section is something else, which its reader reports.
fn is_written(tree: &Table, [section, key]: [&str; 2]) -> bool {
    let section = tree.get(section).map(|entry| entry.node.table());
    section.is_some_and(|table| table.is_none_or(|table| table.get(key).is_some()))
}

fn lay_path(tree: &mut Table, key: [&str; 2], place: Place, path: &Path, report: &Report) {
    match path.to_str() {
        Some(text) => lay(tree, &key, Node { place, value: Value::Text(text.to_owned()) }, report),
        None => {
            let value = Value::Text(path.display().to_string());
            let wrong = Wrong::new("the path is not UTF-8", "an absolute path in UTF-8");
            report.problem(wrong.at(&place, &key.join("."), &value));
            lay(tree, &key, Node { place, value: Value::Broken }, report);
        }
    }
}

fn lay_set(tree: &mut Table, order: usize, set: &str, report: &Report) {
    const FORM: &str = "KEY=VALUE, such as api.http_port=8080";
    let (key, value) = match set.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => (set, None),
    };
    let place = Place::Set { order, key: key.to_owned() };
    let Some(value) = value else {
        return report.problem(Problem::new(&place, "", "there is no \"=\"").allowed(FORM));
    };
    let path: Vec<&str> = key.split('.').collect();
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if path.iter().any(|part| part.is_empty() || !part.chars().all(bare)) {
        return report.problem(Problem::new(&place, "", "this is not a key").allowed(FORM));
    }
    if path.len() > MAX_DEPTH || value.len() > TEXT_MAX {
        return report.problem(Problem::new(&place, "", "this is too long").allowed(FORM));
    }
    let node = toml_text::read_value(value, key, &place, report);
    lay(tree, &path, node, report);
}

fn lay(tree: &mut Table, path: &[&str], node: Node, report: &Report) {
    let place = node.place.clone();
    if let Err(refused) = tree.lay(path, node) {
        let what = format!("{} is {} and has no keys", refused.key, refused.kind);
        report.problem(Problem::new(&place, &path.join("."), what));
    }
}
