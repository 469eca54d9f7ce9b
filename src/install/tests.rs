//! Installs into folders: what is there afterwards, and that nothing is when something fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::disk::{Root, Transaction};
use super::manifest::MANIFEST;
use super::steps::Steps;
use super::*;

const CONFIG: &str = "etc/blackhole/config.toml";
const UNIT: &str = "usr/lib/systemd/system/blackhole.service";
const PROGRAM: &str = "src/install/tests.rs";
const PAGE: &str = "usr/share/man/man1/x.1";

fn image() -> TempDir {
    let image = tempfile::tempdir().unwrap();
    fs::create_dir_all(image.path().join("usr/bin")).unwrap();
    fs::write(image.path().join("usr/bin/other"), "other").unwrap();
    image
}

fn target(image: &TempDir) -> Target {
    Target {
        root: image.path().to_owned(),
        systemd: Some(252),
        others: Others::Respect,
        extent: Extent::Real,
    }
}

/// This file is the program.
fn package(text: &str) -> Package {
    let pages = vec![Page { path: PAGE.to_owned(), text: text.to_owned() }];
    Package { executable: PROGRAM.into(), pages }
}

/// Every folder, and every file with its mode and content.
fn tree(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut tree = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let found = path.symlink_metadata().unwrap();
        let mut content = Vec::new();
        if found.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if found.is_file() {
            content = fs::read(&path).unwrap();
        }
        let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        tree.insert(name, (found.permissions().mode(), content));
    }
    tree
}

fn what_of(report: &Report, path: &str) -> Option<What> {
    report.deeds.iter().find(|deed| deed.path == path).map(|deed| deed.what)
}

#[test]
fn an_uninstall_leaves_what_was_there_before() {
    let image = image();
    let before = tree(image.path());
    let report = install(&target(&image), package("page")).unwrap();
    assert!(report.deeds.iter().all(|deed| deed.what == What::Write), "{report:?}");
    assert_eq!(report.systemd, Some(252));
    let binary = image.path().join("usr/bin/blackhole-node");
    assert_eq!(fs::read(&binary).unwrap(), fs::read(PROGRAM).unwrap());
    assert_eq!(binary.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    let folder = image.path().join("etc/blackhole").metadata().unwrap();
    assert_eq!(folder.permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_to_string(image.path().join(PAGE)).unwrap(), "page");

    let again = install(&target(&image), package("page")).unwrap();
    assert!(again.deeds.iter().all(|deed| deed.what == What::Unchanged), "{again:?}");

    let gone = uninstall(&target(&image)).unwrap();
    assert!(gone.deeds.iter().all(|deed| deed.what == What::Remove), "{gone:?}");
    assert_eq!(tree(image.path()), before);
    let error = uninstall(&target(&image)).unwrap_err();
    assert!(matches!(error, InstallError::NotInstalled { .. }), "{error}");
}

#[test]
fn a_dry_run_tells_the_same_and_does_nothing() {
    let image = image();
    let before = tree(image.path());
    let dry = Target { extent: Extent::DryRun, ..target(&image) };
    let told = install(&dry, package("page")).unwrap();
    assert_eq!(tree(image.path()), before);
    assert_eq!(told, install(&target(&image), package("page")).unwrap());
    let installed = tree(image.path());
    let told = uninstall(&dry).unwrap();
    assert_eq!(tree(image.path()), installed);
    assert_eq!(told, uninstall(&target(&image)).unwrap());
}

#[test]
fn an_edited_configuration_is_kept_and_named() {
    let image = image();
    install(&target(&image), package("page")).unwrap();
    let config = image.path().join(CONFIG);
    fs::write(&config, "edited").unwrap();
    for others in [Others::Respect, Others::Overwrite] {
        let again = install(&Target { others, ..target(&image) }, package("page")).unwrap();
        assert_eq!(what_of(&again, CONFIG), Some(What::Keep));
    }
    let gone = uninstall(&target(&image)).unwrap();
    assert_eq!(what_of(&gone, CONFIG), Some(What::Keep));
    assert_eq!(fs::read(&config).unwrap(), b"edited");
    assert!(!image.path().join(UNIT).exists());
    // One that was there before, or is a link to somewhere, is the operator's too.
    install(&target(&image), package("page")).unwrap();
    assert_eq!(fs::read(&config).unwrap(), b"edited");
    uninstall(&target(&image)).unwrap();
    fs::remove_file(&config).unwrap();
    symlink("/nowhere", &config).unwrap();
    let report = install(&target(&image), package("page")).unwrap();
    assert_eq!(what_of(&report, CONFIG), Some(What::Keep));
}

#[test]
fn a_new_version_replaces_what_is_unchanged_and_drops_what_it_has_no_more() {
    let image = image();
    let newer = Target { systemd: Some(257), ..target(&image) };
    install(&newer, package("old")).unwrap();
    let report = install(&target(&image), package("new")).unwrap();
    assert_eq!(what_of(&report, PAGE), Some(What::Replace));
    let drop_in = "usr/lib/systemd/system/blackhole.service.d/50-systemd-254.conf";
    assert_eq!(what_of(&report, drop_in), Some(What::Remove));
    assert!(!image.path().join(drop_in).exists());
    assert_eq!(fs::read_to_string(image.path().join(PAGE)).unwrap(), "new");
    uninstall(&target(&image)).unwrap();
    assert_eq!(tree(image.path()).len(), 4, "{:?}", tree(image.path()).keys());
}

#[test]
fn files_of_others_stop_it_all_at_once_and_force_takes_them() {
    let image = image();
    install(&target(&image), package("old")).unwrap();
    fs::write(image.path().join(UNIT), "changed").unwrap();
    let alien = "usr/share/man/man1/y.1";
    fs::write(image.path().join(alien), "alien").unwrap();
    let before = tree(image.path());
    let mut two = package("new");
    two.pages.push(Page { path: alien.to_owned(), text: "ours".to_owned() });
    let error = install(&target(&image), two.clone()).unwrap_err();
    let InstallError::Conflicts { conflicts } = &error else { unreachable!("{error}") };
    let changed = Conflict::Changed { path: UNIT.to_owned() };
    let not_ours = Conflict::NotOurs { path: alien.to_owned() };
    assert_eq!(conflicts, &[changed, not_ours]);
    assert_eq!(tree(image.path()), before);
    install(&Target { others: Others::Overwrite, ..target(&image) }, two).unwrap();
    assert_eq!(fs::read_to_string(image.path().join(alien)).unwrap(), "ours");
}

#[test]
fn what_is_there_already_stays_after_an_uninstall() {
    let image = image();
    let place = image.path().join(PAGE);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "page").unwrap();
    install(&target(&image), package("page")).unwrap();
    uninstall(&target(&image)).unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"page");
}

/// The steps of an install or, with no pages, of an uninstall, cut off after `allowance` changes.
fn cut_off(image: &TempDir, text: Option<&str>, allowance: usize) -> Result<(), InstallError> {
    let root = Root::open(image.path()).unwrap();
    let before = manifest(&root).unwrap();
    let items = package::items(package(text.unwrap_or_default()), Some(252));
    let wanted: Vec<_> =
        items.iter().map(|item| (item, root.digest_of(&item.content).unwrap())).collect();
    let found = look(&root, items.iter().map(|item| item.path.as_str()), &before).unwrap();
    let steps = match text {
        Some(_) => Steps::to_install(&wanted, &found, &before, Others::Respect).unwrap(),
        None => Steps::to_uninstall(&found, &before),
    };
    let mut transaction = Transaction::begin(&root, steps.paths()).unwrap();
    transaction.allowance = Some(allowance);
    let done = transaction.carry_out(&steps, &before);
    let left = if done.is_ok() { transaction.commit() } else { transaction.roll_back() };
    assert_eq!(left, Vec::<String>::new());
    done
}

#[test]
fn whatever_fails_nothing_has_changed() {
    let image = image();
    for text in [Some("first"), Some("second"), None] {
        let before = tree(image.path());
        let mut refusals = 0;
        while let Err(error) = cut_off(&image, text, refusals) {
            assert!(matches!(error, InstallError::File { .. }), "{error}");
            assert_eq!(tree(image.path()), before, "after {refusals} changes");
            refusals += 1;
        }
        assert!(refusals > 5, "{refusals}");
        assert_ne!(tree(image.path()), before);
    }
    assert_eq!(tree(image.path()).len(), 4);
}

#[test]
fn an_install_that_was_killed_is_taken_up_again() {
    for allowance in 0..60 {
        let image = image();
        let before = tree(image.path());
        install(&target(&image), package("old")).unwrap();
        let root = Root::open(image.path()).unwrap();
        let manifest_before = manifest(&root).unwrap();
        let items = package::items(package("new"), Some(257));
        let wanted: Vec<_> =
            items.iter().map(|item| (item, root.digest_of(&item.content).unwrap())).collect();
        let paths = items.iter().map(|item| item.path.as_str());
        let found = look(&root, paths, &manifest_before).unwrap();
        let steps = Steps::to_install(&wanted, &found, &manifest_before, Others::Respect).unwrap();
        let mut transaction = Transaction::begin(&root, steps.paths()).unwrap();
        transaction.allowance = Some(allowance);
        let cut = transaction.carry_out(&steps, &manifest_before).is_err();
        // Neither committed nor rolled back.
        drop(transaction);
        install(&Target { systemd: Some(257), ..target(&image) }, package("new")).unwrap();
        uninstall(&target(&image)).unwrap();
        assert_eq!(tree(image.path()), before, "after {allowance} changes");
        if !cut {
            return;
        }
    }
    unreachable!("60 changes are enough");
}

#[test]
fn a_link_out_of_the_image_is_not_followed() {
    let (image, elsewhere) = (image(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), image.path().join("usr/lib")).unwrap();
    let before = tree(image.path());
    let error = install(&target(&image), package("page")).unwrap_err();
    assert!(matches!(error, InstallError::LeadsOut { .. }), "{error}");
    assert_eq!(tree(image.path()), before);
    assert_eq!(tree(elsewhere.path()).len(), 1);
    // One that stays inside is what a merged /usr looks like.
    fs::remove_file(image.path().join("usr/lib")).unwrap();
    fs::create_dir(image.path().join("lib")).unwrap();
    symlink("../lib", image.path().join("usr/lib")).unwrap();
    install(&target(&image), package("page")).unwrap();
    assert!(image.path().join("lib/systemd/system/blackhole.service").exists());
}

#[test]
fn two_at_once_are_one_after_the_other() {
    let image = image();
    let root = Root::open(image.path()).unwrap();
    let _first = Transaction::begin(&root, [].into_iter()).unwrap();
    let error = install(&target(&image), package("page")).unwrap_err();
    assert!(matches!(error, InstallError::Busy { .. }), "{error}");
}

#[test]
fn a_file_in_a_folders_place_is_named() {
    let image = image();
    fs::write(image.path().join("etc"), "").unwrap();
    let before = tree(image.path());
    let error = install(&target(&image), package("page")).unwrap_err().to_string();
    assert!(error.contains("/etc"), "{error}");
    assert_eq!(tree(image.path()), before);
}

#[test]
fn an_enabled_service_is_not_uninstalled() {
    let image = image();
    install(&target(&image), package("page")).unwrap();
    let wants = image.path().join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/usr/lib/systemd/system/blackhole.service", wants.join("blackhole.service")).unwrap();
    let error = uninstall(&target(&image)).unwrap_err();
    assert!(error.to_string().contains("disable blackhole.service"), "{error}");
}

#[test]
fn a_damaged_manifest_is_named_and_believed_by_nobody() {
    let image = image();
    install(&target(&image), package("page")).unwrap();
    fs::write(image.path().join(MANIFEST), "../../etc/passwd\n").unwrap();
    let before = tree(image.path());
    for error in [
        uninstall(&target(&image)).unwrap_err(),
        install(&target(&image), package("page")).unwrap_err(),
    ] {
        assert!(error.to_string().contains("usr/lib/blackhole/manifest"), "{error}");
    }
    assert_eq!(tree(image.path()), before);
}
