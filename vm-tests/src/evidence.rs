//! What is kept of a machine whose test failed, in a folder that is named.

use std::fs;
use std::path::{Path, PathBuf};

use crate::agent::Agent;

/// A file, and what writes its content in the guest.
const ASKED: [(&str, &str); 3] = [
    ("journal.txt", "journalctl --no-pager --output=short-precise"),
    ("status.json", "blackhole-node status --json"),
    (
        "units.txt",
        "systemctl status --no-pager --lines=0 blackhole; systemctl --failed; \
         systemctl list-jobs; systemd-cgls --no-pager --all",
    ),
];

/// Gathers what can still be had; gives the folder.
pub fn keep(name: &str, run: &Path, agent: Option<&mut Agent>) -> PathBuf {
    let folder = target().join("vm-failures").join(name);
    let _absent = fs::remove_dir_all(&folder);
    let _shown_by_its_emptiness = fs::create_dir_all(&folder);
    for log in ["serial.log", "qemu.log"] {
        let _as_far_as_there = fs::copy(run.join(log), folder.join(log));
    }
    if let Some(agent) = agent {
        for (file, script) in ASKED {
            let answer = match agent.run(script) {
                Ok(answer) => answer.out + &answer.err,
                Err(error) => error.to_string(),
            };
            let _as_far_as_there = fs::write(folder.join(file), answer);
        }
    }
    folder
}

/// Cargo's target folder: `target/debug/deps/TEST` runs.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let found = program.ancestors().find(|path| path.join("CACHEDIR.TAG").exists());
    found.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
