//! Phases and health in the words that operators read, and that nodes and clients of versions
//! before the enums write and read.

use super::pb::node::{InstanceHealth, InstancePhase, InstanceStatus, NodeInfo, NodePhase};

impl InstancePhase {
    /// Each that an instance can be in.
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Waiting,
        Self::Starting,
        Self::Ready,
        Self::Stopping,
        Self::Backoff,
        Self::Failed,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
        }
    }
}

impl InstanceHealth {
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Degraded, Self::Unhealthy];

    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl NodePhase {
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Degraded, Self::Stopping];

    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

/// None: a phase of a node that is newer than we are.
impl InstanceStatus {
    pub fn known_phase(&self) -> Option<InstancePhase> {
        let by_word = || InstancePhase::ALL.into_iter().find(|one| one.word() == self.phase);
        match InstancePhase::try_from(self.instance_phase) {
            Ok(InstancePhase::Unspecified) | Err(_) => by_word(),
            Ok(known) => Some(known),
        }
    }

    pub fn known_health(&self) -> Option<InstanceHealth> {
        let by_word = || InstanceHealth::ALL.into_iter().find(|one| one.word() == self.health);
        match InstanceHealth::try_from(self.instance_health) {
            Ok(InstanceHealth::Unspecified) | Err(_) => by_word(),
            Ok(known) => Some(known),
        }
    }
}

/// None: a phase of a node that is newer than we are.
impl NodeInfo {
    pub fn known_phase(&self) -> Option<NodePhase> {
        let by_word = || NodePhase::ALL.into_iter().find(|one| one.word() == self.phase);
        match NodePhase::try_from(self.node_phase) {
            Ok(NodePhase::Unspecified) | Err(_) => by_word(),
            Ok(known) => Some(known),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_before_the_enums_is_understood_by_its_words() {
        for phase in InstancePhase::ALL {
            let old = InstanceStatus { phase: phase.word().into(), ..InstanceStatus::default() };
            assert_eq!(old.known_phase(), Some(phase));
        }
        for health in InstanceHealth::ALL {
            let old = InstanceStatus { health: health.word().into(), ..InstanceStatus::default() };
            assert_eq!(old.known_health(), Some(health));
        }
        for phase in NodePhase::ALL {
            let old = NodeInfo { phase: phase.word().into(), ..NodeInfo::default() };
            assert_eq!(old.known_phase(), Some(phase));
        }
    }

    #[test]
    fn a_phase_that_is_newer_than_we_are_is_known_by_nobody() {
        let newer = InstanceStatus {
            phase: "hibernating".into(),
            instance_phase: 99,
            instance_health: 99,
            ..InstanceStatus::default()
        };
        assert_eq!((newer.known_phase(), newer.known_health()), (None, None));
    }

    #[test]
    fn each_value_of_an_enum_has_a_word_of_its_own() {
        use std::collections::BTreeSet;
        // 0 is for what a node before the enums leaves out.
        let phases = (1..).map_while(|number| InstancePhase::try_from(number).ok());
        assert_eq!(phases.collect::<Vec<_>>(), InstancePhase::ALL);
        let words: BTreeSet<_> = InstancePhase::ALL.iter().map(|phase| phase.word()).collect();
        assert_eq!(words.len(), InstancePhase::ALL.len());
        let healths = (1..).map_while(|number| InstanceHealth::try_from(number).ok());
        assert_eq!(healths.collect::<Vec<_>>(), InstanceHealth::ALL);
        let phases = (1..).map_while(|number| NodePhase::try_from(number).ok());
        assert_eq!(phases.collect::<Vec<_>>(), NodePhase::ALL);
    }
}
