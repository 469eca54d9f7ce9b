//! Random services for a simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackhole_node::decide::Rng;
use blackhole_node::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use blackhole_node::units::{InstanceId, ServiceName};

pub const SERVICES: [&str; 7] =
    ["identity", "storage", "ledger", "gateway", "web", "queue", "cron"];

/// Two to seven services with random rules; each needs some of those before it.
pub fn services(rng: &mut Rng) -> BTreeMap<InstanceId, Rules> {
    let count = usize::try_from(2 + rng.below(6)).unwrap_or(2);
    let mut all = BTreeMap::new();
    for name in &SERVICES[..count] {
        let service: ServiceName = name.parse().expect("a name from the list above");
        let rules = rules(Vec::new(), rng);
        for index in 0..=u16::try_from(rng.below(3)).unwrap_or(0) {
            all.insert(InstanceId::new(service.clone(), index), rules.clone());
        }
    }
    turn_needs(&mut all, rng);
    all
}

/// Gives every service other needs, so that none needs itself over whatever others.
pub fn turn_needs(all: &mut BTreeMap<InstanceId, Rules>, rng: &mut Rng) {
    let mut open: BTreeSet<ServiceName> = all.keys().map(|id| id.service.clone()).collect();
    let mut earlier: Vec<ServiceName> = Vec::new();
    while !open.is_empty() {
        let names: Vec<ServiceName> = open.iter().cloned().collect();
        let service = one_of(&names, rng);
        open.remove(&service);
        let some = |of: &[ServiceName], rng: &mut Rng| {
            let mut some = of.to_vec();
            some.retain(|_| rng.below(3) == 0);
            some
        };
        let needs = some(&earlier, rng);
        let restart_with = some(&needs, rng);
        for (_, rules) in all.iter_mut().filter(|(id, _)| id.service == service) {
            rules.needs.clone_from(&needs);
            rules.restart_with.clone_from(&restart_with);
        }
        earlier.push(service);
    }
}

pub fn rules(needs: Vec<ServiceName>, rng: &mut Rng) -> Rules {
    let readiness = match rng.below(4) {
        0 => Readiness::Started,
        1 => Readiness::Notify,
        2 => Readiness::Port(9000),
        _ => Readiness::Grpc,
    };
    let policy = match rng.below(4) {
        0 => RestartPolicy::OnFailure,
        1 => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    };
    let restart = RestartRules {
        policy,
        max_restarts: u32::try_from(rng.below(7)).unwrap_or(5),
        window: Duration::from_secs(1 + rng.below(300)),
        backoff_initial: Duration::from_millis(100 + rng.below(1000)),
        backoff_max: Duration::from_secs(2 + rng.below(60)),
        stable_after: Duration::from_secs(rng.below(60)),
    };
    let mut rules = Rules {
        needs,
        restart_with: Vec::new(),
        readiness,
        restart,
        start_timeout: Duration::ZERO,
        stop_timeout: Duration::ZERO,
        drain: Duration::ZERO,
        watchdog: None,
        unhealthy_threshold: 1,
    };
    change(&mut rules, rng);
    rules
}

/// Gives it other time-outs and thresholds.
pub fn change(rules: &mut Rules, rng: &mut Rng) {
    rules.restart.max_restarts = u32::try_from(rng.below(7)).unwrap_or(5);
    rules.start_timeout = Duration::from_millis(1_000 + rng.below(5_000));
    rules.stop_timeout = Duration::from_millis(500 + rng.below(5_000));
    rules.drain = Duration::from_millis(rng.below(3) * 400);
    rules.watchdog = (rng.below(3) == 0).then(|| Duration::from_secs(4 + rng.below(60)));
    rules.unhealthy_threshold = 1 + u32::try_from(rng.below(3)).unwrap_or(1);
}

pub fn one_of<T: Clone>(all: &[T], rng: &mut Rng) -> T {
    let count = u64::try_from(all.len()).unwrap_or(1);
    all[usize::try_from(rng.below(count)).unwrap_or(0)].clone()
}
