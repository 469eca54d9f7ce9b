//! Whether the host has the memory and the processors that the limits of the services name. Limits
//! that were written must fit; defaults only give a remark, so that a small host runs them.

use super::exact::exact_size;
use super::model::{NodeConfig, Resources, Service};
use super::problem::{Place, Problem};
use super::report::Report;
use super::sources::HostDefaults;
use super::tree::Table;
use crate::units::{ByteSize, ServiceName};

pub(super) fn check(config: &NodeConfig, tree: &Table, host: &HostDefaults, report: &Report) {
    if let Some(memory) = host.memory
        && memory_is_there(config, memory, tree, report)
    {
        sum_of_memory(config, memory, tree, report);
        sum_that_is_never_reclaimed(config, memory, tree, report);
    }
    if let Some(processors) = host.processors {
        processors_are_there(config, processors, tree, report);
    }
}

fn enabled(config: &NodeConfig) -> impl Iterator<Item = (&ServiceName, &Service)> {
    config.services.iter().filter(|(_, service)| service.enabled)
}

/// No single limit beyond the host.
fn memory_is_there(config: &NodeConfig, host: ByteSize, tree: &Table, report: &Report) -> bool {
    let budget = config.memory_budget.map(|budget| (budget, "resources.memory".to_owned()));
    let limits = enabled(config).flat_map(|(name, service)| {
        let Resources { memory, memory_high, memory_low, memory_min, .. } = service.resources;
        let sizes = [
            ("memory", memory),
            ("memory_high", memory_high),
            ("memory_low", memory_low),
            ("memory_min", memory_min),
        ];
        let key = move |key| format!("services.{name}.resources.{key}");
        sizes.into_iter().filter_map(move |(name, size)| Some((size?, key(name))))
    });
    let mut fits = true;
    for (size, key) in budget.into_iter().chain(limits).filter(|(size, _)| *size > host) {
        if let Some(place) = written(&key, tree) {
            let what = format!("the host has {host} of memory");
            let problem = Problem::new(place, &key, what).value(exact_size(size));
            report.problem(problem.allowed(format!("at most {host}")));
            fits = false;
        }
    }
    fits
}

/// A service's memory over all its instances, and the place where it was written.
struct Share<'a> {
    name: &'a ServiceName,
    each: ByteSize,
    instances: u16,
    all: ByteSize,
    place: Option<&'a Place>,
}

impl Share<'_> {
    fn words(&self) -> String {
        match self.instances {
            1 => format!("{} {}", self.name, self.each),
            many => format!("{} {many} x {}", self.name, self.each),
        }
    }
}

fn sum_of_memory(config: &NodeConfig, host: ByteSize, tree: &Table, report: &Report) {
    let shares: Vec<Share<'_>> = enabled(config)
        .filter_map(|(name, service)| {
            let (each, all) = (service.resources.memory?, service.promised_memory()?);
            let place = written(&format!("services.{name}.resources.memory"), tree);
            Some(Share { name, each, instances: service.instances, all, place })
        })
        .collect();
    let (most, whose) = match config.memory_budget {
        Some(budget) => (budget, format!("resources.memory is {budget}")),
        None => (host, format!("the host has {host}")),
    };
    let sum = |shares: &mut dyn Iterator<Item = &Share<'_>>| {
        ByteSize(shares.fold(0_u64, |sum, share| sum.saturating_add(share.all.0)))
    };
    let of_writer = sum(&mut shares.iter().filter(|share| share.place.is_some()));
    let last =
        shares.iter().filter_map(|share| Some((share.place?, share))).max_by_key(|(p, _)| *p);
    if let Some((place, share)) = last.filter(|_| of_writer > most) {
        let parts: Vec<String> =
            shares.iter().filter(|share| share.place.is_some()).map(Share::words).collect();
        let what = format!(
            "the memory limits that are written come to {of_writer} ({}), and {whose}",
            parts.join(", ")
        );
        let key = format!("services.{}.resources.memory", share.name);
        let problem = Problem::new(place, &key, what).value(exact_size(share.each));
        return report.problem(problem.allowed(format!("at most {most} in all")));
    }
    let all = sum(&mut shares.iter());
    if all > most {
        let what = format!(
            "the memory limits of all services come to {all}, defaults among them, and {whose}: \
             they cannot all be used up"
        );
        report.remark(Problem::new(&Place::Default, "services", what));
    }
}

/// What is never reclaimed has to be there for all at once.
fn sum_that_is_never_reclaimed(config: &NodeConfig, host: ByteSize, tree: &Table, report: &Report) {
    let kept = |service: &Service| {
        let each = service.resources.memory_min?;
        Some(each.0.saturating_mul(u64::from(service.instances)))
    };
    let all = enabled(config).filter_map(|(_, service)| kept(service));
    let sum = ByteSize(all.fold(0, u64::saturating_add));
    let keys = enabled(config).map(|(name, _)| format!("services.{name}.resources.memory_min"));
    let last = keys.filter_map(|key| Some((written(&key, tree)?, key))).max();
    if let Some((place, key)) = last.filter(|_| sum > host) {
        let what = format!("memory_min of all services comes to {sum}, and the host has {host}");
        report.problem(Problem::new(place, &key, what).allowed(format!("at most {host} in all")));
    }
}

fn processors_are_there(config: &NodeConfig, host: u32, tree: &Table, report: &Report) {
    for (name, service) in enabled(config) {
        let key = format!("services.{name}.resources.cpu_cores");
        let beyond = service
            .resources
            .cpu_cores
            .filter(|cores| u64::from(cores.millis()) > u64::from(host) * 1000);
        if let (Some(cores), Some(place)) = (beyond, written(&key, tree)) {
            let what = format!("the host has {host} processors, so that this limits nothing");
            report.remark(Problem::new(place, &key, what).value(cores));
        }
    }
}

fn written<'t>(key: &str, tree: &'t Table) -> Option<&'t Place> {
    tree.written(&key.split('.').collect::<Vec<_>>())
}
