//! What is in force: the configuration file, the operator's overrides, and the plan that follows
//! from both. A change makes the next value or a refusal, and has no other effect.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tonic::Status;

use super::loader::Configured;
use crate::config::{
    LimitSettings, LimitsError, NodeConfig, RuntimeOverrides, ScaleError, UnknownService,
};
use crate::decide::Planned;
use crate::plan::{LimitLayers, Plan};
use crate::units::{InstanceId, ServiceName};

/// The most characters of a refusal in one line.
const LINE_MOST: usize = 300;

/// Configuration, overrides and plan, replaced as one value.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) file: ConfigFile,
    pub(super) overrides: RuntimeOverrides,
    /// The settings of a service before its last `set-limits`.
    former_limits: BTreeMap<ServiceName, LimitSettings>,
    /// The file's configuration with the overrides.
    pub(super) config: NodeConfig,
    pub(super) plan: Arc<Plan>,
}

/// The configuration file as it was read, and a text that gives the same configuration.
#[derive(Debug, Clone)]
pub(super) struct ConfigFile {
    config: NodeConfig,
    pub(super) text: String,
}

/// Why a change was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Configuration(String),
    Scale(ScaleError),
    Limits(LimitsError),
    /// Because of the node's state, not of the request.
    State(String),
}

impl ConfigFile {
    pub(super) fn new(config: NodeConfig, text: String) -> Self {
        Self { config, text }
    }
}

impl InForce {
    pub(super) fn new(file: ConfigFile, overrides: RuntimeOverrides) -> Result<Self, LimitsError> {
        let config = overrides.applied_to(&file.config)?;
        let plan = Arc::new(Plan::of(&config));
        Ok(Self { file, overrides, former_limits: BTreeMap::new(), config, plan })
    }

    /// The rules and limits of all instances, for the core.
    pub(super) fn planned(&self) -> BTreeMap<InstanceId, Planned> {
        let instances = self.plan.instances.iter();
        instances
            .map(|(id, plan)| {
                (id.clone(), Planned { rules: plan.rules.clone(), limits: plan.limits })
            })
            .collect()
    }

    /// The limits of all instances of a service.
    pub(super) fn limits_of(&self, service: &ServiceName) -> BTreeMap<InstanceId, LimitLayers> {
        let instances = self.plan.instances.iter().filter(|(id, _)| id.service == *service);
        instances.map(|(id, plan)| (id.clone(), plan.limits)).collect()
    }

    /// The next value with another file. Overrides of keys that the file changes are dropped.
    pub(super) fn with_file(&self, read: Configured) -> Result<Self, Refusal> {
        let fixed = read.config.fixed_keys_changed(&self.file.config);
        if !fixed.is_empty() {
            let keys = fixed.join(", ");
            return Err(Refusal::Configuration(format!(
                "{keys}: cannot change while the node runs; stop it and start it again"
            )));
        }
        let mut overrides = self.overrides.clone();
        overrides.yield_to_file(&self.file.config, &read.config);
        let file = ConfigFile::new(read.config, read.text);
        self.next(file, overrides)
    }

    /// The next value with this number of instances of a service.
    pub(super) fn scaled(&self, service: &str, instances: u32) -> Result<Self, Refusal> {
        let config = self.config.scaled(service, instances).map_err(Refusal::Scale)?;
        let count = config.services.iter().find(|(name, _)| name.as_str() == service);
        let mut overrides = self.overrides.clone();
        overrides.scaled.extend(count.map(|(name, service)| (name.clone(), service.instances)));
        self.next(self.file.clone(), overrides)
    }

    /// The service that `set-limits` names, and the next value.
    pub(super) fn limited(
        &self,
        name: &str,
        assignments: &[String],
    ) -> Result<(ServiceName, Self), Refusal> {
        let asked = LimitSettings::parse(assignments).map_err(Refusal::Limits)?;
        let service = self.file.config.running(name);
        let service = service.map_err(|error| Refusal::Limits(error.into()))?.clone();
        let former = self.overrides.limited.get(&service).cloned().unwrap_or_default();
        let mut overrides = self.overrides.clone();
        overrides.limit(&service, former.and(&asked));
        let mut next = self.next(self.file.clone(), overrides)?;
        next.former_limits.insert(service.clone(), former);
        Ok((service, next))
    }

    /// The next value without the last `set-limits` of the service.
    pub(super) fn without_last_limits(&self, service: &ServiceName) -> Result<Self, Refusal> {
        let mut overrides = self.overrides.clone();
        let former = self.former_limits.get(service).cloned().unwrap_or_default();
        overrides.limit(service, former);
        let mut next = self.next(self.file.clone(), overrides)?;
        next.former_limits.remove(service);
        Ok(next)
    }

    fn next(&self, file: ConfigFile, overrides: RuntimeOverrides) -> Result<Self, Refusal> {
        let next = Self::new(file, overrides).map_err(Refusal::Limits)?;
        Ok(Self { former_limits: self.former_limits.clone(), ..next })
    }
}

impl Refusal {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Limits(LimitsError::Service(UnknownService::None { .. })) => {
                Status::not_found(self.to_string())
            }
            Self::Limits(LimitsError::Service(UnknownService::Disabled(_))) => {
                Status::failed_precondition(self.to_string())
            }
            Self::Limits(
                LimitsError::Form(_)
                | LimitsError::Key { .. }
                | LimitsError::Wrong(_)
                | LimitsError::Memory { .. },
            ) => Status::invalid_argument(self.to_string()),
            Self::Scale(ScaleError::Service(UnknownService::None { .. })) => {
                Status::not_found(self.to_string())
            }
            Self::Configuration(_)
            | Self::Scale(ScaleError::Instances { .. } | ScaleError::Memory { .. }) => {
                Status::invalid_argument(self.to_string())
            }
            Self::State(_) | Self::Scale(ScaleError::Service(UnknownService::Disabled(_))) => {
                Status::failed_precondition(self.to_string())
            }
        }
    }

    pub(super) fn in_a_line(&self) -> String {
        let text = self.to_string();
        let mut lines = text.lines();
        let first: String = lines.next().unwrap_or_default().chars().take(LINE_MOST).collect();
        match lines.count() {
            0 => first,
            more => format!("{first} (and {more} more)"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(why) | Self::State(why) => f.write_str(why),
            Self::Scale(why) => write!(f, "{why}"),
            Self::Limits(why) => write!(f, "{why}"),
        }
    }
}
