//! Which descriptors get a place in the service manager's fd store when there is not one for each.
//! A pure function of the claims; holds no descriptor and sends nothing (docs/decisions/0019).

use std::ops::{AddAssign, SubAssign};

use crate::units::{InstanceId, RunId};

/// `FileDescriptorStoreMax=` of `systemd/blackhole.service`; a test holds the two together. Used
/// where the service manager does not tell its limit.
const UNIT_PLACES: usize = 4096;
/// Four for checkpoints (two slots in two forms), one for the history, one for the control socket.
const RESERVED_PLACES: usize = 6;
/// The most bytes of all names together with their separators. The service manager passes the names
/// in one variable (`LISTEN_FDNAMES=`), and Linux refuses to execute a program with a longer one
/// than 128 KiB (`MAX_ARG_STRLEN`, execve(2)): an orchestrator that stored more could not be
/// started again. The rest of the 128 KiB is for the variable's own name and for the reserved
/// places.
const NAMES_MOST: usize = (128 << 10) - 256;

/// A set of descriptors that gets its places as a whole or not at all. The order is that of
/// importance: the last claim loses its places first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// A listener: clients wait in its backlog.
    Listener(u64),
    /// The descriptors that the adoption of a run needs. Of two runs the one that began first is
    /// more important.
    Run(RunId),
    /// Descriptors that a service stored under this name (`FDSTORE=1`).
    Stored(InstanceId, String),
    /// The spools of a run's logs: lines that were read and are not delivered yet.
    Spools(RunId),
}

/// An amount of the fd store: places, and bytes of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Room {
    pub(super) places: usize,
    pub(super) name_bytes: usize,
}

impl Room {
    /// The room for all claims together. `told`: how many descriptors the store takes, which the
    /// service manager tells in `$FDSTORE` (systemd.exec(5), since version 254).
    pub(super) fn below_limit(told: Option<usize>) -> Self {
        let places = told.unwrap_or(UNIT_PLACES).saturating_sub(RESERVED_PLACES);
        Self { places, name_bytes: NAMES_MOST }
    }

    /// What one descriptor of this name takes up.
    pub(super) fn of(name: &str) -> Self {
        Self { places: 1, name_bytes: name.len() + 1 }
    }

    pub(super) fn fits(self, into: Self) -> bool {
        self.places <= into.places && self.name_bytes <= into.name_bytes
    }
}

impl AddAssign for Room {
    fn add_assign(&mut self, other: Self) {
        self.places += other.places;
        self.name_bytes += other.name_bytes;
    }
}

impl SubAssign for Room {
    fn sub_assign(&mut self, other: Self) {
        self.places -= other.places;
        self.name_bytes -= other.name_bytes;
    }
}

/// The first claim that does not fit; it and all after it get no place. They stay claims, and get a
/// place when there is room again. `claims` are in their order.
pub(super) fn first_refused<'a>(
    room: Room,
    mut claims: impl Iterator<Item = (&'a Claim, Room)>,
) -> Option<&'a Claim> {
    let mut used = Room::default();
    let refused = claims.find(|(_, claimed)| {
        used += *claimed;
        !used.fits(room)
    });
    refused.map(|(claim, _)| claim)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused(room: Room, claims: &BTreeMap<Claim, Room>) -> Option<Claim> {
        first_refused(room, claims.iter().map(|(claim, room)| (claim, *room))).cloned()
    }

    fn stored(id: &str) -> Claim {
        Claim::Stored(id.parse().unwrap(), "state".to_owned())
    }

    fn claims(all: &[(Claim, usize)]) -> BTreeMap<Claim, Room> {
        let room = |places: &usize| Room { places: *places, name_bytes: *places };
        all.iter().map(|(claim, places)| (claim.clone(), room(places))).collect()
    }

    fn room(places: usize) -> Room {
        Room { places, name_bytes: usize::MAX }
    }

    #[test]
    fn spools_go_first_then_what_services_stored_then_the_youngest_runs_then_listeners() {
        let all = claims(&[
            (Claim::Spools(RunId(1)), 2),
            (Claim::Spools(RunId(2)), 2),
            (stored("web-0"), 3),
            (Claim::Run(RunId(1)), 5),
            (Claim::Run(RunId(2)), 5),
            (Claim::Listener(0), 1),
            (Claim::Listener(7), 1),
        ]);
        for (places, first) in [
            (19, None),
            (18, Some(Claim::Spools(RunId(2)))),
            (17, Some(Claim::Spools(RunId(2)))),
            (16, Some(Claim::Spools(RunId(1)))),
            (15, Some(Claim::Spools(RunId(1)))),
            (14, Some(stored("web-0"))),
            (12, Some(stored("web-0"))),
            (11, Some(Claim::Run(RunId(2)))),
            (7, Some(Claim::Run(RunId(2)))),
            (6, Some(Claim::Run(RunId(1)))),
            (2, Some(Claim::Run(RunId(1)))),
            (1, Some(Claim::Listener(7))),
            (0, Some(Claim::Listener(0))),
        ] {
            assert_eq!(refused(room(places), &all), first, "{places} places");
        }
        assert_eq!(refused(room(0), &BTreeMap::new()), None);
    }

    #[test]
    fn whatever_has_a_place_fits_and_what_has_none_would_not() {
        for seed in 0..200_usize {
            let claim = |n: usize| (Claim::Run(RunId(n as u64)), 1 + (seed * 7 + n * 13) % 6);
            let all = claims(&(0..20).map(claim).collect::<Vec<_>>());
            let places = seed % 80;
            let first = refused(room(places), &all);
            let mut used = 0;
            for (claim, claimed) in &all {
                used += claimed.places;
                let has_place = first.as_ref().is_none_or(|first| claim < first);
                assert_eq!(has_place, used <= places, "seed {seed}, {claim:?}");
                if !has_place {
                    break;
                }
            }
        }
    }

    #[test]
    fn names_are_no_longer_than_a_program_can_be_started_with() {
        let mut all = BTreeMap::new();
        for run in 0..3000 {
            all.insert(Claim::Run(RunId(run)), Room::of(&"x".repeat(99)));
        }
        let first = refused(Room::below_limit(None), &all);
        assert_eq!(first, Some(Claim::Run(RunId(1308))), "100 bytes each of 128 KiB less 256");
    }

    #[test]
    fn the_limit_is_what_the_service_manager_tells_or_what_the_unit_says() {
        assert_eq!(Room::below_limit(Some(20)).places, 14);
        assert_eq!(Room::below_limit(Some(1)).places, 0);
        let unit = include_str!("../../systemd/blackhole.service");
        let key = "FileDescriptorStoreMax=";
        let said = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        assert_eq!(said.parse(), Ok(UNIT_PLACES));
        assert_eq!(Room::below_limit(None).places, UNIT_PLACES - RESERVED_PLACES);
    }
}
