//! The systemd units as systemd itself judges them, and `install` as a user calls it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests wait for the commands they run")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_blackhole-node");
const UNIT: &str = "systemd/blackhole.service";
/// The first version of the drop-in's keys.
const SUBGROUPS: u32 = 254;

fn analyze(arguments: &[&str]) -> Output {
    let output = Command::new("systemd-analyze").args(arguments).output();
    output.expect("systemd-analyze, of the Debian package systemd")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn systemd_version() -> u32 {
    let said = text(&analyze(&["--version"]));
    let number = said.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{said}"))
}

/// A copy whose program and manual exist on this machine, where nothing is installed.
fn on_this_machine(folder: &Path) -> PathBuf {
    let unit = fs::read_to_string(UNIT).unwrap();
    let unit = unit.replace("/usr/bin/blackhole-node", BINARY);
    let unit = unit.replace("Documentation=man:blackhole-node(1)\n", "");
    let place = folder.join("blackhole.service");
    fs::write(&place, unit).unwrap();
    place
}

#[test]
fn the_unit_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let unit = on_this_machine(folder.path());
    if systemd_version() >= SUBGROUPS {
        let drop_ins = folder.path().join("blackhole.service.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::copy("systemd/50-systemd-254.conf", drop_ins.join("50-systemd-254.conf")).unwrap();
    }
    let verified = analyze(&["verify", "--man=no", unit.to_str().unwrap()]);
    assert!(verified.status.success() && text(&verified).is_empty(), "{}", text(&verified));
}

#[test]
fn the_unit_exposes_no_more_than_it_has_to() {
    let folder = tempfile::tempdir().unwrap();
    let unit = on_this_machine(folder.path());
    let unit = unit.to_str().unwrap();
    let judged = analyze(&["security", "--offline=true", "--threshold=22", "--no-pager", unit]);
    assert!(judged.status.success(), "{}", text(&judged));
}

#[test]
fn an_image_gets_everything_and_is_rid_of_it() {
    let image = tempfile::tempdir().unwrap();
    let root = image.path().to_str().unwrap();
    let node = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = node(&["install", "--root", root, "--systemd", "257"]);
    for place in [
        "etc/blackhole/config.toml",
        "usr/bin/blackhole-node",
        "usr/lib/systemd/system/blackhole.service",
        "usr/lib/systemd/system/blackhole.service.d/50-systemd-254.conf",
        "usr/lib/sysusers.d/blackhole.conf",
        "usr/lib/tmpfiles.d/blackhole.conf",
        "usr/share/bash-completion/completions/blackhole-node",
        "usr/share/man/man1/blackhole-node-status.1",
    ] {
        let place = image.path().join(place);
        assert!(place.is_file(), "{}", place.display());
        assert!(told.contains(&format!("written    {}\n", place.display())), "{told}");
    }
    assert!(told.ends_with(&format!("next: systemctl --root={root} enable blackhole.service\n")));
    node(&["config", "check", image.path().join("etc/blackhole/config.toml").to_str().unwrap()]);
    let told = node(&["uninstall", "--root", root, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let files = told["files"].as_array().unwrap();
    assert!(files.len() > 20 && files.iter().all(|file| file["what"] == "removed"), "{told}");
    assert_eq!(fs::read_dir(image.path()).unwrap().count(), 0);
}
