//! `install` and `uninstall`: what was done, one line a file.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{InstallArgs, PlaceArgs};
use super::console::{Console, printable};
use super::error::Error;
use super::exit::ExitCode;
use super::pages;
use crate::install::{self, Extent, Others, Package, Report, Target};

pub fn install(args: &InstallArgs, console: &mut Console<'_>) -> Result<ExitCode, Error> {
    let others = if args.force { Others::Overwrite } else { Others::Respect };
    let target = Target { others, systemd: args.systemd, ..target(&args.place) };
    // Still there when its file was replaced or removed.
    let package = Package { executable: "/proc/self/exe".into(), pages: pages::to_install()? };
    let report = install::install(&target, package)?;
    show(&report, &args.place, console)
}

pub fn uninstall(args: &PlaceArgs, console: &mut Console<'_>) -> Result<ExitCode, Error> {
    show(&install::uninstall(&target(args))?, args, console)
}

fn target(args: &PlaceArgs) -> Target {
    Target {
        root: args.root.clone(),
        systemd: None,
        others: Others::Respect,
        extent: if args.dry_run { Extent::DryRun } else { Extent::Real },
    }
}

fn show(report: &Report, args: &PlaceArgs, console: &mut Console<'_>) -> Result<ExitCode, Error> {
    let text = if args.json { format!("{}\n", object(report, args)) } else { lines(report, args) };
    console.out.write_all(text.as_bytes())?;
    console.out.flush()?;
    Ok(ExitCode::Ok)
}

fn lines(report: &Report, args: &PlaceArgs) -> String {
    let mut text = String::new();
    if args.dry_run {
        text += "dry run, nothing is changed\n";
    }
    for deed in &report.deeds {
        let place = args.root.join(&deed.path);
        text += &format!("{:<9}  {}\n", deed.what.word(), printable(&place.display().to_string()));
    }
    for command in &report.ran {
        text += &format!("{:<9}  {command}\n", "ran");
    }
    for remark in &report.remarks {
        text += &format!("note: {}\n", printable(remark));
    }
    if let Some(next) = &report.next {
        text += &format!("next: {}\n", printable(next));
    }
    text
}

fn object(report: &Report, args: &PlaceArgs) -> Value {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let files = report
        .deeds
        .iter()
        .map(|deed| json!({ "path": path(&args.root.join(&deed.path)), "what": deed.what.word() }));
    json!({
        "root": path(&args.root),
        "dry_run": args.dry_run,
        "systemd": report.systemd,
        "files": files.collect::<Vec<_>>(),
        "ran": report.ran,
        "remarks": report.remarks,
        "next": report.next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{Deed, What};

    fn report() -> Report {
        let deed = |path: &str, what| Deed { path: path.to_owned(), what };
        Report {
            deeds: vec![
                deed("etc/blackhole/config.toml", What::Keep),
                deed("usr/bin/blackhole-node", What::Replace),
            ],
            systemd: Some(252),
            ran: vec!["systemctl daemon-reload".to_owned()],
            remarks: vec!["mind it".to_owned()],
            next: Some("systemctl enable --now blackhole.service".to_owned()),
        }
    }

    fn place() -> PlaceArgs {
        PlaceArgs { root: "/mnt".into(), dry_run: false, json: false }
    }

    #[test]
    fn each_file_is_a_line_and_the_next_command_is_the_last() {
        let expected = "kept       /mnt/etc/blackhole/config.toml\n\
            replaced   /mnt/usr/bin/blackhole-node\n\
            ran        systemctl daemon-reload\n\
            note: mind it\n\
            next: systemctl enable --now blackhole.service\n";
        assert_eq!(lines(&report(), &place()), expected);
        let dry = PlaceArgs { dry_run: true, ..place() };
        assert_eq!(lines(&report(), &dry), format!("dry run, nothing is changed\n{expected}"));
    }

    #[test]
    fn the_object_has_the_same() {
        let object = object(&report(), &place());
        assert_eq!(object["files"][1]["path"], "/mnt/usr/bin/blackhole-node");
        assert_eq!(object["files"][1]["what"], "replaced");
        assert_eq!((&object["systemd"], &object["dry_run"]), (&json!(252), &json!(false)));
    }
}
