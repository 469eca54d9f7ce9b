//! Collects everything that is wrong while a configuration is read, to report it all together.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::form::Form;
use super::problem::{ConfigErrors, Place, Problem, nearest};

/// What was found so far. Shared by the readers of all sections, hence the inner mutability.
#[derive(Debug, Default)]
pub(super) struct Report(RefCell<Found>);

#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    remarks: Vec<Problem>,
    unknown: Vec<Unknown>,
    known: Known,
    text: TextIs,
}

/// Of each section the keys that its reader asked for, and what they take.
type Known = Vec<(String, BTreeMap<&'static str, Form>)>;

/// Whether the file could be read to its end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum TextIs {
    #[default]
    Whole,
    /// Something was skipped, so that the absence of a key means nothing.
    Damaged,
}

/// A key that no reader asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) place: Place,
    /// The section's path; empty: the top of the file.
    pub(super) section: String,
    pub(super) key: String,
    /// The keys of this section.
    pub(super) known_here: BTreeSet<&'static str>,
}

impl Report {
    pub(super) fn problem(&self, problem: Problem) {
        self.0.borrow_mut().problems.push(problem);
    }

    /// A key that has to be there is not. Not told of a damaged text: it may be in the damage.
    pub(super) fn missing(&self, problem: Problem) {
        if self.0.borrow().text == TextIs::Whole {
            self.problem(problem);
        }
    }

    pub(super) fn remark(&self, remark: Problem) {
        self.0.borrow_mut().remarks.push(remark);
    }

    pub(super) fn unknown(&self, unknown: Unknown) {
        self.0.borrow_mut().unknown.push(unknown);
    }

    pub(super) fn asked(&self, section: String, keys: BTreeMap<&'static str, Form>) {
        self.0.borrow_mut().known.push((section, keys));
    }

    pub(super) fn text_is_damaged(&self) {
        self.0.borrow_mut().text = TextIs::Damaged;
    }

    /// Every key that was asked for, with its sections.
    pub(super) fn known(&self) -> BTreeMap<String, Form> {
        let known = &self.0.borrow().known;
        let keys = known.iter().flat_map(|(section, keys)| {
            keys.iter().map(move |(key, form)| (path(section, key), form.clone()))
        });
        keys.collect()
    }

    /// The remarks, or the problems if there are any.
    pub(super) fn close(self) -> Result<Vec<Problem>, ConfigErrors> {
        let Found { mut problems, mut remarks, unknown, known, text: _ } = self.0.into_inner();
        problems.extend(unknown.into_iter().map(|unknown| unknown.into_problem(&known)));
        problems.sort();
        problems.dedup();
        remarks.sort();
        if problems.is_empty() { Ok(remarks) } else { Err(ConfigErrors::new(problems)) }
    }
}

impl Unknown {
    fn into_problem(self, known: &Known) -> Problem {
        let section = match self.section.as_str() {
            "" => "at the top of the file".to_owned(),
            path => format!("in [{path}]"),
        };
        let here = self.known_here.iter().copied().collect::<Vec<_>>().join(", ");
        let meant = self.meant(known);
        Problem::new(&self.place, &path(&self.section, &self.key), format!("unknown key {section}"))
            .allowed(here)
            .meant(meant)
    }

    /// A key of this section that looks like this one, or else the same key in another section:
    /// below this one, or outside `services`.
    fn meant(&self, known: &Known) -> Option<String> {
        if let Some(near) = nearest(&self.key, self.known_here.iter().copied()) {
            return Some(format!("{near:?}"));
        }
        let below = path(&self.section, "");
        let elsewhere = known.iter().filter(|(_, keys)| keys.contains_key(self.key.as_str()));
        let paths = elsewhere.map(|(section, _)| path(section, &self.key));
        let fitting =
            paths.filter(|path| path.starts_with(&below) || !path.starts_with("services."));
        fitting.min().map(|path| format!("{path:?}"))
    }
}

/// `key` in `section`, which is empty at the top.
pub(super) fn path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}
