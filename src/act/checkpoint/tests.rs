//! That every form that was released is read, and that nothing in what is read ends a service.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use super::samples::{self, BOOT, checkpoint, former};
use super::*;
use crate::act::binary::Binary;
use crate::act::service_manager::ServiceManager;
use crate::decide::{AdoptedRun, Effect, Phase, Planned, broken_invariant, resume};
use crate::linux::kept_memory::KeptMemory;
use crate::rpc::pb::node as pb;
use crate::units::{Pid, Tick};

/// Of the monotonic clock, some time after the sample began.
const NOW: Duration = Duration::from_secs(2_000);

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/act/checkpoint/golden").join(name)
}

fn released(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fields of the messages and the values of the enums below `Checkpoint` and of the history,
/// one a line.
fn fields() -> BTreeSet<String> {
    fn enums(prefix: &str, all: &[prost_types::EnumDescriptorProto], into: &mut BTreeSet<String>) {
        for one in all {
            for value in &one.value {
                into.insert(format!(
                    "{prefix}{}.{} = {}",
                    one.name(),
                    value.name(),
                    value.number()
                ));
            }
        }
    }
    fn messages(prefix: &str, all: &[prost_types::DescriptorProto], into: &mut BTreeSet<String>) {
        for message in all {
            let name = format!("{prefix}{}.", message.name());
            for field in &message.field {
                let kind = match field.type_name() {
                    "" => field.r#type().as_str_name(),
                    named => named,
                };
                let label = field.label().as_str_name();
                let (number, field) = (field.number(), field.name());
                into.insert(format!("{name}{field} = {number} {label} {kind}"));
            }
            enums(&name, &message.enum_type, into);
            messages(&name, &message.nested_type, into);
        }
    }
    let all = prost_types::FileDescriptorSet::decode(crate::rpc::pb::DESCRIPTORS).unwrap();
    let file = all.file.iter().find(|file| file.name().ends_with("node/v1/checkpoint.proto"));
    let mut found = BTreeSet::new();
    messages("", &file.unwrap().message_type, &mut found);
    found
}

/// A field, or a value, that was released keeps its number and its kind for ever. What is added is
/// written below the others: `CHECKPOINT_WRITE=1` does that, and takes nothing away.
#[test]
fn what_was_released_keeps_its_name_and_its_number() {
    let released_fields = String::from_utf8(released("fields.txt")).unwrap();
    let known: BTreeSet<String> = released_fields.lines().map(str::to_owned).collect();
    let now = fields();
    let lost: Vec<_> = known.difference(&now).collect();
    assert!(lost.is_empty(), "a released field was changed; give the new one a number: {lost:#?}");
    let added: Vec<_> = now.difference(&known).cloned().collect();
    if std::env::var_os("CHECKPOINT_WRITE").is_some() {
        let text =
            released_fields + &added.iter().map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(golden("fields.txt"), text).unwrap();
        return;
    }
    assert!(added.is_empty(), "add what is new to golden/fields.txt: {added:#?}");
}

/// What 5286a20 writes. Its own code read this file and wrote the same bytes again.
#[test]
fn the_form_of_the_version_before_is_read_and_written_to_the_byte() {
    let bytes = released("form-1.json");
    let read = CheckpointForm::Json.read(&bytes, (BOOT, NOW)).unwrap();
    assert_eq!(read, former(checkpoint()));
    let written = CheckpointForm::Json.write(&checkpoint()).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), String::from_utf8(bytes).unwrap());
}

#[test]
fn the_first_form_in_protobuf_is_read_by_every_later_version() {
    if std::env::var_os("CHECKPOINT_WRITE").is_some() && !golden("state-1.bin").exists() {
        let bytes = CheckpointForm::Proto.write(&checkpoint()).unwrap();
        std::fs::write(golden("state-1.bin"), bytes).unwrap();
    }
    let read = CheckpointForm::Proto.read(&released("state-1.bin"), (BOOT, NOW)).unwrap();
    assert_eq!(read, former(checkpoint()));
}

#[test]
fn what_is_written_is_read_again_in_each_form() {
    for form in CheckpointForm::ALL {
        for goal in [Goal::Run, Goal::Shutdown] {
            let mut checkpoint = checkpoint();
            checkpoint.state.node.goal = goal;
            let bytes = form.write(&checkpoint).unwrap();
            assert_eq!(form.read(&bytes, (BOOT, NOW)).unwrap(), former(checkpoint));
            let boot = form.read(&bytes, ("another", NOW)).unwrap_err();
            assert!(matches!(boot, CheckpointError::Boot), "{boot}");
        }
    }
}

#[test]
fn what_a_service_runs_is_saved_and_unknown_where_it_was_not() {
    let mut checkpoint = checkpoint();
    let binary = Binary { version: "0.1.0".to_owned(), build_id: Some("c41d".to_owned()) };
    let run = checkpoint.runs.values_mut().next().unwrap();
    run.binary = Some(Arc::new(binary));
    let bytes = CheckpointForm::Proto.write(&checkpoint).unwrap();
    assert_eq!(
        CheckpointForm::Proto.read(&bytes, (BOOT, NOW)).unwrap(),
        former(checkpoint.clone())
    );
    let binary_of = |former: Former| former.runs.into_values().next().unwrap().binary;
    let json = CheckpointForm::Json.write(&checkpoint).unwrap();
    assert_eq!(binary_of(CheckpointForm::Json.read(&json, (BOOT, NOW)).unwrap()), None);
    let mut without_version = message();
    let nameless = pb::checkpoint::Binary { version: None, build_id: Some("c41d".to_owned()) };
    without_version.runs[0].binary = Some(nameless);
    assert_eq!(binary_of(read(&without_version)), None);
}

fn message() -> pb::Checkpoint {
    let bytes = CheckpointForm::Proto.write(&checkpoint()).unwrap();
    pb::Checkpoint::decode(frame::unwrap(&bytes).unwrap().1).unwrap()
}

fn read(message: &pb::Checkpoint) -> Former {
    read_content(&message.encode_to_vec()).unwrap()
}

fn read_content(content: &[u8]) -> Result<Former, CheckpointError> {
    CheckpointForm::Proto.read(&frame::wrap(1, content), (BOOT, NOW))
}

/// What a later version adds: here field 1000, a string.
#[test]
fn a_field_that_is_not_known_is_named_and_the_rest_is_as_it_was() {
    let unknown = [0xc2, 0x3e, 3, b'n', b'e', b'w'];
    let content = [message().encode_to_vec().as_slice(), &unknown].concat();
    let mut read = read_content(&content).unwrap();
    let remarks = std::mem::take(&mut read.remarks);
    assert_eq!(remarks, ["6 bytes of it are in fields that this version has not"]);
    assert_eq!(read, former(checkpoint()));
}

#[test]
fn values_that_are_not_known_harm_nobody_and_are_named() {
    let mut message = message();
    let find = |message: &pb::Checkpoint, name: &str| {
        message.instances.iter().position(|one| one.id == name).unwrap()
    };
    let runs = find(&message, "runs-0");
    message.instances[runs].phase = Some(pb::checkpoint::Phase { kind: None });
    message.instances[runs].wanted = 77;
    message.instances[runs].membership = 77;
    message.goal = 77;
    let waits = find(&message, "waits-0");
    message.instances[waits].id = "?".to_owned();
    let rests = find(&message, "rests-0");
    message.instances[rests].wanted = 77;
    let read = read(&message);
    let name = |name: &str| name.parse::<InstanceId>().unwrap();
    let instance = &read.node.instances[&name("runs-0")];
    assert_eq!(
        (instance.phase.as_ref(), instance.wanted, instance.membership),
        (None, Wanted::Up, Membership::Planned)
    );
    assert_eq!(read.node.instances[&name("rests-0")].wanted, Wanted::Down);
    assert_eq!((read.node.goal, read.known), (Goal::Run, Known::SomeInstances));
    assert_eq!(read.remarks.len(), 6, "{:#?}", read.remarks);
    assert!(read.remarks.iter().any(|remark| remark.starts_with("runs-0: its phase")));
}

/// What may be missing, and how it is named.
type Lacking = (&'static str, fn(&mut pb::Checkpoint));

const LACKING: [Lacking; 12] = [
    ("it has no sequence", |message| message.sequence = None),
    ("it does not say in which boot", |message| message.boot_id = None),
    ("it has no generation", |message| message.generation = None),
    ("it has no beginning of its clock", |message| message.began_at_ns = None),
    ("it has no configuration", |message| message.config = None),
    ("it has no overrides", |message| message.overrides = None),
    ("it has no next_run", |message| message.next_run = None),
    ("it has no random_state", |message| message.random_state = None),
    ("what the node was to do is not known", |message| message.goal = 0),
    ("its phase is not known", |message| message.instances.iter_mut().for_each(|i| i.phase = None)),
    (".rules", |message| message.instances.iter_mut().for_each(|i| i.rules = None)),
    (".attempt", |message| message.instances.iter_mut().for_each(|i| i.attempt = None)),
];

/// All runs that the sample knows.
fn adopted(node: &SavedNode) -> BTreeMap<InstanceId, AdoptedRun> {
    let run = |saved: &SavedInstance| saved.phase.as_ref().and_then(Phase::run);
    let all = node.instances.iter();
    all.filter_map(|(id, saved)| Some((id.clone(), AdoptedRun { run: run(saved)?, pid: Pid(9) })))
        .collect()
}

/// How the node goes on; all of the sample's instances are planned and all its runs are there.
fn gone_on(read: &Former) -> (crate::decide::Node, Vec<Effect>) {
    let now = read.began_at.map_or(Tick::ZERO, |began_at| Tick(NOW.saturating_sub(began_at)));
    let sample = checkpoint().state.node;
    let planned = |one: &SavedInstance| Planned::from(one.rules.clone());
    let planned = sample.instances.iter().map(|(id, one)| (id.clone(), planned(one))).collect();
    let (node, effects) = resume(read.node.clone(), &planned, &adopted(&sample), now);
    assert_eq!(broken_invariant(&node, now), None);
    (node, effects)
}

fn harmed(effects: &[Effect]) -> BTreeSet<RunId> {
    let run = |effect: &Effect| match effect {
        Effect::Signal { run, .. } | Effect::KillGroup { run } | Effect::Clear { run } => {
            Some(*run)
        }
        Effect::Forget { run } => Some(*run),
        Effect::Spawn { .. }
        | Effect::Retire { .. }
        | Effect::ReadUsage { .. }
        | Effect::Reclaim { .. }
        | Effect::SetLimits { .. }
        | Effect::UndoSetLimits { .. }
        | Effect::Announce(_)
        | Effect::Note(_) => None,
    };
    effects.iter().filter_map(run).collect()
}

#[test]
fn a_field_that_is_missing_is_named_and_no_run_is_harmed_for_it() {
    let as_it_was = harmed(&gone_on(&former(checkpoint())).1);
    let served = ["runs-0", "starts-0", "begins-0"].map(|name| name.parse::<InstanceId>().unwrap());
    for (name, take_away) in LACKING {
        let mut message = message();
        take_away(&mut message);
        let read = read(&message);
        assert!(read.remarks.iter().any(|remark| remark.contains(name)), "{name}: {read:#?}");
        let (node, effects) = gone_on(&read);
        let more: Vec<_> = harmed(&effects).difference(&as_it_was).copied().collect();
        assert_eq!(more, [], "{name}");
        for id in &served {
            let instance = node.instance(id).unwrap();
            let known = &checkpoint().state.node.instances[id];
            assert_eq!(instance.phase.run(), known.phase.as_ref().unwrap().run(), "{name}: {id}");
            assert_eq!(instance.wanted, Wanted::Up);
        }
    }
}

proptest! {
    /// Whatever is in a message, it is gone on from, and what must hold does.
    #[test]
    fn content_that_nobody_wrote_breaks_nothing(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6),
    ) {
        for form in CheckpointForm::ALL {
            let mut bytes = match form {
                CheckpointForm::Proto => message().encode_to_vec(),
                CheckpointForm::Json => form.write(&checkpoint()).unwrap(),
            };
            for (at, bit) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            let read = match form {
                CheckpointForm::Proto => read_content(&bytes),
                CheckpointForm::Json => form.read(&bytes, (BOOT, NOW)),
            };
            if let Ok(read) = read {
                gone_on(&read);
            }
        }
    }
}

fn kept(form: CheckpointForm, slot: CheckpointSlot, bytes: &[u8]) -> KeptCheckpoint {
    let fd = fds::sealed_memory("checkpoint", bytes).unwrap();
    KeptCheckpoint { form, slot, fd }
}

/// Written in this boot.
fn here(sequence: u64) -> Checkpoint {
    Checkpoint { sequence, boot: process::boot_id().unwrap(), ..checkpoint() }
}

fn former_of(checkpoints: Vec<KeptCheckpoint>) -> Option<Former> {
    let inherited = InheritedFds { checkpoints, ..InheritedFds::default() };
    inherited.former().unwrap()
}

#[test]
fn the_newest_of_all_is_gone_on_from_in_whatever_form_it_is() {
    use CheckpointForm::{Json, Proto};
    use CheckpointSlot::{One, Zero};
    assert_eq!(former_of(Vec::new()), None);
    let write = |form: CheckpointForm, slot, checkpoint: &Checkpoint| {
        kept(form, slot, &form.write(checkpoint).unwrap())
    };
    let newest = |all: Vec<KeptCheckpoint>| {
        let former = former_of(all).unwrap();
        assert_eq!((former.node.recency, former.remarks.len()), (Recency::Newest, 0));
        (former.sequence, former.slot.unwrap())
    };
    let all = || vec![write(Proto, Zero, &here(7)), write(Json, One, &here(8))];
    assert_eq!(newest(all()), (8, One));
    assert_eq!(newest(all().into_iter().rev().collect()), (8, One));
    assert_eq!(newest(vec![write(Json, One, &here(7)), write(Proto, Zero, &here(7))]), (7, Zero));
    let later = |sequence, by| {
        let mut later = here(sequence);
        later.state.began_at += by;
        write(Json, One, &later)
    };
    // A node that began later has counted from the beginning again.
    let anew = later(0, Duration::from_secs(20));
    assert_eq!(newest(vec![write(Proto, Zero, &here(7)), anew]), (0, One));
    // The same one tells its beginning never twice the same.
    let same = later(6, Duration::from_millis(20));
    assert_eq!(newest(vec![write(Proto, Zero, &here(7)), same]), (7, Zero));
}

#[test]
fn a_damaged_slot_is_named_and_the_other_one_is_used() {
    use CheckpointForm::{Json, Proto};
    use CheckpointSlot::{One, Zero};
    let mut spoilt = Proto.write(&here(8)).unwrap();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    let whole = |form: CheckpointForm, slot, sequence| {
        kept(form, slot, &form.write(&here(sequence)).unwrap())
    };
    let damaged = || kept(Proto, Zero, &spoilt);
    let former = former_of(vec![damaged(), whole(Proto, One, 7)]).unwrap();
    assert_eq!((former.sequence, former.node.recency), (7, Recency::Outdated));
    assert_eq!(
        former.remarks,
        [
            "state.0: it is damaged: its bytes do not have their checksum",
            "what was saved last may be lost"
        ]
    );
    // It is there in the other form.
    let all = vec![damaged(), whole(Proto, One, 7), whole(Json, Zero, 8), whole(Json, One, 7)];
    let former = former_of(all).unwrap();
    assert_eq!((former.sequence, former.node.recency), (8, Recency::Newest));
    assert_eq!(former.remarks.len(), 1);
}

#[test]
fn where_nothing_can_be_read_the_descriptors_tell_what_runs() {
    let all = |proto: &[u8], json: &[u8]| {
        vec![
            kept(CheckpointForm::Proto, CheckpointSlot::Zero, proto),
            kept(CheckpointForm::Json, CheckpointSlot::Zero, json),
        ]
    };
    let former = former_of(all(&frame::wrap(2, b"of a later version"), b"{\"form\":1,")).unwrap();
    assert_eq!((former.known, former.config, former.began_at), (Known::Descriptors, None, None));
    assert!(former.remarks[0].contains("form 2, which this version does not read"));
    // What is of another boot is that, whatever else is there.
    let other = CheckpointForm::Proto.write(&checkpoint()).unwrap();
    let inherited = InheritedFds { checkpoints: all(&other, b""), ..InheritedFds::default() };
    assert!(matches!(inherited.former(), Err(CheckpointError::Boot)));
}

/// Its run and its pipes, as a former orchestrator's.
fn with_run_of_ours(id: &str, checkpoints: Vec<KeptCheckpoint>) -> InheritedFds {
    let own = crate::linux::pidfd::Pidfd::open(process::own_pid()).unwrap().unwrap();
    let pidfd = own.as_fd().try_clone_to_owned().unwrap();
    let (out, err) = (fds::pipe().unwrap().0, fds::pipe().unwrap().0);
    let mut all = InheritedFds::sort(vec![
        (format!("pid.{id}.5"), pidfd),
        (format!("out.{id}.5"), out),
        (format!("err.{id}.5"), err),
    ]);
    all.checkpoints = checkpoints;
    all
}

#[test]
fn a_run_of_which_nothing_is_saved_goes_on_as_ready() {
    let id: InstanceId = "web-2".parse().unwrap();
    let rules = BTreeMap::from([(id.clone(), Planned::from(samples::rules()))]);
    let nothing = kept(CheckpointForm::Proto, CheckpointSlot::Zero, b"");
    for checkpoints in [Vec::new(), vec![nothing]] {
        let inherited = with_run_of_ours("web-2", checkpoints);
        let former = inherited.former().unwrap().unwrap();
        let adopted = inherited.adoptable(&former);
        let (node, effects) = resume(former.node, &rules, &adopted, Tick::ZERO);
        let Phase::Ready { run, pid, .. } = node.instance(&id).unwrap().phase else {
            panic!("{node:?}");
        };
        assert_eq!((run, pid), (RunId(5), process::own_pid()));
        assert_eq!(harmed(&effects), BTreeSet::new());
    }
    // A whole checkpoint that does not have the instance knows that it is gone.
    let mut known = here(1);
    known.state.node.instances.clear();
    let bytes = CheckpointForm::Proto.write(&known).unwrap();
    let kept = kept(CheckpointForm::Proto, CheckpointSlot::Zero, &bytes);
    let former = with_run_of_ours("web-2", vec![kept]).former().unwrap().unwrap();
    assert!(former.node.instances.is_empty());
}

/// A writer, and all that a next orchestrator gets of it.
fn handed(writer: &CheckpointWriter) -> Vec<KeptCheckpoint> {
    let duplicate = |memory: &KeptMemory| memory.as_fd().try_clone_to_owned().unwrap();
    let all: Vec<(String, OwnedFd)> =
        writer.memories().map(|(name, memory)| (name.to_string(), duplicate(memory))).collect();
    InheritedFds::sort(all).checkpoints
}

#[test]
fn two_slots_are_written_by_turns_and_whoever_follows_goes_on_with_them() {
    let mut manager = ServiceManager::silent();
    let mut writer = CheckpointWriter::new(None, Vec::new()).unwrap();
    let save = |writer: &mut CheckpointWriter, manager: &mut ServiceManager, generation| {
        let state = State { generation, ..checkpoint().state };
        writer.save(state, checkpoint().runs, manager).unwrap();
    };
    for generation in 1..=5 {
        save(&mut writer, &mut manager, generation);
        let former = former_of(handed(&writer)).unwrap();
        assert_eq!((former.generation, former.remarks.len()), (generation, 0));
    }
    assert_eq!(handed(&writer).len(), 4);
    // The next one writes over the older of the two, in the same memory.
    let former = former_of(handed(&writer)).unwrap();
    let mut next = CheckpointWriter::new(Some(&former), handed(&writer)).unwrap();
    save(&mut next, &mut manager, 6);
    let seen = former_of(handed(&writer)).unwrap();
    assert_eq!((seen.generation, seen.sequence), (6, former.sequence + 1));
    assert_eq!(seen.slot, former.slot.map(CheckpointSlot::other));
    // Dead in the middle of the next one, which leaves the one before.
    let slot = former.slot.unwrap();
    for (form, memory) in handed(&writer)
        .into_iter()
        .filter(|kept| kept.slot == slot)
        .filter_map(|kept| Some((kept.form, KeptMemory::adopt(kept.fd, "test")?)))
    {
        let bytes = form.write(&here(seen.sequence + 1)).unwrap();
        memory.replace(&bytes[..bytes.len() / 2]).unwrap();
    }
    let last = former_of(handed(&writer)).unwrap();
    assert_eq!((last.generation, last.node.recency), (6, Recency::Outdated));
    // Without one that is gone on from nothing of it is used.
    let fresh = CheckpointWriter::new(None, handed(&writer)).unwrap();
    assert_eq!(fresh.memories().count(), 0);
}

/// What the version before leaves is sealed: its places are taken by memory of our own.
#[test]
fn what_cannot_be_written_to_is_replaced() {
    let one = here(9);
    let left = || {
        let bytes = CheckpointForm::Json.write(&one).unwrap();
        vec![kept(CheckpointForm::Json, CheckpointSlot::One, &bytes)]
    };
    let former = former_of(left()).unwrap();
    let mut writer = CheckpointWriter::new(Some(&former), left()).unwrap();
    for expected in [10, 11] {
        writer.save(one.state.clone(), one.runs.clone(), &mut ServiceManager::silent()).unwrap();
        assert_eq!(former_of(handed(&writer)).unwrap().sequence, expected);
    }
}
