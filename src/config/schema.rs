//! The JSON Schema of the configuration: made of what the readers themselves ask for, so that there
//! is no second list of keys. Descriptions are the comments of the documented file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::dependencies::NAME_PATTERN;
use super::form::Form;
use super::report::{Report, path};
use super::tree::camel_case;
use super::{DEFAULTS, HostDefaults, Sources, read};
use crate::catalog::COMING;
use crate::units::{NAME_MAX, RESERVED};

/// The foreign service whose keys stand for those of all, as in the documented file.
const ANY: &str = "web";

/// humantime's units.
const DURATION: &str = "^\\s*(0|([0-9][0-9\\s]*(\\.[0-9\\s]+)?\\s*(nanos|nsec|ns|usec|us|µs|\
                        millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|\
                        hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|\
                        yrs|yr|y)\\s*)+)\\s*$";
const SIZE: &str = "^\\s*([0-9]+\\.?[0-9]*|\\.[0-9]+)\\s*([bB]|[kKmMgGtTpPeE][iI]?[bB]?)?\\s*$";

/// As JSON text: JSON Schema 2020-12. It says what a key may be; what only shows when keys are seen
/// together, such as a port that is used twice, is the business of `config check`.
pub fn schema() -> String {
    let sections = documented();
    let mut root = Branch { form: Form::Section, keys: BTreeMap::new() };
    for (key, form) in known() {
        root.grow(&key.split('.').collect::<Vec<_>>(), form);
    }
    let mut schema = root.section("", "#", &sections);
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "The configuration of a Blackhole node".into());
    format!("{:#}", Value::Object(schema))
}

/// Every key that is asked for where there is a service of every kind.
fn known() -> BTreeMap<String, Form> {
    let text = format!("[services.{ANY}]\ncommand = ['x']\n");
    let host = HostDefaults {
        node_name: "node".to_owned(),
        data_dir: "/data".into(),
        runtime_dir: "/run".into(),
        memory: None,
        processors: None,
    };
    let sources = Sources { file: Some((Path::new("schema"), &text)), ..Sources::default() };
    let report = Report::default();
    read(&sources, &host, &report);
    report.known()
}

/// A key, what it takes, and the keys below it.
struct Branch {
    form: Form,
    keys: BTreeMap<String, Branch>,
}

impl Branch {
    fn grow(&mut self, key: &[&str], form: Form) {
        let Some((first, below)) = key.split_first() else {
            self.form = form;
            return;
        };
        let new = || Branch { form: Form::Section, keys: BTreeMap::new() };
        self.keys.entry((*first).to_owned()).or_insert_with(new).grow(below, form);
    }

    /// `pointer`: where this one stands in the schema, as a JSON pointer.
    fn schema(&self, key: &str, pointer: &str, sections: &Documented) -> Value {
        let mut schema = match &self.form {
            Form::Section => self.section(key, pointer, sections),
            Form::Variables
            | Form::Flag
            | Form::Whole { .. }
            | Form::Text { .. }
            | Form::Duration
            | Form::Size { .. }
            | Form::Cores
            | Form::Choice(_)
            | Form::Path
            | Form::List { .. }
            | Form::OrNone(_)
            | Form::Needed(_) => of_form(&self.form),
        };
        if let Some(description) = sections.get(&general(key)) {
            schema.insert("description".to_owned(), description.as_str().into());
        }
        Value::Object(schema)
    }

    fn section(&self, section: &str, pointer: &str, sections: &Documented) -> Map<String, Value> {
        let mut properties = Map::new();
        let mut others = Value::Bool(false);
        let mut needed = Vec::new();
        for (key, branch) in &self.keys {
            if matches!(branch.form, Form::Needed(_)) {
                needed.push(key.clone());
            }
            let path = path(section, key);
            if key == ANY {
                others = branch.schema(&path, &format!("{pointer}/additionalProperties"), sections);
                continue;
            }
            let place = format!("{pointer}/properties/{key}");
            properties.insert(key.clone(), branch.schema(&path, &place, sections));
            let camel = camel_case(key);
            if camel != *key && section != "services" {
                properties.insert(camel, json!({ "$ref": place }));
            }
        }
        // An empty section of YAML is null.
        let kind = if needed.is_empty() { json!(["object", "null"]) } else { json!("object") };
        let mut schema = object(json!({ "type": kind }));
        if section == "services" {
            for coming in COMING {
                properties.insert(coming.to_owned(), not_wanted());
            }
            schema.insert("propertyNames".to_owned(), service_name());
        }
        if !needed.is_empty() {
            schema.insert("required".to_owned(), needed.into());
        }
        schema.insert("properties".to_owned(), Value::Object(properties));
        schema.insert("additionalProperties".to_owned(), others);
        schema
    }
}

/// A service of a later version: it may be there as long as it is not enabled.
fn not_wanted() -> Value {
    json!({
        "description": "This service is not in this version.",
        "type": "object",
        "properties": { "enabled": { "description": "Only false.", "const": false } },
        "required": ["enabled"],
    })
}

fn service_name() -> Value {
    json!({ "pattern": NAME_PATTERN, "maxLength": NAME_MAX, "not": { "anyOf": [
        { "enum": RESERVED },
        { "pattern": "-[0-9]+$" },
    ] } })
}

fn of_form(form: &Form) -> Map<String, Value> {
    object(match form {
        Form::Section => json!({ "type": ["object", "null"] }),
        Form::Variables => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" , "not": {
                "pattern": "^(LISTEN_|WATCHDOG_|BLACKHOLE_|NOTIFY_SOCKET$)",
            } },
            "additionalProperties": { "type": "string", "pattern": "^[^\\u0000]*$" },
        }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Whole { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Form::Text { pattern, most } => {
            json!({ "type": "string", "pattern": pattern, "maxLength": most })
        }
        Form::Duration => json!({ "type": "string", "pattern": DURATION }),
        Form::Size { least, most } => json!({ "anyOf": [
            { "type": "integer", "minimum": least.0, "maximum": most.0 },
            { "type": "string", "pattern": SIZE },
        ] }),
        Form::Cores => json!({ "anyOf": [
            { "type": "number", "minimum": 0.01, "maximum": 1024 },
            { "type": "string", "pattern": "^\\s*[0-9]+(\\.[0-9]{0,3})?\\s*$" },
        ] }),
        Form::Choice(words) => json!({ "enum": words }),
        Form::Path => json!({
            "type": "string",
            "pattern": "^/",
            "maxLength": 1024,
            "not": { "pattern": "(^|/)\\.\\.(/|$)|\\u0000" },
        }),
        Form::List { of, least, most } => json!({
            "type": "array",
            "items": of_form(of),
            "minItems": least,
            "maxItems": most,
        }),
        Form::OrNone(inner) => json!({ "anyOf": [of_form(inner), { "const": "none" }] }),
        Form::Needed(inner) => return of_form(inner),
    })
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// What the documented file says of each key, by its path.
type Documented = BTreeMap<String, String>;

/// The comments in front of each section and key, active or not. One stands for all keys that
/// follow without an empty line between.
fn documented() -> Documented {
    let mut found = Documented::new();
    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut is_open = true;
    for line in DEFAULTS.lines() {
        if line == "#" || line.starts_with("# ") {
            if !std::mem::replace(&mut is_open, true) {
                comment.clear();
            }
            comment.push(line.trim_start_matches('#').trim_start_matches(' '));
            continue;
        }
        is_open = false;
        let line = line.trim_start_matches('#');
        let key = if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            section.clone()
        } else {
            line.split_once(" = ").map(|(key, _)| path(&section, key)).unwrap_or_default()
        };
        if !key.is_empty() && !comment.is_empty() {
            found.entry(general(&key)).or_insert(comment.join("\n"));
        }
        if key.is_empty() {
            comment.clear();
        }
    }
    found
}

/// Keys of services and of tiers are described once for all of them.
fn general(key: &str) -> String {
    for all in ["services", "tiers"] {
        let below = key.strip_prefix(all).and_then(|rest| rest.strip_prefix('.')?.split_once('.'));
        if let Some((_name, key)) = below {
            return format!("{all}.*.{key}");
        }
    }
    key.to_owned()
}
