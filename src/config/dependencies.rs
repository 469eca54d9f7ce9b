//! Who is started after whom, and who is restarted with whom: every service that is named exists,
//! is enabled, and nothing leads in circles.

use std::collections::{BTreeMap, BTreeSet};

use super::form::Form;
use super::model::Service;
use super::problem::{Place, Problem, nearest};
use super::report::{Report, path};
use super::section::Section;
use super::tree::{Table, Value};
use super::values::{Wrong, text};
use crate::catalog::{Builtin, COMING};
use crate::units::{NAME_MAX, ServiceName};

/// The regular expression of a service's name.
pub(super) const NAME_PATTERN: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

/// How one service may follow another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    DependsOn,
    RestartWith,
}

impl Relation {
    fn key(self) -> &'static str {
        match self {
            Self::DependsOn => "depends_on",
            Self::RestartWith => "restart_with",
        }
    }
}

/// A dependency as it was asked for, before anybody knows whether it can be kept.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    service: ServiceName,
    relation: Relation,
    on: String,
    /// None: the catalog asks for it.
    place: Option<Place>,
}

impl Wish {
    pub(super) fn of_catalog(service: &ServiceName, on: Builtin) -> Self {
        let (service, on) = (service.clone(), on.entry().name.to_owned());
        Self { service, relation: Relation::DependsOn, on, place: None }
    }

    fn key(&self) -> String {
        format!("services.{}.{}", self.service, self.relation.key())
    }

    fn problem(&self, place: &Place, what: impl Into<String>) -> Problem {
        Problem::new(place, &self.key(), what).value(format_args!("{:?}", self.on))
    }
}

type Services = BTreeMap<ServiceName, Service>;

/// The value of the key; nothing where it is absent or was refused.
pub(super) fn written(
    section: &mut Section<'_>,
    service: &ServiceName,
    relation: Relation,
) -> Option<Vec<Wish>> {
    const ALLOWED: &str = "a list of names of services, such as [\"storage\"]";
    let key = relation.key();
    let node = section.node(key, Form::list(Form::text(NAME_PATTERN, NAME_MAX)))?;
    let Value::List(items) = &node.value else {
        section.refuse(key, node, Wrong::kind(&node.value, ALLOWED));
        return None;
    };
    let mut wishes: Vec<Wish> = Vec::new();
    for item in items {
        match text(&item.value) {
            Ok(on) if wishes.iter().any(|wish| wish.on == on) => {
                let wrong = Wrong::new("the service is named twice", "each name once");
                section.refuse(key, item, wrong);
            }
            Ok(on) => {
                let place = Some(item.place.clone());
                wishes.push(Wish { service: service.clone(), relation, on, place });
            }
            Err(_) => section.refuse(key, item, Wrong::kind(&item.value, ALLOWED)),
        }
    }
    Some(wishes)
}

/// Turns the wishes into `depends_on` and `restart_with` where they can be kept, and reports the
/// others. `sections`: all that was written below `services`, also what could not be read.
pub(super) fn settle(
    services: &mut Services,
    wishes: Vec<Wish>,
    sections: &Table,
    report: &Report,
) {
    let mut kept = Vec::new();
    for wish in wishes {
        let name = wish.on.parse().ok().filter(|name| services.contains_key(name));
        let Some(name) = name else {
            if sections.exact(&wish.on).is_none() || COMING.contains(&wish.on.as_str()) {
                unknown(&wish, services, report);
            }
            continue;
        };
        if name == wish.service {
            let place = wish.place.as_ref().unwrap_or(&Place::Default);
            let what = match wish.relation {
                Relation::DependsOn => "a service cannot depend on itself",
                Relation::RestartWith => "a service cannot restart with itself",
            };
            let problem = wish.problem(place, what);
            report.problem(problem.allowed("the names of other services"));
        } else if is_enabled(services, &wish.service) && !is_enabled(services, &name) {
            let place = wish.place.clone().unwrap_or_else(|| switch(&name, sections));
            let what = match wish.relation {
                Relation::DependsOn => {
                    format!("{name} is disabled, so that {} starts without it", wish.service)
                }
                Relation::RestartWith => format!("{name} is disabled and never restarts"),
            };
            report.remark(wish.problem(&place, what));
        } else {
            kept.push((wish, name));
        }
    }
    report_cycles(&kept, services, report);
    for (wish, name) in kept {
        if let Some(service) = services.get_mut(&wish.service) {
            match wish.relation {
                Relation::DependsOn => service.depends_on.push(name),
                Relation::RestartWith => service.restart_with.push(name),
            }
        }
    }
}

fn is_enabled(services: &Services, name: &ServiceName) -> bool {
    services.get(name).is_some_and(|service| service.enabled)
}

/// Where a service was disabled.
fn switch(name: &ServiceName, sections: &Table) -> Place {
    sections.place(&[name.as_str(), "enabled"])
}

fn unknown(wish: &Wish, services: &Services, report: &Report) {
    let place = wish.place.as_ref().unwrap_or(&Place::Default);
    if COMING.contains(&wish.on.as_str()) {
        let problem = wish.problem(place, "this service is not in this version");
        return report.problem(problem.allowed("the names of other services"));
    }
    let others =
        || services.keys().map(ServiceName::as_str).filter(|n| *n != wish.service.as_str());
    let near = nearest(&wish.on, others()).map(|near| format!("{near:?}"));
    let names = others().collect::<Vec<_>>().join(", ");
    report.problem(wish.problem(place, "there is no such service").allowed(names).meant(near));
}

/// Reports each circle of enabled services once, at the first of its dependencies that was written.
fn report_cycles(kept: &[(Wish, ServiceName)], services: &Services, report: &Report) {
    let enabled = |name: &ServiceName| is_enabled(services, name);
    let mut edges: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    for (wish, on) in kept.iter().filter(|(wish, on)| enabled(&wish.service) && enabled(on)) {
        let after = edges.entry(&wish.service).or_default();
        if !after.contains(&on) {
            after.push(on);
        }
    }
    for cycle in cycles(&edges) {
        let next = |index: usize| cycle[(index + 1) % cycle.len()];
        let names: Vec<&str> =
            cycle.iter().chain(cycle.first()).map(|name| name.as_str()).collect();
        let on_it = |(wish, on): &&(Wish, ServiceName)| {
            (0..cycle.len()).any(|index| *cycle[index] == wish.service && next(index) == on)
        };
        let written = kept.iter().filter(on_it).map(|(wish, _)| wish);
        let written = written.filter_map(|wish| Some((wish.place.clone()?, wish.key())));
        let nowhere = || (Place::Default, path("services", &format!("{}.depends_on", cycle[0])));
        let (place, key) = written.min().unwrap_or_else(nowhere);
        let what = format!("the services wait for each other: {}", names.join(" -> "));
        let problem = Problem::new(&place, &key, what);
        report.problem(problem.allowed("dependencies without a circle"));
    }
}

/// Circles that a walk over all edges comes upon; none is told twice, each begins with its least
/// name. At most 1024 services, so that the depth of the walk is bounded.
fn cycles<'n>(
    edges: &BTreeMap<&'n ServiceName, Vec<&'n ServiceName>>,
) -> Vec<Vec<&'n ServiceName>> {
    let mut walk = Walk { edges, path: Vec::new(), done: BTreeSet::new(), found: BTreeSet::new() };
    for start in edges.keys() {
        walk.visit(start);
    }
    walk.found.into_iter().collect()
}

struct Walk<'w, 'n> {
    edges: &'w BTreeMap<&'n ServiceName, Vec<&'n ServiceName>>,
    path: Vec<&'n ServiceName>,
    done: BTreeSet<&'n ServiceName>,
    found: BTreeSet<Vec<&'n ServiceName>>,
}

impl<'n> Walk<'_, 'n> {
    fn visit(&mut self, name: &'n ServiceName) {
        if let Some(start) = self.path.iter().position(|before| *before == name) {
            let mut cycle = self.path[start..].to_vec();
            let least = (0..cycle.len()).min_by_key(|index| cycle[*index]).unwrap_or(0);
            cycle.rotate_left(least);
            self.found.insert(cycle);
            return;
        }
        if self.done.contains(name) {
            return;
        }
        self.path.push(name);
        for next in self.edges.get(name).into_iter().flatten() {
            self.visit(next);
        }
        self.path.pop();
        self.done.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(edges: &[(&str, &str)]) -> Vec<String> {
        let names: Vec<(ServiceName, ServiceName)> =
            edges.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
        let mut graph: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
        for (from, to) in &names {
            graph.entry(from).or_default().push(to);
        }
        let show = |cycle: Vec<&ServiceName>| cycle.iter().map(|n| n.as_str()).collect::<String>();
        cycles(&graph).into_iter().map(show).collect()
    }

    #[test]
    fn every_separate_circle_is_found_once_and_a_diamond_is_none() {
        assert_eq!(
            found(&[("c", "a"), ("a", "b"), ("b", "c"), ("x", "y"), ("y", "x")]),
            ["abc", "xy"]
        );
        assert!(found(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]).is_empty());
    }
}
