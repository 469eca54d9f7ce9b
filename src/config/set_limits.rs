//! `set-limits`: limits of a service that an operator changes while it runs.

use std::collections::BTreeMap;

use super::model::{Kind, NodeConfig, Resources, Service};
use super::problem::{ConfigErrors, Place, nearest};
use super::report::Report;
use super::resources;
use super::runtime_changes::{UnknownService, running_service};
use super::section::Section;
use super::toml_text;
use super::tree::{Table, snake_case};
use crate::units::{ByteSize, ServiceName};

/// The keys of `[services.NAME.resources]` that can be changed while a process runs.
const KEYS: [&str; 10] = [
    "memory",
    "memory_high",
    "memory_low",
    "memory_min",
    "memory_swap",
    "oom_group",
    "cpu_cores",
    "cpu_weight",
    "io_weight",
    "max_tasks",
];
/// What operators type instead.
const SHORT: [(&str, &str); 2] = [("cpu", "cpu_cores"), ("tasks", "max_tasks")];
/// Of one assignment, in bytes; beyond it there is no value that could be meant.
const LONGEST: usize = 128;
const PLACE: Place = Place::Option("set-limits");

/// Why the limits stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    #[error("{0}")]
    Service(#[from] UnknownService),
    #[error("write KEY=VALUE, such as memory=512MiB, not {0:?}")]
    Form(String),
    #[error(
        "{key:?} is none of the limits that can change while a service runs: {}{}",
        KEYS.join(", "),
        meant.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
    )]
    Key { key: String, meant: Option<&'static str> },
    #[error("{0}")]
    Wrong(ConfigErrors),
    #[error(
        "that brings the memory limits of all services to {sum}, and resources.memory is {budget}"
    )]
    Memory { sum: ByteSize, budget: ByteSize },
}

/// Values by their keys, as they were written. As text: `KEY=VALUE` each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitSettings(BTreeMap<&'static str, String>);

impl LimitSettings {
    /// From `KEY=VALUE` each; a key may be in either spelling.
    pub fn parse(assignments: &[String]) -> Result<Self, LimitsError> {
        let mut settings = BTreeMap::new();
        for assignment in assignments {
            let parts = assignment.split_once('=').filter(|_| assignment.len() <= LONGEST);
            let wrong = || LimitsError::Form(assignment.chars().take(LONGEST).collect());
            let (key, value) = parts.ok_or_else(wrong)?;
            settings.insert(known_key(key.trim())?, value.trim().to_owned());
        }
        Ok(Self(settings))
    }

    /// These settings and those of `other`, which win.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).map(|(key, value)| (*key, value.clone())).collect())
    }

    /// Drops what the file itself says otherwise now.
    pub fn yield_to_file(&mut self, before: &Service, now: &Service) {
        let changed = changed_keys(&before.resources, &now.resources);
        self.0.retain(|key, _| !changed.contains(key));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for LimitSettings {
    type Error = LimitsError;

    fn try_from(assignments: Vec<String>) -> Result<Self, LimitsError> {
        Self::parse(&assignments)
    }
}

impl From<LimitSettings> for Vec<String> {
    fn from(LimitSettings(settings): LimitSettings) -> Self {
        settings.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

fn known_key(key: &str) -> Result<&'static str, LimitsError> {
    let plain = snake_case(key);
    let long = SHORT.iter().find(|(short, _)| *short == plain).map(|(_, long)| *long);
    let known = long.or_else(|| KEYS.into_iter().find(|known| *known == plain));
    known.ok_or_else(|| {
        let meant = nearest(&plain, KEYS.into_iter());
        LimitsError::Key { key: key.to_owned(), meant }
    })
}

fn changed_keys(before: &Resources, now: &Resources) -> Vec<&'static str> {
    let all = [
        ("memory", before.memory != now.memory),
        ("memory_high", before.memory_high != now.memory_high),
        ("memory_low", before.memory_low != now.memory_low),
        ("memory_min", before.memory_min != now.memory_min),
        ("memory_swap", before.memory_swap != now.memory_swap),
        ("oom_group", before.oom_kill != now.oom_kill),
        ("cpu_cores", before.cpu_cores != now.cpu_cores),
        ("cpu_weight", before.cpu_weight != now.cpu_weight),
        ("io_weight", before.io_weight != now.io_weight),
        ("max_tasks", before.max_tasks != now.max_tasks),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

impl NodeConfig {
    /// With these limits for the service, checked as if they were written in its section.
    pub fn limited(&self, name: &str, settings: &LimitSettings) -> Result<Self, LimitsError> {
        let (service, current) = running_service(self, name)?;
        let resources = resources_with(service, current, settings).map_err(LimitsError::Wrong)?;
        let mut limited = self.clone();
        if let Some(service) = limited.services.get_mut(service) {
            service.operator_resources = Some(resources);
        }
        let sum = limited.promised_memory();
        match self.memory_budget {
            Some(budget) if sum > budget && sum > self.promised_memory() => {
                Err(LimitsError::Memory { sum, budget })
            }
            Some(_) | None => Ok(limited),
        }
    }
}

fn resources_with(
    name: &ServiceName,
    service: &Service,
    settings: &LimitSettings,
) -> Result<Resources, ConfigErrors> {
    let report = Report::default();
    let path = format!("services.{name}.resources");
    let mut table = Table::EMPTY;
    for (key, value) in &settings.0 {
        let node = toml_text::read_value(value, &format!("{path}.{key}"), &PLACE, &report);
        table.lay(&[key], node).expect("a table has room for a key");
    }
    let builtin = match &service.kind {
        Kind::Builtin(builtin, _) => Some(*builtin),
        Kind::Foreign(_) => None,
    };
    let section = Section::of(&table, PLACE, path, &report);
    let (resources, _) = resources::read(section, service.resources, builtin);
    report.close().map(|_| resources)
}

#[cfg(test)]
mod tests {
    use super::super::tests::defaults;
    use super::*;

    fn set(assignments: &[&str]) -> Result<Resources, String> {
        let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        let settings = LimitSettings::parse(&assignments).map_err(|error| error.to_string())?;
        let limited = defaults().limited("ledger", &settings).map_err(|error| error.to_string())?;
        Ok(*limited.services[&"ledger".parse().unwrap()].resources_in_force())
    }

    #[test]
    fn only_what_is_set_changes() {
        let before = defaults().services[&"ledger".parse().unwrap()].resources;
        let after = set(&["memory=64MiB", "cpu=0.5", "tasks=7", "ioWeight=3"]).unwrap();
        let expected = Resources {
            memory: Some(ByteSize::mib(64)),
            cpu_cores: Some("0.5".parse().unwrap()),
            max_tasks: Some(7),
            io_weight: Some(3),
            ..before
        };
        assert_eq!(after, expected);
        assert_eq!(set(&["memory=none"]).unwrap(), Resources { memory: None, ..before });
        assert_eq!(set(&[]).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_set_is_refused_as_in_the_file() {
        let refused = |assignment: &str| set(&[assignment]).unwrap_err();
        assert_eq!(
            refused("memory=lots"),
            "set-limits: services.ledger.resources.memory = \"lots\": this is not a size; allowed: \
             a size from 1MiB to 1024TiB, such as \"512MiB\" or \"2GB\", or \"none\" for no limit"
        );
        assert!(refused("memory_high=2GiB").contains("is more than memory (1GiB)"));
        assert!(refused("cpu_weight=0").contains("from 1 to 10000"));
        assert!(refused("max_files=9").contains("none of the limits that can change"));
        assert!(refused("memori=9").ends_with("; did you mean memory?"));
        assert_eq!(refused("memory"), "write KEY=VALUE, such as memory=512MiB, not \"memory\"");
        let unknown = defaults().limited("ledgr", &LimitSettings::default()).unwrap_err();
        assert!(unknown.to_string().starts_with("there is no service \"ledgr\""), "{unknown}");
    }

    #[test]
    fn what_is_promised_stays_within_the_budget() {
        let mut config = defaults();
        config.memory_budget = Some(ByteSize::gib(4));
        let settings = LimitSettings::parse(&["memory=2GiB".to_owned()]).unwrap();
        let refused = config.limited("ledger", &settings).unwrap_err().to_string();
        assert!(refused.contains("to 5GiB, and resources.memory is 4GiB"), "{refused}");
    }

    #[test]
    fn the_file_has_the_last_word_where_it_says_something_new() {
        let parse = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            LimitSettings::parse(&texts).unwrap()
        };
        let before = defaults().services[&"ledger".parse().unwrap()].clone();
        let mut now = before.clone();
        now.resources.memory = Some(ByteSize::mib(5));
        let mut settings = parse(&["memory=64MiB", "tasks=7"]);
        settings.yield_to_file(&before, &before);
        assert_eq!(settings, parse(&["memory=64MiB", "tasks=7"]));
        settings.yield_to_file(&before, &now);
        assert_eq!(settings, parse(&["tasks=7"]));
        assert_eq!(settings.and(&parse(&["tasks=8"])), parse(&["tasks=8"]));
    }
}
