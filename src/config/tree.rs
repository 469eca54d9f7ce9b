//! What was written, from all sources, as one tree with a place at every key and value. Knows no
//! file format and no key.

use std::collections::BTreeMap;
use std::fmt;

use super::problem::Place;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// As it was written, so that no digit is lost.
    Float(String),
    Bool(bool),
    Date(String),
    /// The key is written and no value behind it, which only YAML has. A section of this value
    /// is an empty one.
    Nothing,
    List(Vec<Node>),
    Table(Table),
    /// Could not be read, which is reported already.
    Broken,
}

impl Value {
    /// What kind of thing this is, for a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Date(_) => "a date or time",
            Self::Nothing => "nothing",
            Self::List(_) => "a list",
            Self::Table(_) => "a section",
            Self::Broken => "something unreadable",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(text) | Self::Date(text) => f.write_str(text),
            Self::Bool(value) => write!(f, "{value}"),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{}", item.value)?;
                }
                f.write_str("]")
            }
            Self::Nothing => f.write_str("null"),
            Self::Table(_) => f.write_str("{...}"),
            Self::Broken => f.write_str("?"),
        }
    }
}

/// A key of a table: where the key stands, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key_place: Place,
    pub(super) node: Node,
}

/// Keys as they were spelled, and their values.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Table(BTreeMap<String, Entry>);

/// Why a value cannot be laid into the tree: the key so far holds no section but this.
#[derive(Debug)]
pub(super) struct NoSection {
    pub(super) key: String,
    pub(super) kind: &'static str,
}

impl Table {
    pub(super) const EMPTY: Self = Self(BTreeMap::new());

    pub(super) fn insert(&mut self, key: String, entry: Entry) {
        self.0.insert(key, entry);
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The entry of exactly this spelling.
    pub(super) fn exact(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// The entry of a key in either of its spellings.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(key).or_else(|| key.contains('_').then(|| self.0.get(&camel_case(key)))?)
    }

    /// The place of the value at `path`, or of the innermost section around it that was written.
    pub(super) fn place(&self, path: &[&str]) -> Place {
        let mut place = Place::Default;
        let mut table = Some(self);
        for key in path {
            let Some(entry) = table.and_then(|table| table.get(key)) else { break };
            place = entry.node.place.clone();
            table = entry.node.table();
        }
        place
    }

    /// The place of the value at `path`, if it was written.
    pub(super) fn written(&self, path: &[&str]) -> Option<&Place> {
        let (last, sections) = path.split_last()?;
        let mut table = self;
        for section in sections {
            table = table.get(section)?.node.table()?;
        }
        table.get(last).map(|entry| &entry.node.place)
    }

    /// Puts `node` at `path`, over what is there in whichever spelling; missing sections are made.
    pub(super) fn lay(&mut self, path: &[&str], node: Node) -> Result<(), NoSection> {
        let Some((last, sections)) = path.split_last() else { return Ok(()) };
        let mut table = self;
        for (depth, section) in sections.iter().enumerate() {
            let entry = table.0.entry(table.spelling(section)).or_insert_with(|| Entry {
                key_place: node.place.clone(),
                node: Node { place: node.place.clone(), value: Value::Table(Self::EMPTY) },
            });
            if entry.node.value == Value::Nothing {
                entry.node.value = Value::Table(Self::EMPTY);
            }
            let kind = entry.node.value.kind();
            match &mut entry.node.value {
                Value::Table(inner) => table = inner,
                Value::Broken => return Ok(()),
                Value::Text(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Bool(_)
                | Value::Date(_)
                | Value::Nothing
                | Value::List(_) => {
                    return Err(NoSection { key: path[..=depth].join("."), kind });
                }
            }
        }
        let is_variable = sections.last() == Some(&"environment");
        let key = if is_variable { (*last).to_owned() } else { table.spelling(last) };
        table.insert(key, Entry { key_place: node.place.clone(), node });
        Ok(())
    }

    /// How `key` is spelled here, or `key` itself where it is not here.
    fn spelling(&self, key: &str) -> String {
        let spellings = [key.to_owned(), camel_case(key), snake_case(key)];
        let present = spellings.into_iter().find(|spelling| self.0.contains_key(spelling));
        present.unwrap_or_else(|| key.to_owned())
    }
}

impl Node {
    pub(super) fn table(&self) -> Option<&Table> {
        static EMPTY: Table = Table::EMPTY;
        match &self.value {
            Value::Table(table) => Some(table),
            Value::Nothing => Some(&EMPTY),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Date(_)
            | Value::List(_)
            | Value::Broken => None,
        }
    }
}

/// `data_dir` as `dataDir`.
pub(super) fn camel_case(key: &str) -> String {
    let mut words = key.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Whether this is how a key of several words is spelled the other way.
pub(super) fn is_camel_case(key: &str) -> bool {
    camel_case(&snake_case(key)) == key
}

/// `dataDir` as `data_dir`.
pub(super) fn snake_case(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: i64) -> Node {
        Node { place: Place::Option("--test"), value: Value::Integer(value) }
    }

    #[test]
    fn the_two_spellings_of_a_key_are_each_others_inverse() {
        for (snake, camel) in [("data_dir", "dataDir"), ("http_port", "httpPort"), ("name", "name")]
        {
            assert_eq!(camel_case(snake), camel);
            assert_eq!(snake_case(camel), snake);
        }
    }

    #[test]
    fn a_later_value_takes_the_place_of_either_spelling() {
        let mut table = Table::EMPTY;
        table.lay(&["api", "httpPort"], number(1)).unwrap();
        table.lay(&["api", "http_port"], number(2)).unwrap();
        let api = table.get("api").unwrap().node.table().unwrap();
        assert_eq!(api.entries().count(), 1);
        assert_eq!(api.get("http_port").unwrap().node.value, Value::Integer(2));
    }

    #[test]
    fn environment_variables_have_one_spelling_each() {
        let mut table = Table::EMPTY;
        table.lay(&["services", "web", "environment", "data_dir"], number(1)).unwrap();
        table.lay(&["services", "web", "environment", "dataDir"], number(2)).unwrap();
        let services = table.get("services").unwrap().node.table().unwrap();
        let web = services.get("web").unwrap().node.table().unwrap();
        assert_eq!(web.get("environment").unwrap().node.table().unwrap().entries().count(), 2);
    }

    #[test]
    fn nothing_is_laid_below_a_value() {
        let mut table = Table::EMPTY;
        table.lay(&["api"], number(1)).unwrap();
        let refused = table.lay(&["api", "http_port"], number(2)).unwrap_err();
        assert_eq!((refused.key.as_str(), refused.kind), ("api", "a whole number"));
    }
}
