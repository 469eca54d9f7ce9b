//! Random services for a simulated world.

use std::time::Duration;

use blackhole_node::decide::Rng;
use blackhole_node::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use blackhole_node::units::{InstanceId, ServiceName};

/// Two to seven services with random rules; each needs some of those before it.
pub fn services(rng: &mut Rng) -> Vec<(InstanceId, Rules)> {
    let names = ["identity", "storage", "ledger", "gateway", "web", "queue", "cron"];
    let count = usize::try_from(2 + rng.below(6)).unwrap_or(2);
    let mut all = Vec::new();
    for (position, name) in names[..count].iter().enumerate() {
        let service: ServiceName = name.parse().expect("a name from the list above");
        let earlier = names[..position].iter();
        let needs: Vec<ServiceName> = earlier
            .filter(|_| rng.below(3) == 0)
            .map(|name| name.parse().expect("a name from the list above"))
            .collect();
        let leads = |needs: &[ServiceName], rng: &mut Rng| {
            let mut leads = needs.to_vec();
            leads.retain(|_| rng.below(3) == 0);
            leads
        };
        let restart_with = leads(&needs, rng);
        let rules = Rules { restart_with, ..rules(needs, rng) };
        for index in 0..=u16::try_from(rng.below(3)).unwrap_or(0) {
            all.push((InstanceId::new(service.clone(), index), rules.clone()));
        }
    }
    all
}

fn rules(needs: Vec<ServiceName>, rng: &mut Rng) -> Rules {
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
    Rules {
        needs,
        restart_with: Vec::new(),
        readiness,
        restart,
        start_timeout: Duration::from_millis(1_000 + rng.below(5_000)),
        stop_timeout: Duration::from_millis(500 + rng.below(5_000)),
        drain: Duration::from_millis(rng.below(3) * 400),
        watchdog: None,
        unhealthy_threshold: 1 + u32::try_from(rng.below(3)).unwrap_or(1),
    }
}
