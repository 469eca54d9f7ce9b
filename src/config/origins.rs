//! Where each value of a configuration was written, by its key. Knows which keys take their value
//! from another key where they are not written, and no key's meaning.

use std::collections::BTreeMap;

use super::problem::Place;
use super::report::path;
use super::tree::{Table, snake_case};

/// A service that does not say takes these from `[process_management.supervisor]`.
const FROM_SUPERVISOR: [&str; 4] =
    ["restart_policy", "max_restarts", "start_timeout", "stop_timeout"];

/// Looked up by the key with its sections in snake case, such as `services.web.max_restarts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Place>);

impl Origins {
    pub(super) fn new(tree: &Table) -> Self {
        let mut origins = Self(BTreeMap::new());
        origins.note(tree, "");
        origins
    }

    /// Where the value of `key` comes from: where it was written, or where the key was written
    /// whose value it takes; `Place::Default` where nobody wrote either.
    pub fn of(&self, key: &str) -> Place {
        let written = self.0.get(key).or_else(|| self.0.get(&inherited_from(key)?));
        written.cloned().unwrap_or(Place::Default)
    }

    fn note(&mut self, table: &Table, section: &str) {
        for (key, entry) in table.entries() {
            let path = path(section, &spelled(section, key));
            match entry.node.table() {
                Some(inner) => self.note(inner, &path),
                None => {
                    self.0.insert(path, entry.key_place.clone());
                }
            }
        }
    }
}

/// The spelling that every key has here; names that an operator gives have only their own.
fn spelled(section: &str, key: &str) -> String {
    let is_given_name = section == "services" || section.ends_with(".environment");
    if is_given_name { key.to_owned() } else { snake_case(key) }
}

fn inherited_from(key: &str) -> Option<String> {
    if key == "monitoring.log_buffer_lines" {
        return Some("monitoring.log_aggregation.buffer_size".to_owned());
    }
    let (_service, key) = key.strip_prefix("services.")?.split_once('.')?;
    match key {
        "logs.rate" => Some("monitoring.log_rate".to_owned()),
        "logs.burst" => Some("monitoring.log_burst".to_owned()),
        key => {
            FROM_SUPERVISOR.contains(&key).then(|| format!("process_management.supervisor.{key}"))
        }
    }
}
