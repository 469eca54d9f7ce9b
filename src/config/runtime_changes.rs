//! Which changes of the configuration a running node can apply, and which need a restart of it.

use super::model::{NodeConfig, Service};
use crate::units::{ByteSize, ServiceName};

/// Why a service cannot have that many instances.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("{0}")]
    Service(#[from] UnknownService),
    #[error("{service} cannot have {asked} instances; allowed: {allowed}{why}")]
    Instances { service: ServiceName, asked: u32, allowed: String, why: &'static str },
    #[error(
        "{asked} instances of {service} bring the memory limits of all services to {sum}, and \
         resources.memory is {budget}"
    )]
    Memory { service: ServiceName, asked: u32, sum: ByteSize, budget: ByteSize },
}

/// Why nothing of this name can be changed while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownService {
    #[error("there is no service {name:?}; there are: {known}")]
    None { name: String, known: String },
    #[error("{0} is disabled; set services.{0}.enabled = true and reload")]
    Disabled(ServiceName),
}

pub(super) fn running_service<'c>(
    config: &'c NodeConfig,
    name: &str,
) -> Result<(&'c ServiceName, &'c Service), UnknownService> {
    let found = config.services.iter().find(|(service, _)| service.as_str() == name);
    match found {
        Some((service, settings)) if settings.enabled => Ok((service, settings)),
        Some((service, _)) => Err(UnknownService::Disabled(service.clone())),
        None => {
            let known: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
            Err(UnknownService::None { name: name.to_owned(), known: known.join(", ") })
        }
    }
}

impl NodeConfig {
    /// The keys that differ from `old` and that a running node cannot apply.
    pub fn fixed_keys_changed(&self, old: &Self) -> Vec<&'static str> {
        let (now, before) = (&self.node, &old.node);
        let all = [
            ("node.name", now.name != before.name),
            ("node.data_dir", now.data_dir != before.data_dir),
            ("node.runtime_dir", now.runtime_dir != before.runtime_dir),
            ("node.resource_limits", now.resource_limits != before.resource_limits),
            ("monitoring.log_target", self.monitoring.log_target != old.monitoring.log_target),
            ("monitoring.log_format", self.monitoring.log_format != old.monitoring.log_format),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// The service of this name, if it is there and enabled.
    pub fn running(&self, name: &str) -> Result<&ServiceName, UnknownService> {
        running_service(self, name).map(|(service, _)| service)
    }

    /// Gives the service `asked` instances, and the configuration that follows.
    pub fn scaled(&self, name: &str, asked: u32) -> Result<Self, ScaleError> {
        let (service, settings) = running_service(self, name)?;
        let most = settings.most_instances();
        let fitting = u16::try_from(asked).ok().filter(|asked| (1..=most).contains(asked));
        let Some(instances) = fitting else {
            let service = service.clone();
            let (allowed, why) = match most {
                1 => ("1".to_owned(), ", for it is the only writer of its data"),
                _ => (format!("1 to {most}"), "; `stop` ends them all"),
            };
            return Err(ScaleError::Instances { service, asked, allowed, why });
        };
        let mut scaled = self.clone();
        if let Some(service) = scaled.services.get_mut(service) {
            service.instances = instances;
        }
        let sum = scaled.promised_memory();
        match self.memory_budget {
            Some(budget) if sum > budget && sum > self.promised_memory() => {
                let service = service.clone();
                Err(ScaleError::Memory { service, asked, sum, budget })
            }
            Some(_) | None => Ok(scaled),
        }
    }

    /// The memory limits of everything that runs, together.
    pub(super) fn promised_memory(&self) -> ByteSize {
        let enabled = self.services.values().filter(|service| service.enabled);
        let all = enabled.filter_map(Service::promised_memory);
        ByteSize(all.fold(0, |sum, one| sum.saturating_add(one.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::LogTarget;
    use super::super::tests::defaults;
    use super::*;

    #[test]
    fn only_the_number_of_the_one_service_changes() {
        let before = defaults();
        let after = before.scaled("storage", 5).unwrap();
        let storage: ServiceName = "storage".parse().unwrap();
        assert_eq!(after.services[&storage].instances, 5);
        assert_eq!(after.scaled("storage", 1), Ok(before));
    }

    #[test]
    fn what_is_promised_stays_within_the_budget() {
        let mut config = defaults();
        config.memory_budget = Some(ByteSize::gib(8));
        assert!(config.scaled("storage", 3).is_ok());
        let refused = config.scaled("storage", 4).unwrap_err().to_string();
        assert_eq!(
            refused,
            "4 instances of storage bring the memory limits of all services to 10GiB, and \
             resources.memory is 8GiB"
        );
        config.memory_budget = Some(ByteSize::gib(1));
        assert!(config.scaled("storage", 1).is_ok(), "what is no more than before is no reason");
    }

    #[test]
    fn where_the_logs_go_is_for_the_next_start() {
        let mut after = defaults();
        after.monitoring.log_target = LogTarget::Console;
        assert_eq!(after.fixed_keys_changed(&defaults()), ["monitoring.log_target"]);
    }

    #[test]
    fn what_cannot_be_says_what_can() {
        let refused = |name, asked| defaults().scaled(name, asked).unwrap_err().to_string();
        assert_eq!(
            refused("storag", 2),
            "there is no service \"storag\"; there are: gateway, identity, ledger, storage"
        );
        assert_eq!(
            refused("storage", 0),
            "storage cannot have 0 instances; allowed: 1 to 64; `stop` ends them all"
        );
        assert!(refused("storage", 65).contains("1 to 64"));
        assert_eq!(
            refused("ledger", 2),
            "ledger cannot have 2 instances; allowed: 1, for it is the only writer of its data"
        );
    }
}
