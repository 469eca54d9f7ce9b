//! From TOML text to the tree, with everything that is not TOML reported. Knows no key.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};
use super::report::{Report, path};
use super::tree::{Entry, Node, Table, Value};

/// How many lines that end the parser's work are taken out to see what comes after them.
const MAX_STOPS: usize = 64;
/// How the parser's message begins when it did not read on: a test holds it.
const STOP: &str = "key with no value";

/// The tree of a file; what could not be read is `Broken` or absent, and reported.
pub(super) fn read(file: &Path, text: &str, report: &Report) -> Table {
    let lines = Lines::new(file, text);
    let (readable, mut faults) = without_stops(text, &lines);
    let (table, errors) = DeTable::parse_recoverable(&readable);
    faults.extend(errors.iter().map(|error| Fault::new(error, text)));
    faults.sort();
    if !faults.is_empty() {
        report.text_is_damaged();
    }
    let mut conversion = Conversion {
        place: &|at| lines.place(at),
        lines: &lines,
        damaged: faults.iter().map(|fault| lines.line(fault.offset)).collect(),
        lists: vec![],
        report,
    };
    let tree = conversion.table(table.get_ref(), "");
    let lists = conversion.lists;
    for fault in worth_telling(&faults, &lists, &lines) {
        report.problem(Problem::new(&lines.place(fault.offset), "", fault.message.as_str()));
    }
    tree
}

/// The value of a `--set`: TOML where it is TOML, else the text as it stands.
pub(super) fn read_value(text: &str, key: &str, place: &Place, report: &Report) -> Node {
    match DeValue::parse(text) {
        Ok(value) => {
            let lines = Lines::new(Path::new(""), text);
            let at = |_| place.clone();
            let mut conversion =
                Conversion { place: &at, lines: &lines, damaged: vec![], lists: vec![], report };
            conversion.node(&value, 0, key)
        }
        Err(_) => Node { place: place.clone(), value: Value::Text(text.to_owned()) },
    }
}

/// Something that is not TOML, and the byte where it shows.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    offset: usize,
    message: String,
}

impl Fault {
    fn new(error: &toml::de::Error, text: &str) -> Self {
        let span = error.span().unwrap_or_default();
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("the key {key:?} is given a second time"),
            (message, _) => format!("this is not TOML: {message}"),
        };
        Self { offset: span.start, message }
    }
}

/// The text with each line blanked at which the parser would stop, and those lines' faults.
fn without_stops(text: &str, lines: &Lines<'_>) -> (String, Vec<Fault>) {
    let mut readable = text.to_owned();
    let mut faults = Vec::new();
    for _ in 0..MAX_STOPS {
        let (_, errors) = DeTable::parse_recoverable(&readable);
        let Some(stop) = errors.iter().find(|error| error.message().starts_with(STOP)) else {
            break;
        };
        let fault = Fault::new(stop, text);
        let line = lines.span(lines.line(fault.offset));
        let blank = " ".repeat(line.len());
        readable.replace_range(line, &blank);
        faults.push(fault);
    }
    (readable, faults)
}

/// One fault a line, and one a list: the rest are consequences.
fn worth_telling<'f>(
    faults: &'f [Fault],
    lists: &[Range<usize>],
    lines: &Lines<'_>,
) -> Vec<&'f Fault> {
    let mut told: Vec<&Fault> = Vec::new();
    for fault in faults {
        let follows = told.last().is_some_and(|last| {
            let same_list = |list: &Range<usize>| {
                list.start <= last.offset && (list.start..=list.end).contains(&fault.offset)
            };
            lines.line(last.offset) == lines.line(fault.offset) || lists.iter().any(same_list)
        });
        if !follows {
            told.push(fault);
        }
    }
    told
}

struct Conversion<'c> {
    place: &'c dyn Fn(usize) -> Place,
    lines: &'c Lines<'c>,
    /// The lines on which a fault shows.
    damaged: Vec<usize>,
    /// The lists that hold a fault, by their bytes.
    lists: Vec<Range<usize>>,
    report: &'c Report,
}

impl Conversion<'_> {
    fn table(&mut self, table: &DeTable<'_>, section: &str) -> Table {
        let mut converted = Table::EMPTY;
        for (key, value) in table.iter() {
            let start = key.span().start;
            let node = self.node(value, start, &path(section, key.get_ref()));
            let entry = Entry { key_place: (self.place)(start), node };
            converted.insert(key.get_ref().to_string(), entry);
        }
        converted
    }

    /// `start`: the byte at which the value's key begins.
    fn node(&mut self, value: &Spanned<DeValue<'_>>, start: usize, key: &str) -> Node {
        let place = (self.place)(value.span().start);
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        if !is_table && self.is_damaged(start..value.span().end) {
            if matches!(value.get_ref(), DeValue::Array(_)) {
                self.lists.push(value.span());
            }
            return Node { place, value: Value::Broken };
        }
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => {
                        let what = "the number does not fit 64 bits";
                        self.report.problem(Problem::new(&place, key, what).value(number));
                        Value::Broken
                    }
                }
            }
            DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => {
                let nodes = items.iter().map(|item| self.node(item, item.span().start, key));
                Value::List(nodes.collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table, key)),
        };
        Node { place, value }
    }

    /// Whether a fault shows on one of the lines that these bytes touch.
    fn is_damaged(&self, bytes: Range<usize>) -> bool {
        if self.damaged.is_empty() {
            return false;
        }
        let touched = self.lines.line(bytes.start)..=self.lines.line(bytes.end);
        self.damaged.iter().any(|line| touched.contains(line))
    }
}

/// Where the lines of a text begin.
struct Lines<'t> {
    file: Arc<Path>,
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(file: &Path, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { file: file.into(), text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// The index of the line that this byte is on.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The bytes of a line without its newline.
    fn span(&self, line: usize) -> Range<usize> {
        let start = self.starts[line];
        let rest = &self.text[start..];
        start..start + rest.find('\n').unwrap_or(rest.len())
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let before = self.text.get(self.starts[line]..offset).unwrap_or_default();
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        Place::File { path: Arc::clone(&self.file), line: line + 1, column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let report = Report::default();
        read(Path::new("f"), text, &report);
        let errors = report.close().err().map(|errors| errors.problems().to_vec());
        errors.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_without_a_value_does_not_hide_the_faults_after_it() {
        let found = problems("[node]\ncolour red\nname = x\nshape round\n[api]\nport = 'x\n");
        let starts: Vec<&str> = found.iter().filter_map(|p| p.split(": ").next()).collect();
        assert_eq!(starts, ["f:2:8", "f:3:8", "f:4:7", "f:6:10"], "{found:#?}");
    }

    #[test]
    fn a_list_that_is_not_closed_is_told_once() {
        let found = problems("a = [1, 2\nb = 3\n[api]\nc = 1\n");
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("f:2:1: this is not TOML: missing comma"), "{found:#?}");
    }

    #[test]
    fn columns_count_characters_and_not_bytes_or_the_byte_order_mark() {
        let report = Report::default();
        let tree = read(Path::new("f"), "\u{feff}'ä' = { 'öö' = 1 }\r\n", &report);
        let inner = tree.get("ä").unwrap().node.table().unwrap();
        let entry = inner.get("öö").unwrap();
        let at = |column| Place::File { path: Path::new("f").into(), line: 1, column };
        assert_eq!((&entry.key_place, &entry.node.place), (&at(9), &at(16)));
    }

    #[test]
    fn a_key_given_twice_is_named_at_its_second_place() {
        assert_eq!(
            problems("[t]\na = 1\na = 2\n"),
            ["f:3:1: the key \"a\" is given a second time"]
        );
    }

    #[test]
    fn numbers_beyond_64_bits_and_endless_nesting_are_refused() {
        let found = problems("[t]\na = 99999999999999999999\n");
        assert_eq!(found, ["f:2:5: t.a = 99999999999999999999: the number does not fit 64 bits"]);
        assert!(!problems(&format!("a = {}\n", "[".repeat(100_000))).is_empty());
        assert!(!problems(&format!("a{} = 1\n", ".a".repeat(100_000))).is_empty());
    }

    #[test]
    fn what_is_not_toml_after_set_is_a_text() {
        let report = Report::default();
        let place = Place::Option("--test");
        let value = |text| read_value(text, "k", &place, &report).value;
        assert_eq!(value("5s"), Value::Text("5s".to_owned()));
        assert_eq!(value("127.0.0.1"), Value::Text("127.0.0.1".to_owned()));
        assert_eq!(value(""), Value::Text(String::new()));
        assert_eq!(value("12"), Value::Integer(12));
        assert!(matches!(value("['a', 'b']"), Value::List(items) if items.len() == 2));
    }
}
