//! The plan itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::launch::{LaunchPlan, launch_plan};
use super::limits::{GroupLimits, LimitLayers};
use super::rules::{RestartRules, Rules};
use super::sockets::{SocketId, SocketPlace, place, socket_path};
use crate::config::{Backoff, NodeConfig, Service};
use crate::units::{InstanceId, ServiceName};

/// Everything that is to be run, and with what.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    pub instances: BTreeMap<InstanceId, InstancePlan>,
    /// Every listening socket that some instance is handed.
    pub sockets: BTreeMap<SocketId, SocketPlace>,
    /// Configured, but off.
    pub disabled: Vec<ServiceName>,
    pub runtime_dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct InstancePlan {
    pub rules: Rules,
    pub launch: LaunchPlan,
    /// The socket that is this instance's alone.
    pub socket: PathBuf,
    pub limits: LimitLayers,
    pub log_rate: u32,
    pub log_burst: u32,
}

impl Plan {
    pub fn of(config: &NodeConfig) -> Self {
        let enabled = || config.services.iter().filter(|(_, service)| service.enabled);
        let running: BTreeSet<&ServiceName> = enabled().map(|(name, _)| name).collect();
        let mut instances = BTreeMap::new();
        for (name, service) in enabled() {
            for index in 0..service.instances {
                let id = InstanceId::new(name.clone(), index);
                let plan = instance_plan(config, name, service, &id, &running);
                instances.insert(id, plan);
            }
        }
        let disabled = config.services.iter().filter(|(_, service)| !service.enabled);
        Self {
            sockets: sockets(config, &instances),
            disabled: disabled.map(|(name, _)| name.clone()).collect(),
            runtime_dir: config.node.runtime_dir.clone(),
            instances,
        }
    }

    /// Without these instances, and without the sockets that only they are handed.
    pub fn without(mut self, ids: &BTreeSet<InstanceId>) -> Self {
        self.instances.retain(|id, _| !ids.contains(id));
        let used: BTreeSet<SocketId> =
            self.instances.values().flat_map(|plan| plan.launch.listeners()).cloned().collect();
        self.sockets.retain(|id, _| used.contains(id));
        self
    }

    /// With these instances of `old`, which are on their way out, and what they are handed.
    pub fn with_leaving(mut self, old: &Self, ids: &BTreeSet<InstanceId>) -> Self {
        for (id, plan) in old.instances.iter().filter(|(id, _)| ids.contains(id)) {
            for socket in plan.launch.listeners() {
                if let (None, Some(place)) = (self.sockets.get(socket), old.sockets.get(socket)) {
                    self.sockets.insert(socket.clone(), place.clone());
                }
            }
            self.instances.insert(id.clone(), plan.clone());
        }
        self
    }
}

fn instance_plan(
    config: &NodeConfig,
    name: &ServiceName,
    service: &Service,
    id: &InstanceId,
    running: &BTreeSet<&ServiceName>,
) -> InstancePlan {
    let supervisor = &config.supervisor;
    let restart = RestartRules {
        policy: service.restart_policy,
        max_restarts: service.max_restarts,
        window: supervisor.restart_window,
        backoff_initial: supervisor.backoff_initial,
        backoff_max: match supervisor.backoff {
            Backoff::Exponential => supervisor.backoff_max,
            Backoff::Constant => supervisor.backoff_initial,
        },
        stable_after: supervisor.stable_after,
    };
    let needs = service.depends_on.iter().filter(|need| running.contains(need));
    let follows = service.restart_with.iter().filter(|other| running.contains(other));
    let rules = Rules {
        needs: needs.cloned().collect(),
        restart_with: follows.cloned().collect(),
        readiness: service.readiness,
        restart,
        start_timeout: service.start_timeout,
        stop_timeout: service.stop_timeout,
        drain: service.drain,
        watchdog: service.watchdog,
        unhealthy_threshold: config.health_checks.unhealthy_threshold,
    };
    InstancePlan {
        rules,
        launch: launch_plan(config, name, service, id),
        socket: socket_path(&config.node.runtime_dir, &id.to_string()),
        limits: limit_layers(config, service),
        log_rate: service.log_rate,
        log_burst: service.log_burst,
    }
}

fn limit_layers(config: &NodeConfig, service: &Service) -> LimitLayers {
    let tier_weight = config.tiers.rules(service.tier).cpu_weight;
    let limits = |resources| GroupLimits::of(resources, tier_weight);
    LimitLayers::new(limits(&service.resources), limits(service.resources_in_force()))
}

fn sockets(
    config: &NodeConfig,
    instances: &BTreeMap<InstanceId, InstancePlan>,
) -> BTreeMap<SocketId, SocketPlace> {
    let mut sockets = BTreeMap::new();
    for id in instances.values().flat_map(|plan| plan.launch.listeners()) {
        if let Some(place) = place(config, id) {
            sockets.insert(id.clone(), place);
        }
    }
    sockets
}
