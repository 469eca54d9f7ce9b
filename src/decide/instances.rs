//! All instances, with what is asked of them at every event kept up to date: who names whom, when
//! the next deadline is, how many stand how. An event so costs what it touches and not what there
//! is. Knows no rule of who may start or stop.

use std::collections::{BTreeMap, BTreeSet};

use super::instance::{Instance, Wanted};
use super::phase::{Phase, StopStep};
use crate::units::{InstanceId, ServiceName, Tick};

/// Read like the map from name to instance that it is. What was given out to be changed is touched,
/// and read again by [`Instances::take_touched`]; until then the answers are those of before.
#[derive(Debug, Clone, Default)]
pub(super) struct Instances {
    all: BTreeMap<InstanceId, Indexed>,
    touched: BTreeSet<InstanceId>,
    /// Who names a service in `needs` or in `restart_with`.
    followers: BTreeMap<ServiceName, BTreeSet<InstanceId>>,
    deadlines: BTreeSet<(Tick, InstanceId)>,
    census: Census,
    /// How many instances were looked at, for the tests that bound it.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<usize>,
}

/// How many instances stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Have no process, and none will come by itself.
    pub(super) at_rest: usize,
    /// Are on their way to another phase, whoever else does what.
    pub(super) under_way: usize,
    /// Are under way and not late: a start, a back-off, a stop before its kill.
    pub(super) moving: usize,
    /// Are ready, rest on purpose, or are on the way down that was wanted.
    pub(super) as_wanted: usize,
    /// Are to go and were not told yet.
    pub(super) waiting_to_stop: usize,
}

#[derive(Debug, Clone)]
struct Indexed {
    instance: Instance,
    /// The services that its rules named when the index was told last.
    leaders: Vec<ServiceName>,
    /// Where it stood then; none: the index knows nothing of it.
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    deadline: Option<Tick>,
    standing: Census,
}

impl Instances {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.all.iter().map(|(id, indexed)| (id, &indexed.instance))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &InstanceId> {
        self.all.keys()
    }

    pub(super) fn contains_key(&self, id: &InstanceId) -> bool {
        self.all.contains_key(id)
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.look();
        self.all.get(id).map(|indexed| &indexed.instance)
    }

    /// To be changed: it is touched.
    pub(super) fn get_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        self.look();
        let indexed = self.all.get_mut(id)?;
        if !self.touched.contains(id) {
            self.touched.insert(id.clone());
        }
        Some(&mut indexed.instance)
    }

    /// Takes the place of what was there by that name.
    pub(super) fn insert(&mut self, id: InstanceId, instance: Instance) {
        self.remove(&id);
        self.touched.insert(id.clone());
        self.all.insert(id, Indexed { instance, leaders: Vec::new(), place: None });
    }

    pub(super) fn remove(&mut self, id: &InstanceId) {
        let Some(Indexed { leaders, place, .. }) = self.all.remove(id) else { return };
        self.touched.remove(id);
        self.move_follower(id, &leaders, &[]);
        self.move_place(id, place, None);
    }

    /// The instances of a service, in the order of their numbers.
    pub(super) fn of(
        &self,
        service: &ServiceName,
    ) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        let first = InstanceId::new(service.clone(), 0);
        let last = InstanceId::new(service.clone(), u16::MAX);
        self.all.range(first..=last).map(|(id, indexed)| {
            self.look();
            (id, &indexed.instance)
        })
    }

    /// The instances whose rules name the service, as one they need or restart with.
    pub(super) fn naming(
        &self,
        service: &ServiceName,
    ) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        let names = self.followers.get(service).into_iter().flatten();
        names.filter_map(|id| Some((id, self.get(id)?)))
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Those whose deadline is at or before `now`.
    pub(super) fn due(&self, now: Tick) -> BTreeSet<InstanceId> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        due.map(|(_, id)| id.clone()).collect()
    }

    pub(super) fn census(&self) -> Census {
        self.census
    }

    /// Those that were touched since the last time; from here on the answers are about what they
    /// have become.
    pub(super) fn take_touched(&mut self) -> BTreeSet<InstanceId> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            let Some(indexed) = self.all.get_mut(id) else { continue };
            let place = Some(Place::of(&indexed.instance));
            let before = std::mem::replace(&mut indexed.place, place);
            if !indexed.leaders_are_right() {
                let now: Vec<ServiceName> = named_by(&indexed.instance).cloned().collect();
                let before = std::mem::replace(&mut indexed.leaders, now.clone());
                self.move_follower(id, &before, &now);
            }
            self.move_place(id, before, place);
        }
        touched
    }

    fn move_follower(&mut self, id: &InstanceId, before: &[ServiceName], now: &[ServiceName]) {
        for leader in before {
            if let Some(followers) = self.followers.get_mut(leader) {
                followers.remove(id);
                if followers.is_empty() {
                    self.followers.remove(leader);
                }
            }
        }
        for leader in now {
            self.followers.entry(leader.clone()).or_default().insert(id.clone());
        }
    }

    fn move_place(&mut self, id: &InstanceId, before: Option<Place>, now: Option<Place>) {
        if let Some(Place { deadline, standing }) = before {
            if let Some(deadline) = deadline {
                self.deadlines.remove(&(deadline, id.clone()));
            }
            self.census = self.census.without(standing);
        }
        if let Some(Place { deadline, standing }) = now {
            self.deadlines.extend(deadline.map(|deadline| (deadline, id.clone())));
            self.census = self.census.with(standing);
        }
    }

    /// The first instance of which the index says what is not so, in words.
    pub(super) fn disagreement(&self) -> Option<String> {
        let is_right = |indexed: &Indexed| {
            indexed.leaders_are_right() && indexed.place == Some(Place::of(&indexed.instance))
        };
        let wrong = self.all.iter().find(|(_, indexed)| !is_right(indexed));
        let touched = self.touched.first().map(|id| format!("{id} was changed and not looked at"));
        touched.or_else(|| wrong.map(|(id, _)| format!("the index is wrong about {id}")))
    }

    fn look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }
}

/// Equal when the instances are: all else follows from them.
impl PartialEq for Instances {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// The services that its rules name.
fn named_by(instance: &Instance) -> impl Iterator<Item = &ServiceName> {
    instance.rules.needs.iter().chain(&instance.rules.restart_with)
}

impl Indexed {
    fn leaders_are_right(&self) -> bool {
        self.leaders.iter().eq(named_by(&self.instance))
    }
}

impl Place {
    fn of(instance: &Instance) -> Self {
        Self { deadline: instance.deadline(), standing: Census::of(instance) }
    }
}

impl Census {
    fn of(instance: &Instance) -> Self {
        let is_down = instance.wanted == Wanted::Down;
        let (under_way, moving, serves) = match &instance.phase {
            Phase::Stopped | Phase::Ready { .. } => (false, false, true),
            Phase::Waiting | Phase::Failed(_) => (false, false, is_down),
            Phase::Starting { .. } | Phase::Backoff { .. } => (true, true, is_down),
            Phase::Stopping { stop_step, .. } => (true, *stop_step < StopStep::Kill, is_down),
            Phase::Clearing { .. } => (true, false, is_down),
        };
        let lives = matches!(instance.phase, Phase::Starting { .. } | Phase::Ready { .. });
        Self {
            at_rest: instance.phase.is_at_rest().into(),
            under_way: under_way.into(),
            moving: moving.into(),
            as_wanted: serves.into(),
            waiting_to_stop: (is_down && lives).into(),
        }
    }

    fn with(self, other: Self) -> Self {
        self.each(other, usize::saturating_add)
    }

    fn without(self, other: Self) -> Self {
        self.each(other, usize::saturating_sub)
    }

    fn each(self, other: Self, of: fn(usize, usize) -> usize) -> Self {
        Self {
            at_rest: of(self.at_rest, other.at_rest),
            under_way: of(self.under_way, other.under_way),
            moving: of(self.moving, other.moving),
            as_wanted: of(self.as_wanted, other.as_wanted),
            waiting_to_stop: of(self.waiting_to_stop, other.waiting_to_stop),
        }
    }
}
