//! Degradations for `status`: descriptors that the service manager does not keep for the next
//! orchestrator, and messages that it never received.

use super::manager_fd_store::Shortage;
use super::service_manager::ServiceManager;
use crate::rpc::pb::node::Degradation;

pub(super) fn of(service_manager: &ServiceManager) -> Vec<Degradation> {
    let shortage = service_manager.shortage().map(|shortage| without_places(&shortage));
    let lost = Some(service_manager.lost()).filter(|lost| *lost > 0).map(without_messages);
    shortage.into_iter().chain(lost).collect()
}

fn without_places(shortage: &Shortage) -> Degradation {
    let Shortage { wanted, placed, listeners, runs, stored, spooled_runs } = *shortage;
    let count = |count: usize, what: &str| {
        let ending = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {what}{ending}"))
    };
    let without: Vec<String> = [
        count(spooled_runs, "run").map(|runs| format!("the log spools of {runs}")),
        count(stored, "stored descriptor"),
        count(runs, "whole run"),
        count(listeners, "listener"),
    ]
    .into_iter()
    .flatten()
    .collect();
    Degradation {
        name: "fd-store".to_owned(),
        missing: format!(
            "the service manager's store (FileDescriptorStoreMax=) has room for {placed} of \
             {wanted} descriptors; not in it: {}",
            without.join(", ")
        ),
        instead: "they are with the orchestrator alone: if it dies, what was read of those logs \
                  and stored is lost, and those runs are ended and started anew"
            .to_owned(),
    }
}

fn without_messages(lost: u64) -> Degradation {
    Degradation {
        name: "service-manager-messages".to_owned(),
        missing: format!("the service manager did not take {lost} of our messages in time"),
        instead: "descriptors are sent again; what it was told of our state may be old".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_is_counted_by_kind_and_what_has_is_not_named() {
        let shortage =
            Shortage { wanted: 21, placed: 10, runs: 1, spooled_runs: 4, ..Shortage::default() };
        let told = without_places(&shortage).missing;
        assert!(told.contains("10 of 21 descriptors"), "{told}");
        assert!(told.ends_with("not in it: the log spools of 4 runs, 1 whole run"), "{told}");
        let all = Shortage { listeners: 2, stored: 3, ..shortage };
        let told = without_places(&all).missing;
        assert!(told.ends_with("4 runs, 3 stored descriptors, 1 whole run, 2 listeners"), "{told}");
    }
}
