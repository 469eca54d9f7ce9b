//! Reads one section key by key: what a reader asks for is what is known, and what nobody asked
//! for is reported. Knows no key by name.

use std::collections::{BTreeMap, BTreeSet};

use super::form::Form;
use super::problem::{Place, Problem};
use super::report::{Report, Unknown, path};
use super::tree::{Node, Table, Value, camel_case, is_camel_case, snake_case};
use super::values::{Reader, Wrong};

/// One section of the tree while it is read. End with `finish`.
#[derive(Debug)]
pub(super) struct Section<'a> {
    report: &'a Report,
    path: String,
    place: Place,
    table: &'a Table,
    asked: BTreeMap<&'static str, Form>,
    refused: BTreeSet<&'static str>,
    forbidden: BTreeSet<&'static str>,
}

static NOTHING: Table = Table::EMPTY;

impl<'a> Section<'a> {
    pub(super) fn top(table: &'a Table, report: &'a Report) -> Self {
        Self::of(table, Place::Default, String::new(), report)
    }

    /// A section that the caller found: `services` has sections of any name.
    pub(super) fn of(table: &'a Table, place: Place, path: String, report: &'a Report) -> Self {
        Self {
            report,
            path,
            place,
            table,
            asked: BTreeMap::new(),
            refused: BTreeSet::new(),
            forbidden: BTreeSet::new(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn table(&self) -> &'a Table {
        self.table
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// The section `key` inside this one; an empty one where it is absent or not a section.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.section_of(key, Form::Section)
    }

    /// The same for a section whose keys are not asked for one by one.
    pub(super) fn section_of(&mut self, key: &'static str, form: Form) -> Section<'a> {
        let node = self.node(key, form);
        let path = path(&self.path, key);
        match node.map(|node| (node.table(), node)) {
            Some((Some(table), node)) => Section::of(table, node.place.clone(), path, self.report),
            Some((None, node)) => {
                self.refuse(key, node, Wrong::kind(&node.value, &format!("a section [{path}]")));
                Section::of(&NOTHING, node.place.clone(), path, self.report)
            }
            None => Section::of(&NOTHING, Place::Default, path, self.report),
        }
    }

    /// The value of `key` in its natural type; absent or refused: `default`.
    pub(super) fn or<T, F>(&mut self, key: &'static str, default: T, reader: Reader<F>) -> T
    where
        F: Fn(&Value) -> Result<T, Wrong>,
    {
        self.get(key, reader).unwrap_or(default)
    }

    /// The value of `key`; nothing where it is absent or was refused, which is then reported.
    pub(super) fn get<T, F>(&mut self, key: &'static str, reader: Reader<F>) -> Option<T>
    where
        F: Fn(&Value) -> Result<T, Wrong>,
    {
        let node = self.node(key, reader.form.clone())?;
        reader.read(&node.value).map_err(|wrong| self.refuse(key, node, wrong)).ok()
    }

    /// The values of a list, each of them once; what is wrong with one is told at its own place.
    pub(super) fn set<T, F>(&mut self, key: &'static str, reader: Reader<F>) -> BTreeSet<T>
    where
        T: Ord,
        F: Fn(&Value) -> Result<T, Wrong>,
    {
        let form = Form::list(reader.form.clone());
        let Some(node) = self.node(key, form) else { return BTreeSet::new() };
        let Value::List(items) = &node.value else {
            self.refuse(key, node, Wrong::kind(&node.value, "a list, such as [\"...\"]"));
            return BTreeSet::new();
        };
        let mut read = BTreeSet::new();
        for item in items {
            match reader.read(&item.value) {
                Ok(value) if read.contains(&value) => {
                    self.refuse(key, item, Wrong::new("this is there twice", "each once"));
                }
                Ok(value) => {
                    read.insert(value);
                }
                Err(_) if item.value == Value::Broken => {}
                Err(wrong) => self.refuse(key, item, wrong),
            }
        }
        read
    }

    /// The node of `key` as it was written, for values with places inside. From here on the key is
    /// known.
    pub(super) fn node(&mut self, key: &'static str, form: Form) -> Option<&'a Node> {
        self.asked.insert(key, form);
        let entry = self.table.get(key)?;
        if self.table.exact(key).is_some()
            && let camel = camel_case(key)
            && let Some(twin) = self.table.exact(&camel).filter(|_| camel != key)
        {
            let what = format!("is given a second time, as {key:?}");
            let twin = Problem::new(&twin.key_place, &path(&self.path, &camel), what);
            self.report.problem(twin.allowed(format!("one spelling, best {key:?}")));
        }
        let broken = matches!(entry.node.value, Value::Broken);
        if broken {
            self.refused.insert(key);
        }
        (!broken).then_some(&entry.node)
    }

    /// Reports that the value of `key`, or a part of it, is wrong.
    pub(super) fn refuse(&mut self, key: &'static str, node: &Node, wrong: Wrong) {
        self.refused.insert(key);
        self.report.problem(wrong.at(&node.place, &path(&self.path, key), &node.value));
    }

    /// Reports that two values do not go together, at the one that was written last; not if one of
    /// them was refused for itself already.
    pub(super) fn clash(&self, keys: [&'static str; 2], what: String, allowed: &str) {
        if keys.iter().any(|key| self.refused.contains(key)) {
            return;
        }
        let written = keys.iter().filter_map(|key| Some((&self.table.get(key)?.node.place, *key)));
        let (place, key) = written.max().unwrap_or((&self.place, keys[0]));
        self.report.problem(Problem::new(place, &path(&self.path, key), what).allowed(allowed));
    }

    /// Reports that `key`, which has to be there, is not.
    pub(super) fn missing(&self, key: &'static str, what: &str, allowed: &str) {
        if !self.refused.contains(key) {
            let problem = Problem::new(&self.place, &path(&self.path, key), what);
            self.report.missing(problem.allowed(allowed));
        }
    }

    /// Reports `key`, which exists elsewhere but means nothing here, if it was written.
    pub(super) fn forbid(&mut self, key: &'static str, what: &str) {
        if let Some(entry) = self.table.get(key) {
            self.forbidden.insert(key);
            self.report.problem(Problem::new(&entry.key_place, &path(&self.path, key), what));
        }
    }

    /// Gives a remark on `key`, whose value is right, if it was written.
    pub(super) fn remark(&self, key: &'static str, what: &str) {
        if let Some(entry) = self.table.get(key).filter(|_| !self.refused.contains(key)) {
            let key = path(&self.path, key);
            self.report.remark(Problem::new(&entry.key_place, &key, what));
        }
    }

    /// Gives a remark on these keys, which have no effect in this version, where they were written.
    pub(super) fn not_in_force(&self, keys: &[&'static str]) {
        for key in keys {
            self.remark(key, "is not in force in this version");
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for (key, entry) in self.table.entries() {
            let is_known = self.knows(key) || self.knows(&snake_case(key)) && is_camel_case(key);
            if !is_known && !matches!(entry.node.value, Value::Broken) {
                self.report.unknown(Unknown {
                    place: entry.key_place.clone(),
                    section: self.path.clone(),
                    key: key.to_owned(),
                    known_here: self.asked.keys().copied().chain(self.forbidden.clone()).collect(),
                });
            }
        }
        self.report.asked(self.path, self.asked);
    }

    fn knows(&self, key: &str) -> bool {
        self.asked.contains_key(key) || self.forbidden.contains(key)
    }
}
