//! Which descriptors the service manager's fd store is to keep for the next orchestrator, and which
//! of them have a place there. Gives the changes that follow; sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::fd_budget::{Claim, Room, first_refused};
use super::fd_names::{FdName, RunFd};

/// All descriptors to be kept, except for those with a reserved place (checkpoints, the history,
/// the control socket). Those without a place are held here until there is room.
#[derive(Debug)]
pub(super) struct ManagerFdStore {
    room: Room,
    claims: BTreeMap<Claim, Claimed>,
    used: Room,
    /// The first claim without a place; all claims after it have none either.
    first_refused: Option<Claim>,
}

#[derive(Debug, Default)]
struct Claimed {
    room: Room,
    fds: BTreeMap<FdName, Vec<Held>>,
}

#[derive(Debug)]
struct Held {
    /// `None`: the place is taken for a descriptor that will come under this name.
    fd: Option<OwnedFd>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The service manager has it, or it was sent.
    Stored,
    Here,
}

/// What is to be sent to the service manager, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Store all descriptors of this name that are only in this process.
    Store(FdName),
    Remove(FdName),
}

/// How much has no place in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shortage {
    /// Descriptors that are to be kept, and how many of them have a place.
    pub(super) wanted: usize,
    pub(super) placed: usize,
    pub(super) listeners: usize,
    pub(super) runs: usize,
    /// Descriptors that services stored.
    pub(super) stored: usize,
    /// Runs whose logs have no spool in the store.
    pub(super) spooled_runs: usize,
}

/// `None`: the name has a reserved place, or is never stored.
fn claim_of(name: &FdName) -> Option<Claim> {
    match name {
        FdName::Checkpoint(..) | FdName::History | FdName::Control | FdName::NotStored => None,
        FdName::Listener(number) => Some(Claim::Listener(*number)),
        FdName::Stored(id, name) => Some(Claim::Stored(id.clone(), name.clone())),
        FdName::Run(part, _, run) => match part {
            RunFd::StdoutSpool | RunFd::StderrSpool => Some(Claim::Spools(*run)),
            RunFd::StdoutRest | RunFd::StderrRest => None,
            RunFd::Pidfd | RunFd::Stdout | RunFd::Stderr | RunFd::Notify | RunFd::StatusBroker => {
                Some(Claim::Run(*run))
            }
        },
    }
}

impl ManagerFdStore {
    pub(super) fn new(room: Room) -> Self {
        let (claims, used) = (BTreeMap::new(), Room::default());
        Self { room, claims, used, first_refused: None }
    }

    /// Adds what a former orchestrator held: already stored, or only in its process.
    pub(super) fn inherit(
        &mut self,
        fds: impl Iterator<Item = (FdName, OwnedFd, Place)>,
    ) -> Vec<Change> {
        let mut touched = BTreeSet::new();
        for (name, fd, place) in fds {
            touched.extend(self.hold(name, Held { fd: Some(fd), place }));
        }
        self.settle(touched)
    }

    /// Adds descriptors to be kept. `None` takes the place for one that will come under this name.
    pub(super) fn add(
        &mut self,
        fds: impl Iterator<Item = (FdName, Option<OwnedFd>)>,
    ) -> Vec<Change> {
        let mut touched = BTreeSet::new();
        for (name, fd) in fds {
            touched.extend(self.hold(name, Held { fd, place: Place::Here }));
        }
        self.settle(touched)
    }

    fn hold(&mut self, name: FdName, held: Held) -> Option<Claim> {
        let claim = claim_of(&name)?;
        let room = Room::of(&name.to_string());
        let claimed = self.claims.entry(claim.clone()).or_default();
        let all = claimed.fds.entry(name).or_default();
        match all.iter_mut().find(|known| known.fd.is_none()) {
            Some(to_come) => *to_come = held,
            None => {
                all.push(held);
                claimed.room += room;
                self.used += room;
            }
        }
        Some(claim)
    }

    /// Removes all descriptors of these names.
    pub(super) fn remove(&mut self, names: impl Iterator<Item = FdName>) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in names {
            let Some(claim) = claim_of(&name) else { continue };
            let Some(claimed) = self.claims.get_mut(&claim) else { continue };
            let Some(all) = claimed.fds.remove(&name) else { continue };
            for _ in &all {
                let room = Room::of(&name.to_string());
                claimed.room -= room;
                self.used -= room;
            }
            if claimed.fds.is_empty() {
                self.claims.remove(&claim);
            }
            if all.iter().any(|held| held.place == Place::Stored) {
                changes.push(Change::Remove(name));
            }
        }
        changes.extend(self.settle(BTreeSet::new()));
        changes
    }

    /// Decides anew which claims have a place. Removals come before anything that is stored.
    fn settle(&mut self, touched: BTreeSet<Claim>) -> Vec<Change> {
        let refused = self.decide();
        let former = std::mem::replace(&mut self.first_refused, refused);
        let mut losers = touched.clone();
        losers.extend(self.between(self.first_refused.as_ref(), former.as_ref()));
        let mut winners = touched;
        winners.extend(self.between(former.as_ref(), self.first_refused.as_ref()));
        let mut changes = Vec::new();
        for claim in losers.iter().filter(|claim| !self.has_place(claim)) {
            changes.extend(self.names_with(claim, Place::Stored).map(Change::Remove));
        }
        for change in &changes {
            if let Change::Remove(name) = change {
                self.mark(name, Place::Here);
            }
        }
        for claim in winners.iter().filter(|claim| self.has_place(claim)) {
            changes.extend(self.names_with(claim, Place::Here).map(Change::Store));
        }
        changes
    }

    fn decide(&self) -> Option<Claim> {
        if self.used.fits(self.room) {
            return None;
        }
        let claims = self.claims.iter().map(|(claim, claimed)| (claim, claimed.room));
        first_refused(self.room, claims).cloned()
    }

    /// The claims from `first` up to `end`, without `end`. `first` is `None`: no claims; `end` is
    /// `None`: all after `first`.
    fn between(&self, first: Option<&Claim>, end: Option<&Claim>) -> Vec<Claim> {
        let Some(first) = first else { return Vec::new() };
        if end.is_some_and(|end| end <= first) {
            return Vec::new();
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.claims.range((Bound::Included(first), end)).map(|(claim, _)| claim.clone()).collect()
    }

    fn has_place(&self, claim: &Claim) -> bool {
        self.first_refused.as_ref().is_none_or(|refused| claim < refused)
    }

    /// The names of the claim under which at least one descriptor is at `place`.
    fn names_with(&self, claim: &Claim, place: Place) -> impl Iterator<Item = FdName> {
        let fds = self.claims.get(claim).into_iter().flat_map(|claimed| &claimed.fds);
        let is_there = move |held: &Held| held.fd.is_some() && held.place == place;
        fds.filter(move |(_, all)| all.iter().any(is_there)).map(|(name, _)| name.clone())
    }

    fn held(&mut self, name: &FdName) -> impl Iterator<Item = &mut Held> {
        let claimed = claim_of(name).and_then(|claim| self.claims.get_mut(&claim));
        claimed.and_then(|claimed| claimed.fds.get_mut(name)).into_iter().flatten()
    }

    fn mark(&mut self, name: &FdName, place: Place) {
        self.held(name).for_each(|held| held.place = place);
    }

    /// Passes the descriptors of a `Change::Store` to `send`, which says where each is from then
    /// on.
    pub(super) fn send(&mut self, name: &FdName, mut send: impl FnMut(BorrowedFd<'_>) -> Place) {
        for held in self.held(name).filter(|held| held.place == Place::Here) {
            if let Some(fd) = &held.fd {
                held.place = send(fd.as_fd());
            }
        }
    }

    /// What has a place and is not stored because sending it failed.
    pub(super) fn unsent(&self) -> Vec<Change> {
        let placed = self.claims.keys().take_while(|claim| self.has_place(claim));
        placed.flat_map(|claim| self.names_with(claim, Place::Here)).map(Change::Store).collect()
    }

    /// The names of descriptors that are only in this process, for whatever reason.
    pub(super) fn not_stored(&self) -> impl Iterator<Item = FdName> {
        self.claims.keys().flat_map(|claim| self.names_with(claim, Place::Here))
    }

    pub(super) fn is_short(&self) -> bool {
        self.first_refused.is_some()
    }

    /// `None`: every claim has a place.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        let first = self.first_refused.as_ref()?;
        let mut shortage = Shortage { wanted: self.used.places, ..Shortage::default() };
        shortage.placed = shortage.wanted;
        for (claim, claimed) in self.claims.range(first..) {
            let places = claimed.room.places;
            shortage.placed -= places;
            match claim {
                Claim::Listener(_) => shortage.listeners += places,
                Claim::Run(_) => shortage.runs += 1,
                Claim::Stored(..) => shortage.stored += places,
                Claim::Spools(_) => shortage.spooled_runs += 1,
            }
        }
        Some(shortage)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::units::{InstanceId, RunId};

    fn id(number: u64) -> InstanceId {
        format!("web-{number}").parse().unwrap()
    }

    fn run_fd(part: RunFd, number: u64) -> FdName {
        FdName::Run(part, id(number), RunId(number))
    }

    fn fd() -> Option<OwnedFd> {
        Some(File::open("/dev/null").unwrap().into())
    }

    const RUN: [RunFd; 5] =
        [RunFd::Stdout, RunFd::Stderr, RunFd::StdoutSpool, RunFd::StderrSpool, RunFd::Pidfd];

    /// A service manager that does what it is told, and never takes more than there is room for.
    struct Kept {
        store: ManagerFdStore,
        places: usize,
        has: BTreeMap<FdName, usize>,
    }

    impl Kept {
        fn with(places: usize) -> Self {
            let room = Room { places, name_bytes: usize::MAX };
            Self { store: ManagerFdStore::new(room), places, has: BTreeMap::new() }
        }

        fn obey(&mut self, changes: Vec<Change>) {
            for change in changes {
                match change {
                    Change::Store(name) => {
                        let Self { store, has, .. } = self;
                        store.send(&name, |_| {
                            *has.entry(name.clone()).or_default() += 1;
                            Place::Stored
                        });
                        let count: usize = self.has.values().sum();
                        assert!(count <= self.places, "{count} of {}", self.places);
                    }
                    Change::Remove(name) => {
                        assert!(self.has.remove(&name).is_some(), "{name} is not there");
                    }
                }
            }
        }

        fn add(&mut self, fds: impl IntoIterator<Item = (FdName, Option<OwnedFd>)>) {
            let changes = self.store.add(fds.into_iter());
            self.obey(changes);
        }

        /// As a spawn does it: the pidfd comes last.
        fn add_run(&mut self, number: u64) {
            self.add(RUN.map(|part| {
                (run_fd(part, number), if part == RunFd::Pidfd { None } else { fd() })
            }));
            self.add([(run_fd(RunFd::Pidfd, number), fd())]);
        }

        fn remove(&mut self, names: impl IntoIterator<Item = FdName>) {
            let changes = self.store.remove(names.into_iter());
            self.obey(changes);
        }

        fn remove_run(&mut self, number: u64) {
            self.remove(RUN.map(|part| run_fd(part, number)));
        }

        /// The runs that the next orchestrator could adopt.
        fn adoptable(&self) -> Vec<u64> {
            let whole = [RunFd::Stdout, RunFd::Stderr, RunFd::Pidfd];
            let all =
                |number: &u64| whole.iter().all(|p| self.has.contains_key(&run_fd(*p, *number)));
            (0..100).filter(all).collect()
        }
    }

    #[test]
    fn what_has_no_place_gets_one_when_others_leave() {
        let mut manager = Kept::with(12);
        manager.add([(FdName::Listener(0), fd())]);
        (0..4).for_each(|number| manager.add_run(number));
        assert_eq!(manager.adoptable(), [0, 1, 2]);
        let shortage = manager.store.shortage().unwrap();
        assert_eq!((shortage.wanted, shortage.placed), (21, 10));
        assert_eq!((shortage.listeners, shortage.runs, shortage.spooled_runs), (0, 1, 4));
        manager.remove_run(1);
        assert_eq!(manager.adoptable(), [0, 2, 3]);
        assert_eq!(manager.store.shortage().unwrap().spooled_runs, 2, "one spool has a place");
        manager.remove_run(0);
        assert_eq!(manager.store.shortage(), None);
        assert!(manager.has.contains_key(&run_fd(RunFd::StdoutSpool, 3)));
        manager.remove([2, 3].into_iter().flat_map(|number| RUN.map(|part| run_fd(part, number))));
        manager.remove([FdName::Listener(0)]);
        assert!(manager.has.is_empty() && manager.store.claims.is_empty());
        assert_eq!(manager.store.used, Room::default());
    }

    #[test]
    fn a_listener_takes_the_place_of_a_run_and_a_run_that_of_what_was_stored() {
        let mut manager = Kept::with(6);
        let stored = |name: &str| FdName::Stored(id(9), name.to_owned());
        manager.add([(stored("a"), fd()), (stored("a"), fd()), (stored("b"), fd())]);
        manager.add_run(1);
        assert_eq!(manager.adoptable(), [1]);
        assert_eq!(manager.has.get(&stored("a")), Some(&2));
        manager.add_run(2);
        assert_eq!(manager.adoptable(), [1, 2]);
        assert!(!manager.has.contains_key(&stored("a")));
        manager.add([(FdName::Listener(0), fd())]);
        assert_eq!(manager.adoptable(), [1]);
        assert!(manager.has.contains_key(&FdName::Listener(0)));
        // Nothing is said about what has no place.
        let shortage = manager.store.shortage().unwrap();
        assert_eq!((shortage.runs, shortage.stored, shortage.spooled_runs), (1, 3, 2));
        manager.remove([stored("a"), stored("b")]);
        assert_eq!(manager.store.shortage().unwrap().stored, 0);
    }

    /// Whatever comes and goes in whatever order: as many are stored as if all had come at once.
    #[test]
    fn what_is_stored_depends_on_what_is_there_and_not_on_how_it_came() {
        let mut chance = 88_172_645_463_325_252_u64;
        let mut below = |bound: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % bound
        };
        for places in [0, 1, 5, 17, 40, 200] {
            let mut manager = Kept::with(places);
            let mut there = BTreeSet::new();
            for _ in 0..400 {
                let number = below(20);
                if there.remove(&number) {
                    manager.remove_run(number);
                } else {
                    manager.add_run(number);
                    there.insert(number);
                }
                let mut afresh = Kept::with(places);
                there.iter().for_each(|number| afresh.add_run(*number));
                assert_eq!(manager.has, afresh.has, "{places} places, {there:?}");
            }
        }
    }

    #[test]
    fn what_could_not_be_sent_is_known_and_sent_again() {
        let mut store = ManagerFdStore::new(Room { places: 9, name_bytes: usize::MAX });
        let changes = store.add([(FdName::Listener(1), fd())].into_iter());
        assert_eq!(changes, [Change::Store(FdName::Listener(1))]);
        store.send(&FdName::Listener(1), |_| Place::Here);
        assert_eq!(store.unsent(), changes);
        assert_eq!(store.not_stored().collect::<Vec<_>>(), [FdName::Listener(1)]);
        store.send(&FdName::Listener(1), |_| Place::Stored);
        assert!(store.unsent().is_empty());
        // What never came to the manager need not be taken from it.
        store.add([(FdName::Listener(2), fd())].into_iter());
        assert!(store.remove([FdName::Listener(2)].into_iter()).is_empty());
    }

    #[test]
    fn an_inheritance_that_is_too_large_by_now_is_cut_down() {
        let all = |place| {
            (0..4).flat_map(move |number| {
                RUN.map(move |part| (run_fd(part, number), fd().unwrap(), place))
            })
        };
        let mut store = ManagerFdStore::new(Room { places: 8, name_bytes: usize::MAX });
        let changes = store.inherit(all(Place::Stored));
        assert!(changes.iter().all(|change| matches!(change, Change::Remove(_))));
        assert_eq!(changes.len(), 8 + 2 * 3, "four pairs of spools, two runs");
        let mut store = ManagerFdStore::new(Room { places: 100, name_bytes: usize::MAX });
        assert_eq!(store.inherit(all(Place::Stored)), []);
        let mut store = ManagerFdStore::new(Room { places: 100, name_bytes: usize::MAX });
        assert_eq!(store.inherit(all(Place::Here)).len(), 20, "all are sent");
    }
}
