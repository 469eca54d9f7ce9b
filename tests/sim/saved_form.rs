//! The saved state as it is written and read, in every form.

use std::collections::BTreeMap;
use std::time::Duration;

use blackhole_node::act::{Checkpoint, CheckpointForm, State};
use blackhole_node::config::RuntimeOverrides;
use blackhole_node::decide::SavedNode;

/// What the next orchestrator reads, in whatever form it is written.
pub fn as_read(node: &SavedNode) -> SavedNode {
    let (boot, began_at) = ("boot".to_owned(), Duration::ZERO);
    let state = State {
        generation: 1,
        began_at,
        config: String::new(),
        overrides: RuntimeOverrides::default(),
        node: node.clone(),
    };
    let written = Checkpoint { sequence: 0, boot, state, runs: BTreeMap::new() };
    for form in CheckpointForm::ALL {
        let bytes = form.write(&written).unwrap();
        let read = form.read(&bytes, (&written.boot, began_at)).unwrap();
        assert_eq!((&read.node, read.remarks.as_slice()), (node, [].as_slice()), "{form:?}");
    }
    written.state.node
}
