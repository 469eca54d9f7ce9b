//! Where in the cgroup v2 hierarchy the services' groups belong: in the unit's own group, where a
//! service manager gave us that, or in a group of our own making. Decides from facts; touches
//! nothing.

/// Our own group below the unit's. systemd 254 and later puts us there (`DelegateSubgroup=`), else
/// we go there ourselves: a group that hands on controllers may hold no process (cgroups(7)).
pub(super) const ORCHESTRATOR: &str = "orchestrator";

/// What is known before anything is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Our own group, as `/proc/self/cgroup` names it.
    pub(super) own: String,
    pub(super) started_by: Starter,
    /// Whether our own group is marked as given to its processes.
    pub(super) own_mark: Mark,
    /// Whether the group that it is in is.
    pub(super) above_mark: Mark,
}

/// Who started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starter {
    /// A service manager itself.
    Manager,
    /// A shell, a script, a test; perhaps inside of a unit that is not ours.
    Other,
}

impl Starter {
    /// systemd names the process that it started itself (`SYSTEMD_EXEC_PID`, systemd.exec(5));
    /// whatever that one starts inherits the variable and is another process.
    pub(super) fn of(exec_pid: Option<&str>, own_pid: i32) -> Self {
        let named = exec_pid.and_then(|pid| pid.parse().ok());
        if named == Some(own_pid) { Self::Manager } else { Self::Other }
    }
}

/// The service manager's mark of delegation on a group (`Group::is_delegated`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Delegated,
    None,
}

/// Where `services` is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In our own group, which is the unit's; we move on to `orchestrator` in it.
    UnitAroundUs,
    /// In the group above ours, which is the unit's: we were put into `orchestrator`.
    UnitAboveUs,
    /// In a group below our own that we make for this node alone.
    BelowOurs,
}

/// A mark alone is not enough: a shell in a delegated unit may start many nodes, of which each
/// would take the unit's group for its own.
pub(super) fn place(facts: &Facts) -> Place {
    let in_subgroup = facts.own.rsplit('/').next() == Some(ORCHESTRATOR);
    match (facts.started_by, facts.own_mark, facts.above_mark) {
        (Starter::Manager, Mark::Delegated, _) => Place::UnitAroundUs,
        (Starter::Manager, Mark::None, Mark::Delegated) if in_subgroup => Place::UnitAboveUs,
        (Starter::Manager, Mark::None, _) | (Starter::Other, _, _) => Place::BelowOurs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "/system.slice/blackhole.service";
    const SUBGROUP: &str = "/system.slice/blackhole.service/orchestrator";

    fn placed(own: &str, started_by: Starter, own_mark: Mark, above_mark: Mark) -> Place {
        place(&Facts { own: own.to_owned(), started_by, own_mark, above_mark })
    }

    #[test]
    fn a_delegated_unit_is_ours_where_the_manager_started_us_in_it() {
        let manager = Starter::Manager;
        assert_eq!(placed(UNIT, manager, Mark::Delegated, Mark::None), Place::UnitAroundUs);
        assert_eq!(placed(SUBGROUP, manager, Mark::None, Mark::Delegated), Place::UnitAboveUs);
        // A user's service: the manager's own unit is delegated too, to the manager.
        let user = "/user.slice/user-1000.slice/user@1000.service/b.service";
        assert_eq!(placed(user, manager, Mark::Delegated, Mark::Delegated), Place::UnitAroundUs);
        assert_eq!(placed(user, manager, Mark::None, Mark::Delegated), Place::BelowOurs);
    }

    #[test]
    fn nobody_elses_group_is_taken() {
        let shell = Starter::Other;
        assert_eq!(placed(UNIT, shell, Mark::Delegated, Mark::None), Place::BelowOurs);
        assert_eq!(placed(SUBGROUP, shell, Mark::None, Mark::Delegated), Place::BelowOurs);
        assert_eq!(placed(UNIT, Starter::Manager, Mark::None, Mark::None), Place::BelowOurs);
        assert_eq!(placed("/", shell, Mark::None, Mark::None), Place::BelowOurs);
    }

    #[test]
    fn the_manager_started_only_the_process_that_it_names() {
        assert_eq!(Starter::of(Some("17"), 17), Starter::Manager);
        assert_eq!(Starter::of(Some("17"), 18), Starter::Other);
        assert_eq!(Starter::of(Some("systemd"), 17), Starter::Other);
        assert_eq!(Starter::of(None, 17), Starter::Other);
    }
}
