//! Who gets a place in the service manager's fd store when there is not one for everybody. A pure
//! function of what is claimed; holds no descriptor and sends nothing (docs/decisions/0019).

use std::ops::{AddAssign, SubAssign};

use crate::units::{InstanceId, RunId};

/// `FileDescriptorStoreMax=` of `systemd/blackhole.service`, to which a test holds it. It counts
/// where the service manager does not tell its limit.
const UNIT_PLACES: usize = 4096;
/// Four for checkpoints (two slots in two forms), one for the history, one for the control socket.
const RESERVED_PLACES: usize = 6;
/// The bytes of all names together with what separates them. The service manager passes them as one
/// variable (`LISTEN_FDNAMES=`), and Linux executes nothing with a longer one than 128 KiB
/// (`MAX_ARG_STRLEN`, execve(2)): an orchestrator that stored more could not be started again. The
/// rest is for the variable's own name and for what has a place reserved.
const NAMES_MOST: usize = (128 << 10) - 256;

/// Something that has a place as a whole or not at all. The order is that of importance: what
/// comes last gives its place up first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// Clients wait in its backlog.
    Listener(u64),
    /// All that a run is adopted by. The runs that began first keep their places.
    Run(RunId),
    /// What a service stored with us under this name.
    Stored(InstanceId, String),
    /// The spools of a run's logs: what was read and is not delivered.
    Spools(RunId),
}

/// What is used up of the fd store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Room {
    pub(super) places: usize,
    pub(super) name_bytes: usize,
}

impl Room {
    /// What all claims share where the store takes so many descriptors; the service manager tells
    /// that in `$FDSTORE` (systemd.exec(5), since version 254).
    pub(super) fn below_limit(told: Option<usize>) -> Self {
        let places = told.unwrap_or(UNIT_PLACES).saturating_sub(RESERVED_PLACES);
        Self { places, name_bytes: NAMES_MOST }
    }

    /// What one descriptor of this name uses.
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

/// The first claim for which there is no room; it and all after it have no place. Claims without
/// a place stay claims: they get one when there is room again. `claims` come in their order.
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
