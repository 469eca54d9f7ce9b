//! Groups on the real kernel. Where there is no cgroup2 they say `skipped`.

use std::os::fd::{AsFd, OwnedFd};

use super::*;
use crate::linux::fds;
use crate::linux::pidfd::{Pidfd, Reaped};
use crate::linux::process::own_pid;
use crate::linux::spawn::{Child, spawn};
use crate::linux::testing::{Output, TestGroup};
use crate::units::{Core, ExitStatus, Pid, Signal};

const KILLED: ExitStatus = ExitStatus::Signal { number: Signal::KILL, core: Core::None };

/// A script in a group, with 3 as the end of a pipe that it can wait on, and the other end.
fn start(group: &Group, script: &str) -> (Child, Output, OwnedFd) {
    let (read_end, write_end) = fds::pipe().unwrap();
    let output = Output::new();
    let mut launch = output.shell(script);
    launch.passed = vec![read_end.as_fd()];
    launch.group = Some(group);
    let child = spawn(&launch).unwrap();
    (child, output, write_end)
}

#[tokio::test]
async fn a_group_is_empty_when_its_last_daemon_ends_and_not_before() {
    let Some(group) = TestGroup::new() else { return };
    assert!(!group.populated().unwrap());
    let script = "(setsid sh -c 'echo $$; exec >/dev/null 2>&1; read x' <&3 &)";
    let (child, output, write_end) = start(&group, script);
    let finished = output.finish(child).await;
    let daemon = Pid(finished.output.trim().parse().unwrap());
    assert!(group.populated().unwrap());
    assert_eq!(group.procs().unwrap(), [daemon]);
    assert!(group.contains(daemon).unwrap() && !group.contains(own_pid()).unwrap());
    assert_eq!(group.remove().unwrap_err().errno(), Some(libc::EBUSY));

    let (emptied, ()) = tokio::join!(group.emptied(), async { drop(write_end) });
    emptied.unwrap();
    assert!(!group.populated().unwrap());
    // At once, though the daemon may still be a zombie somewhere.
    group.remove().unwrap();
    group.emptied().await.unwrap();
    group.kill().unwrap();
    assert!(!group.populated().unwrap() && group.procs().unwrap().is_empty());
}

#[tokio::test]
async fn killing_reaches_every_process_of_the_group_and_below() {
    type Kill = fn(&Group) -> Result<(), crate::linux::Error>;
    let one_by_one: Kill = |group| group.kill_one_by_one().map(|_killed| ());
    let ways: [Kill; 2] = [Group::kill, one_by_one];
    for kill in ways {
        let Some(group) = TestGroup::new() else { return };
        let below = group.create("below").unwrap();
        // One waits, with a child of its own in a session of its own; one has stopped itself.
        let script = "setsid sh -c 'read x' <&3 & echo up; read x <&3";
        let (waiting, waiting_output, _held) = start(&below, script);
        let (stopped, stopped_output, _held_too) = start(&group, "kill -STOP $$");
        let mut reader = waiting_output.into_reader();
        let mut up = [0; 3];
        std::io::Read::read_exact(&mut reader, &mut up).unwrap();
        assert!(group.procs().unwrap().len() >= 3);
        assert!(group.contains(waiting.pid).unwrap() && !below.contains(stopped.pid).unwrap());
        kill(&group).unwrap();
        group.emptied().await.unwrap();
        for child in [waiting, stopped] {
            // A zombie is in its group until it is collected.
            assert!(group.contains(child.pid).unwrap());
            assert_eq!(child.pidfd.reap().unwrap(), Reaped::Ended(KILLED));
            assert!(!group.contains(child.pid).unwrap());
        }
        assert_eq!(stopped_output.into_text(), "");
        assert_eq!(group.procs().unwrap(), []);
    }
}

#[tokio::test]
async fn a_frozen_group_says_so_and_can_be_killed() {
    let Some(group) = TestGroup::new() else { return };
    assert!(!group.frozen().unwrap());
    let (child, _output, _held) = start(&group, "read x <&3");
    group.write("cgroup.freeze", "1").unwrap();
    while !group.frozen().unwrap() {
        tokio::task::yield_now().await;
    }
    group.kill().unwrap();
    group.emptied().await.unwrap();
    assert_eq!(child.pidfd.reap().unwrap(), Reaped::Ended(KILLED));
}

#[tokio::test]
async fn what_is_started_in_a_frozen_group_waits_there_and_we_do_not() {
    let Some(group) = TestGroup::new() else { return };
    group.write("cgroup.freeze", "1").unwrap();
    let (child, output, write_end) = start(&group, "read x <&3; echo thawed");
    assert!(group.frozen().unwrap());
    group.write("cgroup.freeze", "0").unwrap();
    drop(write_end);
    assert_eq!(output.finish(child).await.output, "thawed\n");
}

#[tokio::test]
async fn a_process_is_moved_by_its_pid() {
    let Some(group) = TestGroup::new() else { return };
    let (from, to) = (group.create("from").unwrap(), group.create("to").unwrap());
    let (child, output, write_end) = start(&from, "read x <&3");
    to.add(child.pid).unwrap();
    assert!(to.contains(child.pid).unwrap() && !from.contains(child.pid).unwrap());
    drop(write_end);
    output.finish(child).await;
    assert_eq!(to.add(Pid(i32::MAX)).unwrap_err().errno(), Some(libc::ESRCH));
}

#[test]
fn groups_are_made_listed_and_removed_from_below() {
    let Some(base) = TestGroup::new() else { return };
    let services = base.create("services").unwrap();
    services.create("b").unwrap().create("deep").unwrap();
    services.create("a").unwrap();
    services.create("a").unwrap();
    assert_eq!(services.children().unwrap(), ["a", "b"]);
    assert_eq!(base.child("services").unwrap().path(), services.path());
    services.remove().unwrap();
    services.remove().unwrap();
    assert_eq!(base.children().unwrap(), Vec::<String>::new());
    assert_eq!(base.child("services").unwrap_err().errno(), Some(libc::ENOENT));
}

#[test]
fn no_name_leads_out_of_a_group() {
    let Some(base) = TestGroup::new() else { return };
    for wrong in ["", ".", "..", "../x", "a/b", "/", "a\0b", ".hidden"] {
        for refused in [base.create(wrong), base.child(wrong)] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, crate::linux::Error::GroupName { .. }), "{refused}");
        }
        assert!(base.read(wrong).is_err() && base.write(wrong, "1").is_err(), "{wrong:?}");
    }
}

#[test]
fn an_interface_file_that_is_missing_or_refuses_is_named() {
    let Some(base) = TestGroup::new() else { return };
    assert_eq!(base.read_optional("no.such.file").unwrap(), None);
    let missing = base.read("no.such.file").unwrap_err().to_string();
    assert!(missing.ends_with("/no.such.file: No such file or directory"), "{missing}");
    let refused = base.write("cgroup.freeze", "maybe").unwrap_err().to_string();
    assert!(refused.contains("cgroup.freeze: \"maybe\": "), "{refused}");
}

#[tokio::test]
async fn usage_is_read_where_the_kernel_offers_it() {
    let Some(group) = TestGroup::new() else { return };
    let (child, output, write_end) = start(&group, "read x <&3");
    drop(write_end);
    output.finish(child).await;
    assert!(group.cpu_usage().unwrap().is_some());
    let counts = group.read_optional("cpu.pressure").ok().flatten().is_some();
    assert_eq!(group.cpu_waited().unwrap().is_some(), counts);
    let controllers = group.read("cgroup.controllers").unwrap();
    let has_memory = controllers.split_whitespace().any(|name| name == "memory");
    assert_eq!(group.memory_current().unwrap().is_some(), has_memory);
    assert_eq!(group.oom_kills().unwrap().is_some(), has_memory);
}

#[tokio::test]
async fn tasks_are_counted_here_and_below_with_and_without_the_pids_controller() {
    let Some(group) = TestGroup::new() else { return };
    assert_eq!(group.tasks().unwrap(), 0);
    let below = group.create("below").unwrap();
    let (mut ends, mut children) = (Vec::new(), Vec::new());
    for place in [&*group, &below] {
        let (child, output, write_end) = start(place, "read x <&3");
        ends.push(write_end);
        children.push((child, output));
    }
    // Each shell waits in a built-in: one process with one thread.
    assert_eq!(group.tasks().unwrap(), 2);
    assert_eq!(below.tasks().unwrap(), 1);
    let threads = group.read("cgroup.threads").unwrap();
    let with_threads = [threads, below.read("cgroup.threads").unwrap()].concat();
    assert_eq!(with_threads.lines().count(), 2);
    drop(ends);
    for (child, output) in children {
        output.finish(child).await;
    }
    assert_eq!(group.tasks().unwrap(), 0);
    below.remove().unwrap();
    assert_eq!(below.tasks().unwrap(), 0);
}

/// A folder stands for a group whose controllers this host may not give us.
#[test]
fn where_the_pids_controller_counts_its_word_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let own_path = folder.path().to_owned();
    let controllers = std::collections::BTreeSet::new();
    let hierarchy =
        Hierarchy { mount: own_path.clone(), own_name: "/".to_owned(), own_path, controllers };
    let group = Group::own(&hierarchy).unwrap();
    std::fs::write(folder.path().join("cgroup.threads"), "11\n12\n").unwrap();
    assert_eq!(group.tasks().unwrap(), 2);
    std::fs::write(folder.path().join("pids.current"), "7\n").unwrap();
    assert_eq!(group.tasks().unwrap(), 7);
    std::fs::write(folder.path().join("pids.current"), "many\n").unwrap();
    assert!(group.tasks().unwrap_err().to_string().contains("pids.current"));
}

#[tokio::test]
async fn a_group_knows_a_process_that_nobody_of_ours_started() {
    let Some(group) = TestGroup::new() else { return };
    let (child, output, write_end) = start(&group, "(setsid sh -c 'echo $$; read x' <&3 &)");
    child.pidfd.exited().await.unwrap();
    assert!(matches!(child.pidfd.reap().unwrap(), Reaped::Ended(_)));
    let [daemon] = group.procs().unwrap()[..] else { panic!("{:?}", group.procs()) };
    let held = Pidfd::open(daemon).unwrap().unwrap();
    drop(write_end);
    held.exited().await.unwrap();
    assert_eq!(output.into_text(), format!("{daemon}\n"));
}

#[test]
fn a_group_hands_on_what_it_has_and_nothing_else() {
    let Some(base) = TestGroup::new() else { return };
    let below = base.create("below").unwrap();
    for controller in base.controllers().unwrap() {
        base.enable_controller(&controller).unwrap();
        assert!(base.enabled_controllers().unwrap().contains(&controller));
        assert!(below.controllers().unwrap().contains(&controller));
        base.disable_controller(&controller).unwrap();
    }
    assert!(
        base.enabled_controllers().unwrap().is_empty() && below.controllers().unwrap().is_empty()
    );
    let refused = below.enable_controller("memory").unwrap_err().to_string();
    assert!(refused.contains("below/cgroup.subtree_control: \"+memory\": "), "{refused}");
}

#[test]
fn the_group_above_ours_is_the_one_that_ours_is_in() {
    let Some(hierarchy) = Hierarchy::find().unwrap() else { return };
    let above = Group::above_own(&hierarchy).unwrap();
    let expected = hierarchy.own_name != "/";
    assert_eq!(above.is_some(), expected);
    if let Some(above) = above {
        assert_eq!(above.path(), hierarchy.own_path.parent().unwrap());
        assert!(above.contains(own_pid()).unwrap());
    }
}

#[test]
fn a_group_that_we_made_is_not_marked_as_delegated() {
    let Some(base) = TestGroup::new() else { return };
    assert!(!base.is_delegated().unwrap());
    let one =
        rustix::fs::fsetxattr(base.as_fd(), "user.delegate", b"1", rustix::fs::XattrFlags::CREATE);
    match one {
        Ok(()) => assert!(base.is_delegated().unwrap()),
        Err(refused) => println!("skipped: no attributes on groups here: {refused}"),
    }
}
