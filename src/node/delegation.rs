//! The place of the services' groups in the cgroup v2 hierarchy: in the unit's own group, if a
//! service manager delegated that, or in a group that the node makes. Decides from facts; touches
//! nothing.

/// The orchestrator's group below the unit's. systemd 254 and later puts it there
/// (`DelegateSubgroup=`), before it moves there itself: a group that enables controllers for its
/// children may hold no process (cgroups(7)).
pub(super) const ORCHESTRATOR: &str = "orchestrator";

/// The facts at the start of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The process's own group, as `/proc/self/cgroup` names it.
    pub(super) own: String,
    pub(super) started_by: Starter,
    /// Whether the own group is marked as delegated.
    pub(super) own_delegation: Delegation,
    /// Whether the group around the own group is.
    pub(super) parent_delegation: Delegation,
}

/// What started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starter {
    /// The service manager.
    Manager,
    /// A shell, a script or a test, perhaps inside another unit.
    Other,
}

impl Starter {
    /// systemd names the process that it started (`SYSTEMD_EXEC_PID`, systemd.exec(5)). A child of
    /// that process inherits the variable but has another pid.
    pub(super) fn of(exec_pid: Option<&str>, own_pid: i32) -> Self {
        let named = exec_pid.and_then(|pid| pid.parse().ok());
        if named == Some(own_pid) { Self::Manager } else { Self::Other }
    }
}

/// The mark by which a service manager delegates a group (`Group::is_delegated`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delegation {
    Delegated,
    None,
}

/// Where the group `services` is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the own group, which is the unit's; the orchestrator moves on to `orchestrator` in it.
    UnitAroundUs,
    /// In the group around the own one, which is the unit's: the own group is `orchestrator`.
    UnitAboveUs,
    /// In a group that is made for this node, below the own group.
    BelowOurs,
}

/// The mark alone is not enough: a shell in a delegated unit may start many nodes, each of which
/// would take the unit's group for its own.
pub(super) fn place(facts: &Facts) -> Place {
    let in_subgroup = facts.own.rsplit('/').next() == Some(ORCHESTRATOR);
    match (facts.started_by, facts.own_delegation, facts.parent_delegation) {
        (Starter::Manager, Delegation::Delegated, _) => Place::UnitAroundUs,
        (Starter::Manager, Delegation::None, Delegation::Delegated) if in_subgroup => {
            Place::UnitAboveUs
        }
        (Starter::Manager, Delegation::None, _) | (Starter::Other, _, _) => Place::BelowOurs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "/system.slice/blackhole.service";
    const SUBGROUP: &str = "/system.slice/blackhole.service/orchestrator";

    fn placed(
        own: &str,
        started_by: Starter,
        own_delegation: Delegation,
        parent_delegation: Delegation,
    ) -> Place {
        place(&Facts { own: own.to_owned(), started_by, own_delegation, parent_delegation })
    }

    #[test]
    fn a_delegated_unit_is_ours_where_the_manager_started_us_in_it() {
        let manager = Starter::Manager;
        assert_eq!(
            placed(UNIT, manager, Delegation::Delegated, Delegation::None),
            Place::UnitAroundUs
        );
        assert_eq!(
            placed(SUBGROUP, manager, Delegation::None, Delegation::Delegated),
            Place::UnitAboveUs
        );
        // A user's service: the manager's own unit is delegated too, to the manager.
        let user = "/user.slice/user-1000.slice/user@1000.service/b.service";
        assert_eq!(
            placed(user, manager, Delegation::Delegated, Delegation::Delegated),
            Place::UnitAroundUs
        );
        assert_eq!(
            placed(user, manager, Delegation::None, Delegation::Delegated),
            Place::BelowOurs
        );
    }

    #[test]
    fn nobody_elses_group_is_taken() {
        let shell = Starter::Other;
        assert_eq!(placed(UNIT, shell, Delegation::Delegated, Delegation::None), Place::BelowOurs);
        assert_eq!(
            placed(SUBGROUP, shell, Delegation::None, Delegation::Delegated),
            Place::BelowOurs
        );
        assert_eq!(
            placed(UNIT, Starter::Manager, Delegation::None, Delegation::None),
            Place::BelowOurs
        );
        assert_eq!(placed("/", shell, Delegation::None, Delegation::None), Place::BelowOurs);
    }

    #[test]
    fn the_manager_started_only_the_process_that_it_names() {
        assert_eq!(Starter::of(Some("17"), 17), Starter::Manager);
        assert_eq!(Starter::of(Some("17"), 18), Starter::Other);
        assert_eq!(Starter::of(Some("systemd"), 17), Starter::Other);
        assert_eq!(Starter::of(None, 17), Starter::Other);
    }
}
