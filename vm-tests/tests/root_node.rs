//! A node that root runs by hand, outside of the unit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::json;
use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::security;
use vm_tests::{Machine, Node};

/// A second node, which root runs by hand.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_node_of_root_gives_a_service_a_user_of_its_own(release: Release) {
    let machine = Machine::start(release, "user");
    let _node = Node::at_rest(&machine, "");
    machine.put(
        "/root/second.toml",
        "node = { runtime_dir = '/run/second', data_dir = '/srv/second' }\n\
         api.http_port = 18080\n[services.web]\nreadiness = 'notify'\n\
         command = ['sh', '-c', 'touch $HOME/file; systemd-notify --ready; exec sleep 1000000']\n\
         sandbox = { user = 'nobody' }\n",
    );
    let run = "blackhole-node --config /root/second.toml";
    machine.done(&format!("systemd-run --unit second --property Type=notify {run}"));
    let instances = security(&machine, "--runtime-dir /run/second");
    let of = |name: &str| instances.iter().find(|one| one["service"] == name).unwrap();
    assert_eq!(of("web")["process"]["user"], "nobody", "{instances:?}");
    assert_eq!(of("storage")["process"]["user"], "root", "{instances:?}");
    for one in &instances {
        assert_eq!(one["process"]["bounding_set"], json!([]), "{one}");
        assert_eq!(one["missing"], json!([]), "{one}");
    }
    assert_eq!(machine.done("stat -c %U /srv/second/services/web/file"), "nobody");
    machine.done("systemctl stop second");
}
