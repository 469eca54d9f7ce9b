//! Runtime overrides: the numbers of instances and the limits that an operator set with `scale` and
//! `set-limits`, which win over the file.

use std::collections::BTreeMap;

use super::model::NodeConfig;
use super::set_limits::{LimitSettings, LimitsError};
use crate::units::ServiceName;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeOverrides {
    pub scaled: BTreeMap<ServiceName, u16>,
    pub limited: BTreeMap<ServiceName, LimitSettings>,
}

impl RuntimeOverrides {
    /// Drops the overrides of values that the file has changed.
    pub fn yield_to_file(&mut self, before: &NodeConfig, now: &NodeConfig) {
        let said = |config: &NodeConfig, name: &ServiceName| {
            config.services.get(name).map(|service| service.instances)
        };
        self.scaled.retain(|name, _| said(before, name) == said(now, name));
        self.limited.retain(|name, settings| {
            let (before, now) = (before.services.get(name), now.services.get(name));
            let Some((before, now)) = before.zip(now).filter(|(_, now)| now.enabled) else {
                return false;
            };
            settings.yield_to_file(before, now);
            !settings.is_empty()
        });
    }

    /// The file's configuration with the overrides applied.
    pub fn applied_to(&self, file: &NodeConfig) -> Result<NodeConfig, LimitsError> {
        let mut config = file.clone();
        for (name, instances) in &self.scaled {
            if let Some(service) = config.services.get_mut(name) {
                service.instances = *instances;
            }
        }
        for (name, settings) in &self.limited {
            config = config.limited(name.as_str(), settings)?;
        }
        Ok(config)
    }

    /// Sets the limits of a service, and gives what was set before.
    pub fn limit(&mut self, service: &ServiceName, settings: LimitSettings) -> LimitSettings {
        let former = self.limited.remove(service).unwrap_or_default();
        if !settings.is_empty() {
            self.limited.insert(service.clone(), settings);
        }
        former
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::defaults;
    use super::*;

    fn overrides() -> RuntimeOverrides {
        let storage: ServiceName = "storage".parse().unwrap();
        let memory = LimitSettings::parse(&["memory=1GiB".to_owned()]).unwrap();
        RuntimeOverrides {
            scaled: BTreeMap::from([(storage.clone(), 3)]),
            limited: BTreeMap::from([(storage, memory)]),
        }
    }

    #[test]
    fn a_service_that_is_disabled_takes_its_limits_with_it() {
        let before = defaults();
        let over = overrides().applied_to(&before).unwrap();
        let storage = &over.services[&"storage".parse().unwrap()];
        assert_eq!(
            (storage.instances, storage.resources_in_force().memory.unwrap().0),
            (3, 1 << 30)
        );
        let mut now = before.clone();
        now.services.get_mut(&"storage".parse().unwrap()).unwrap().enabled = false;
        let mut left = overrides();
        left.yield_to_file(&before, &now);
        assert!(left.limited.is_empty() && left.applied_to(&now).is_ok());
    }
}
