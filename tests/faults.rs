//! `docs/faults.md` against the tests: every fault is shown by a test that names its number, or has
//! its reason there. `FAULTS_WRITE=1` writes the last column anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/faults.md";

/// Faults that the page must have.
fn required() -> impl Iterator<Item = u32> {
    (1..=43).chain([45]).chain(47..=69).chain(79..=80)
}

/// By number: file, without its folder and ending, and function.
type Shown = BTreeMap<u32, BTreeSet<(String, String)>>;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The numbers in a comment such as `/// Reliability 32, 33: as it starts.`
fn numbers(comment: &str) -> Vec<u32> {
    let Some((_, after)) = comment.split_once("Reliability ") else { return Vec::new() };
    let list = after.split(|c: char| !(c.is_ascii_digit() || c == ',' || c == ' '));
    list.take(1).flat_map(|list| list.split(',')).filter_map(|n| n.trim().parse().ok()).collect()
}

/// What the comments above test functions name.
fn shown_by_tests() -> Shown {
    let mut files = Vec::new();
    let folders = ["src", "tests", "vm-tests/tests"];
    folders.iter().for_each(|folder| sources(Path::new(folder), &mut files));
    let mut shown = Shown::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let place = match path.strip_prefix("vm-tests/tests") {
            Ok(file) => Path::new("vm").join(file),
            Err(_) => path.components().skip(1).collect(),
        };
        let place = place.with_extension("");
        let mut named = Vec::new();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("///") {
                named.extend(numbers(line));
                continue;
            }
            if line.starts_with("#[") {
                is_test |= ["#[test]", "#[tokio::test]"].contains(&line);
                is_test |= line.starts_with("#[test_case(");
                continue;
            }
            if let (true, Some((_, name))) = (is_test, line.split_once("fn ")) {
                let function = name.split(['(', '<']).next().unwrap();
                for number in &named {
                    let tests = shown.entry(*number).or_default();
                    tests.insert((place.display().to_string(), function.to_owned()));
                }
            }
            named.clear();
            is_test = false;
        }
    }
    shown
}

/// `file: function, function; file: function`.
fn in_words(tests: &BTreeSet<(String, String)>) -> String {
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (file, function) in tests {
        files.entry(file).or_default().push(format!("`{function}`"));
    }
    let files = files.iter().map(|(file, names)| format!("{file}: {}", names.join(", ")));
    files.collect::<Vec<_>>().join("; ")
}

/// A row of a table: its number, the fault, and by what it is shown.
fn row(line: &str) -> Option<(u32, &str, &str)> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix('|')?.splitn(3, " | ");
    let number = cells.next()?.trim().parse().ok()?;
    Some((number, cells.next()?, cells.next()?.trim()))
}

#[test]
fn every_fault_is_shown_by_a_test_or_says_why_not() {
    let shown = shown_by_tests();
    let page = fs::read_to_string(PAGE).unwrap();
    let rows: BTreeSet<u32> = page.lines().filter_map(row).map(|(number, _, _)| number).collect();
    let missing: Vec<u32> = required().filter(|number| !rows.contains(number)).collect();
    assert!(missing.is_empty(), "{PAGE} does not have {missing:?}");
    let unknown: Vec<_> = shown.iter().filter(|(number, _)| !rows.contains(number)).collect();
    assert!(unknown.is_empty(), "tests name what {PAGE} does not have: {unknown:?}");

    let renewed = |line: &str| match row(line).and_then(|row| Some((row, shown.get(&row.0)?))) {
        Some(((number, fault, _), tests)) => {
            format!("| {number} | {fault} | {} |", in_words(tests))
        }
        None => line.to_owned(),
    };
    let expected = page.lines().map(renewed).map(|line| line + "\n").collect::<String>();
    for (number, _, by) in expected.lines().filter_map(row) {
        assert!(!by.is_empty(), "no test names fault {number}, and {PAGE} does not say why");
    }
    if std::env::var_os("FAULTS_WRITE").is_some() {
        fs::write(PAGE, &expected).unwrap();
    }
    for (found, wanted) in fs::read_to_string(PAGE).unwrap().lines().zip(expected.lines()) {
        assert_eq!(found, wanted, "{PAGE}: run `FAULTS_WRITE=1 cargo test --test faults`");
    }
}

#[test]
fn numbers_are_read_from_comments() {
    assert_eq!(numbers("/// Reliability 32, 33: as it starts, 5 times."), [32, 33]);
    assert_eq!(numbers("/// (Reliability 56)."), [56]);
    assert_eq!(numbers("/// It is reliable."), Vec::<u32>::new());
}
