//! The shapes of `/health`, to the byte.

use serde_json::Value;

use super::super::testing::{CHECKED, MIB, failed, ready, snapshot, without};
use super::*;

fn parsed(page: &str) -> Value {
    serde_json::from_str(page).unwrap()
}

#[test]
fn a_healthy_node_has_the_promised_keys_in_order() {
    let unlimited = InstanceStatus {
        pid: 1003,
        restarts: 0,
        memory_bytes: 1288 * MIB,
        memory_limit_bytes: 0,
        cpu_percent: 14.6,
        last_health_check_unix_us: 0,
        ..ready("storage-0")
    };
    let expected = r#"{
  "status": "healthy",
  "version": "0.1.0",
  "uptime": "24h35m",
  "node": "alpha",
  "degradations": [],
  "orchestrator": {
    "pid": 4242,
    "memory": "125MiB",
    "cpu": "2%"
  },
  "services": {
    "analytics": {
      "status": "stopped",
      "reason": "disabled"
    },
    "identity": {
      "status": "healthy",
      "pid": 1002,
      "restarts": 1,
      "memory": "245MiB/512MiB",
      "cpu": "5%",
      "last_health_check": "2024-01-15T10:30:00Z"
    },
    "storage": {
      "status": "healthy",
      "pid": 1003,
      "restarts": 0,
      "memory": "1.2GiB",
      "cpu": "15%",
      "last_health_check": null
    }
  }
}
"#;
    assert_eq!(known(&snapshot(vec![ready("identity-0"), unlimited], &["analytics"])), expected);
}

#[test]
fn a_failed_instance_degrades_the_node_and_says_why() {
    let mut snapshot = snapshot(vec![failed("ledger-0")], &[]);
    snapshot.node.degradations = vec![without("cgroup limits"), without("journald")];
    let expected = r#"{
  "status": "degraded",
  "version": "0.1.0",
  "uptime": "24h35m",
  "node": "alpha",
  "degradations": [
    "cgroup limits",
    "journald"
  ],
  "orchestrator": {
    "pid": 4242,
    "memory": "125MiB",
    "cpu": "2%"
  },
  "services": {
    "ledger": {
      "status": "failed",
      "reason": "exit code 1\n5 restarts in 1m",
      "pid": null,
      "restarts": 5,
      "memory": "0B",
      "cpu": "0%",
      "last_health_check": null
    }
  }
}
"#;
    assert_eq!(known(&snapshot), expected);
}

#[test]
fn several_instances_are_summed_and_listed_under_the_worst_status() {
    let other = InstanceStatus {
        pid: 1003,
        health: "unhealthy".into(),
        reason: "2 of 3 health checks failed".into(),
        last_health_check_unix_us: CHECKED - 5_000_000,
        ..ready("web-1")
    };
    let page = known(&snapshot(vec![ready("web-0"), other], &[]));
    let start = page.find("    \"web\"").unwrap();
    let expected = r#"    "web": {
      "status": "unhealthy",
      "reason": "web-1: 2 of 3 health checks failed",
      "pid": 1002,
      "restarts": 2,
      "memory": "490MiB/1GiB",
      "cpu": "10%",
      "last_health_check": "2024-01-15T10:29:55Z",
      "instances": [
        {
          "instance": "web-0",
          "status": "healthy",
          "pid": 1002,
          "restarts": 1,
          "memory": "245MiB/512MiB",
          "cpu": "5%",
          "last_health_check": "2024-01-15T10:30:00Z"
        },
        {
          "instance": "web-1",
          "status": "unhealthy",
          "reason": "2 of 3 health checks failed",
          "pid": 1003,
          "restarts": 1,
          "memory": "245MiB/512MiB",
          "cpu": "5%",
          "last_health_check": "2024-01-15T10:29:55Z"
        }
      ]
    }
  }
}
"#;
    assert_eq!(&page[start..], expected);
    assert_eq!(parsed(&page)["status"], "degraded");
}

#[test]
fn instances_without_a_limit_or_a_check_leave_none_for_all_of_them() {
    let page = parsed(&known(&snapshot(vec![failed("web-0"), ready("web-1")], &[])));
    let web = &page["services"]["web"];
    assert_eq!(web["memory"], "245MiB");
    assert_eq!(web["last_health_check"], Value::Null);
    assert_eq!((&web["pid"], &web["restarts"]), (&1002.into(), &6.into()));
    assert_eq!(web["reason"], "web-0: exit code 1\n5 restarts in 1m");
}

#[test]
fn a_service_stopped_on_purpose_leaves_the_node_healthy() {
    let stopped = InstanceStatus {
        phase: "stopped".into(),
        reason: "stopped by the operator".into(),
        ..failed("web-0")
    };
    let page = parsed(&known(&snapshot(vec![ready("identity-0"), stopped], &[])));
    assert_eq!(page["status"], "healthy");
    assert_eq!(page["services"]["web"]["status"], "stopped");
    assert_eq!(page["services"]["web"]["reason"], "stopped by the operator");
}

#[test]
fn a_disabled_service_that_still_stops_is_shown_as_stopping() {
    let stopping = InstanceStatus { phase: "stopping".into(), ..ready("web-0") };
    let page = parsed(&known(&snapshot(vec![stopping], &["web"])));
    assert_eq!(page["services"]["web"]["status"], "stopping");
}

#[test]
fn an_orchestrator_that_does_not_answer_is_said_so() {
    let page = unknown(&FeedError::Silent(Duration::from_secs(2)));
    let expected = r#"{
  "status": "unhealthy",
  "reason": "the orchestrator did not answer within 2s"
}
"#;
    assert_eq!(page, expected);
}

#[test]
fn numbers_that_make_no_sense_are_shown_as_the_nearest_that_do() {
    assert_eq!([percent(f64::NAN), percent(-3.0)], ["0%", "0%"]);
    assert_eq!([uptime(f64::NAN), uptime(-1.0)], ["0us", "0us"]);
    assert_eq!(rfc3339(i64::MIN).as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(rfc3339(i64::MAX).as_deref(), Some("9999-12-31T23:59:59Z"));
    let sum = InstanceStatus { restarts: u64::MAX, ..ready("web-0") };
    let page = parsed(&known(&snapshot(vec![sum, ready("web-1")], &[])));
    assert_eq!(page["services"]["web"]["restarts"], u64::MAX);
}
