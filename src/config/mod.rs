//! From a file, `--set` and the built-in defaults to a `NodeConfig` that holds no nonsense, or to
//! every error at once, each with its place. Knows no host fact beyond what it is given.
//!
//! In reading order: `layers` makes one `tree` of all sources (`toml_text`, `yaml_text`);
//! `sections` and `services` read it key by key through `section` and the readers of `values` and
//! `addresses`, each of which declares the `form` it takes, and `own_keys` those keys that only the
//! catalog names; `dependencies`, `cross_checks` and `capacity` judge what is only known at the
//! end; `report` collects problems, `origins` has where each value was written, `show` writes a
//! configuration out, `schema` makes the JSON schema. `spellings` and `exact` have the words that
//! are both read and written.
//! `overrides` and `runtime_changes` are about a node that runs.

mod addresses;
mod capacity;
mod cross_checks;
mod dependencies;
mod exact;
mod foreign;
mod form;
mod layers;
mod model;
mod origins;
mod overrides;
mod own_keys;
mod problem;
mod report;
mod resources;
mod runtime_changes;
mod sandbox;
mod schema;
mod section;
mod sections;
mod services;
mod set_limits;
mod show;
mod sources;
mod spellings;
mod toml_text;
mod tree;
mod values;
mod yaml_scalar;
mod yaml_text;

#[cfg(test)]
mod cross_checks_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod seed_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod yaml_tests;

pub use model::{
    Api, Backoff, Command, Foreign, HealthChecks, Kind, LogAggregation, LogFormat, LogTarget,
    Monitoring, Network, NodeConfig, NodeSection, NotifyAccess, OomKill, RateLimit, Readiness,
    ResourceLimits, Resources, RestartPolicy, Sandbox, Service, Sizes, Supervisor,
    SystemCallFilter, Tier, TierRules, Tiers,
};
pub use origins::Origins;
pub use overrides::RuntimeOverrides;
pub use problem::{ConfigErrors, Place, Problem};
pub use runtime_changes::{ScaleError, UnknownService};
pub use schema::schema;
pub use set_limits::{LimitSettings, LimitsError};
pub use show::{show, show_json, show_written};
pub use sources::{HostDefaults, Sources};

use report::Report;
use tree::Table;

/// The documented configuration file; what is active in it equals the defaults.
pub const DEFAULTS: &str = include_str!("../../config/blackhole.toml");

/// A configuration that holds, where each value of it was written, and what its writer should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: NodeConfig,
    pub origins: Origins,
    pub remarks: Vec<Problem>,
}

/// Reads all sources. Everything that is wrong with them is in the one error.
pub fn load(sources: &Sources<'_>, host: &HostDefaults) -> Result<Loaded, ConfigErrors> {
    let report = Report::default();
    let (config, tree) = read(sources, host, &report);
    let remarks = report.close()?;
    Ok(Loaded { config, origins: Origins::new(&tree), remarks })
}

fn read(sources: &Sources<'_>, host: &HostDefaults, report: &Report) -> (NodeConfig, Table) {
    let tree = layers::tree(sources, host, report);
    let config = sections::read(&tree, report);
    cross_checks::check(&config, &tree, host, report);
    (config, tree)
}
