//! From YAML text to the tree, with everything that is not YAML or that a configuration cannot
//! hold reported. Knows no key.
//!
//! The parser does not read on after something that is not YAML: what stands before it is judged
//! all the same. Tags, anchors, aliases and further documents are refused, so that a value means
//! what stands at its place and a short file is a short configuration.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::problem::{Place, Problem};
use super::report::Report;
use super::tree::{Entry, Node, Table, Value};
use super::yaml_scalar::{TooLarge, plain};

/// More collections inside each other than any configuration has.
const MAX_DEPTH: usize = 32;

/// The tree of a file; what could not be read is `Broken` or absent, and reported.
pub(super) fn read(file: &Path, text: &str, report: &Report) -> Table {
    let mut reading = Reading { file: file.into(), report, open: Vec::new(), document: None };
    for step in Parser::new_from_str(text) {
        let goes_on = match step {
            Ok((event, span)) => reading.take(event, span),
            Err(error) => reading.stop_at(&error),
        };
        if goes_on.is_break() {
            break;
        }
    }
    reading.finish()
}

struct Reading<'r> {
    file: Arc<Path>,
    report: &'r Report,
    /// The collections whose end was not read yet, the outermost first.
    open: Vec<Open>,
    document: Option<Node>,
}

struct Open {
    place: Place,
    holds: Holds,
}

enum Holds {
    List(Vec<Node>),
    Table(Table, Key),
}

/// Of the entry of a table that is being read.
enum Key {
    Awaited,
    Given(String, Place),
    /// Reported; the value goes with it.
    Refused,
}

impl Reading<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> ControlFlow<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
            Event::StreamEnd => return ControlFlow::Break(()),
            Event::DocumentStart(_) => return self.begin_document(span),
            Event::Alias(_) => {
                let place = self.place(span.start);
                let what = "an alias is not taken: it hides what is in force";
                self.refuse(&place, what, "the value itself");
                self.put(Node { place, value: Value::Broken });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_properties(span, anchor, tag.is_some());
                if self.awaits_key() {
                    self.key(&text, self.place(span.start));
                } else if tag.is_some() {
                    self.put(Node { place: self.place(span.start), value: Value::Broken });
                } else {
                    self.value(&text, style, span);
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_properties(span, anchor, tag.is_some());
                let place = self.place(span.start);
                return self.begin(Open { place, holds: Holds::List(Vec::new()) });
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_properties(span, anchor, tag.is_some());
                let place = self.place_of_key().unwrap_or_else(|| self.place(span.start));
                return self.begin(Open { place, holds: Holds::Table(Table::EMPTY, Key::Awaited) });
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
        ControlFlow::Continue(())
    }

    fn begin_document(&self, span: Span) -> ControlFlow<()> {
        if self.document.is_none() {
            return ControlFlow::Continue(());
        }
        self.refuse(&self.place(span.start), "a second document begins", "one document");
        ControlFlow::Break(())
    }

    fn begin(&mut self, open: Open) -> ControlFlow<()> {
        if self.open.len() == MAX_DEPTH {
            let allowed = format!("at most {MAX_DEPTH} lists and sections inside each other");
            self.refuse(&open.place, "this is nested too deeply", &allowed);
            self.break_off();
            return ControlFlow::Break(());
        }
        self.open.push(open);
        ControlFlow::Continue(())
    }

    fn end(&mut self) {
        if let Some(Open { place, holds }) = self.open.pop() {
            let value = match holds {
                Holds::List(items) => Value::List(items),
                Holds::Table(table, _) => Value::Table(table),
            };
            self.put(Node { place, value });
        }
    }

    fn awaits_key(&self) -> bool {
        let innermost = self.open.last().map(|open| &open.holds);
        matches!(innermost, Some(Holds::Table(_, Key::Awaited)))
    }

    fn key(&mut self, text: &str, place: Place) {
        let Some(Open { holds: Holds::Table(table, key), .. }) = self.open.last_mut() else {
            return;
        };
        if table.exact(text).is_none() {
            *key = Key::Given(text.to_owned(), place);
            return;
        }
        *key = Key::Refused;
        let what = format!("the key {:?} is given a second time", shown(text));
        self.refuse(&place, &what, "one value");
    }

    fn value(&mut self, text: &str, style: ScalarStyle, span: Span) {
        // The parser has no better place for a value that is not there than what comes after it.
        let absent = self.place_of_key().filter(|_| span.is_empty());
        let place = absent.unwrap_or_else(|| self.place(span.start));
        let value = match style {
            ScalarStyle::Plain => plain(text).unwrap_or_else(|TooLarge| {
                // Without the number: it may be a secret of an environment.
                let what = "the number does not fit 64 bits";
                self.refuse(&place, what, "quotes around it for a text");
                Value::Broken
            }),
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => Value::Text(text.to_owned()),
        };
        self.put(Node { place, value });
    }

    /// A value that is read to its end, or a key that is no text.
    fn put(&mut self, node: Node) {
        match self.open.last_mut().map(|open| &mut open.holds) {
            None => self.document = Some(node),
            Some(Holds::List(items)) => items.push(node),
            Some(Holds::Table(table, key)) => match std::mem::replace(key, Key::Awaited) {
                Key::Given(name, key_place) => table.insert(name, Entry { key_place, node }),
                Key::Refused => {}
                Key::Awaited => {
                    *key = Key::Refused;
                    if node.value != Value::Broken {
                        let what = format!("{} is no key", node.value.kind());
                        self.refuse(&node.place, &what, "a text");
                    }
                }
            },
        }
    }

    fn stop_at(&mut self, error: &ScanError) -> ControlFlow<()> {
        let what = format!("this is not YAML: {}", shown(error.info()));
        self.report.problem(Problem::new(&self.place(*error.marker()), "", what));
        self.report.text_is_damaged();
        self.break_off();
        ControlFlow::Break(())
    }

    /// Keeps the sections that are not read to their end, and nothing else of that kind.
    fn break_off(&mut self) {
        while let Some(Open { place, holds }) = self.open.pop() {
            let value = match holds {
                Holds::Table(mut table, key) => {
                    if let Key::Given(name, key_place) = key {
                        let node = Node { place: key_place.clone(), value: Value::Broken };
                        table.insert(name, Entry { key_place, node });
                    }
                    Value::Table(table)
                }
                Holds::List(_) => Value::Broken,
            };
            self.put(Node { place, value });
        }
    }

    fn finish(self) -> Table {
        let Some(Node { place, value }) = self.document else { return Table::EMPTY };
        match value {
            Value::Table(table) => return table,
            Value::Nothing | Value::Broken => {}
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Date(_)
            | Value::List(_) => {
                let what = format!("the file is {} and not a configuration", value.kind());
                self.report.problem(Problem::new(&place, "", what).allowed("sections with keys"));
                self.report.text_is_damaged();
            }
        }
        Table::EMPTY
    }

    fn refuse_properties(&self, span: Span, anchor: usize, has_tag: bool) {
        let place = self.place(span.start);
        if anchor != 0 {
            self.refuse(&place, "an anchor is not taken: no alias may stand for it", "no anchor");
        }
        if has_tag {
            let allowed = "no tag; quotes make a text of anything";
            self.refuse(&place, "a tag is not taken: each key knows its type", allowed);
        }
    }

    /// Reports something that is YAML and cannot be in a configuration.
    fn refuse(&self, place: &Place, what: &str, allowed: &str) {
        self.report.problem(Problem::new(place, &self.path(), what).allowed(allowed));
        self.report.text_is_damaged();
    }

    /// The key whose value is read, with its sections.
    fn path(&self) -> String {
        let names = self.open.iter().filter_map(|open| match &open.holds {
            Holds::Table(_, Key::Given(name, _)) => Some(name.as_str()),
            Holds::Table(_, Key::Awaited | Key::Refused) | Holds::List(_) => None,
        });
        names.collect::<Vec<_>>().join(".")
    }

    fn place_of_key(&self) -> Option<Place> {
        match &self.open.last()?.holds {
            Holds::Table(_, Key::Given(_, place)) => Some(place.clone()),
            Holds::Table(_, Key::Awaited | Key::Refused) | Holds::List(_) => None,
        }
    }

    fn place(&self, at: Marker) -> Place {
        Place::File { path: Arc::clone(&self.file), line: at.line(), column: at.col() + 1 }
    }
}

/// A short piece on one line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
