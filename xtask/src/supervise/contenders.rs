//! Who races, and how each is set up: the files it reads, the command that starts it, its log
//! files, as its users have them. Knows nothing of what is measured.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::ears::Id;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    Ours,
    /// Spawns, polls pidfds, spawns again; no logs.
    Floor,
    Runit,
    S6,
    /// s6 with run scripts in execline instead of sh.
    S6Execline,
}

pub const ALL: [Contender; 5] =
    [Contender::Ours, Contender::Floor, Contender::Runit, Contender::S6, Contender::S6Execline];

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Floor => "floor",
            Self::Runit => "runit+svlogd",
            Self::S6 => "s6+s6-log",
            Self::S6Execline => "s6 execline",
        }
    }
}

/// What the raced services do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Nothing.
    Wait,
    /// Write so many lines when they are told to.
    Write(u64),
    /// Answer `grpc.health.v1`; ours asks every 10 s.
    Serve,
    /// There are none; our own storage runs in their place.
    Storage,
}

/// The programs of the race.
#[derive(Debug, Clone)]
pub struct Programs {
    pub node: PathBuf,
    /// `service.c`, compiled.
    pub service: PathBuf,
    /// `xtask/race.rs`, whose `serve` answers health checks.
    pub race: PathBuf,
    /// This program, which is also the floor.
    pub own: PathBuf,
}

/// Services to be supervised: their numbers, their duty, and where all of it is kept.
#[derive(Debug)]
pub struct Field<'a> {
    pub programs: &'a Programs,
    /// Where services say that they run.
    pub ears: &'a Path,
    pub first: Id,
    pub count: u32,
    pub duty: Duty,
    /// An empty folder for the supervisor's own files.
    pub folder: &'a Path,
    /// An empty folder for its logs.
    pub logs: &'a Path,
}

/// Everything is written; the command starts the supervisor.
#[derive(Debug)]
pub struct Ready {
    pub command: Command,
    /// Where the services' lines will be.
    pub logs: Vec<PathBuf>,
}

pub fn prepare(contender: Contender, field: &Field<'_>) -> Result<Ready, String> {
    match contender {
        Contender::Ours => ours(field),
        Contender::Floor => Ok(floor(field)),
        Contender::Runit => runit(field),
        Contender::S6 => s6(field, sh),
        Contender::S6Execline => s6(field, execline),
    }
}

impl Field<'_> {
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        self.first..self.first + self.count
    }

    fn service(&self, id: Id) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let (ears, id) = (path(self.ears), id.to_string());
        match self.duty {
            Duty::Wait | Duty::Storage => vec![path(&self.programs.service), ears, id],
            Duty::Write(lines) => {
                vec![path(&self.programs.service), ears, id, lines.to_string()]
            }
            Duty::Serve => vec![path(&self.programs.race), "serve".to_owned(), ears, id],
        }
    }
}

fn floor(field: &Field<'_>) -> Ready {
    let mut command = Command::new(&field.programs.own);
    command.arg("race-floor").arg(&field.programs.service).arg(field.ears);
    command.args([field.first.to_string(), field.count.to_string()]);
    command.stdout(Stdio::null());
    Ready { command, logs: Vec::new() }
}

fn ours(field: &Field<'_>) -> Result<Ready, String> {
    let configuration = field.folder.join("race.toml");
    write(&configuration, &our_configuration(field), 0o644)?;
    let console = field.logs.join("console.json");
    let file = File::create(&console).map_err(failed("create", &console))?;
    let mut command = Command::new(&field.programs.node);
    command.arg("--config").arg(configuration).arg("run").stdout(file);
    Ok(Ready { command, logs: vec![console] })
}

/// What is not said here is at its default, and so are the health checks every 10 s.
fn our_configuration(field: &Field<'_>) -> String {
    let readiness = match field.duty {
        Duty::Wait | Duty::Write(_) | Duty::Storage => "started",
        Duty::Serve => "grpc",
    };
    let mut text = format!(
        "[node]\nname = \"race\"\ndata_dir = {:?}\nruntime_dir = {:?}\n\n\
         [monitoring]\nlog_format = \"json\"\nlog_rate = 0\n",
        field.folder.join("data"),
        field.folder.join("run"),
    );
    for builtin in ["identity", "storage", "ledger", "gateway"] {
        let enabled = builtin == "storage" && field.duty == Duty::Storage;
        let what = format!("\n[services.{builtin}]\nenabled = {enabled}\ndepends_on = []\n");
        text.push_str(&what);
    }
    for id in field.ids() {
        let command = field.service(id);
        text.push_str(&format!(
            "\n[services.s{id}]\ncommand = {command:?}\nreadiness = \"{readiness}\"\n"
        ));
    }
    text
}

fn runit(field: &Field<'_>) -> Result<Ready, String> {
    let scan = field.folder.join("service");
    let mut logs = Vec::new();
    for id in field.ids() {
        let (service, log) = (scan.join(format!("s{id}")), field.logs.join(format!("s{id}")));
        make(&log)?;
        // Size 0: the file is never rotated.
        write(&log.join("config"), "s0\n", 0o644)?;
        write(&service.join("run"), &sh(&field.service(id)), 0o755)?;
        let logger = ["svlogd".to_owned(), "-ttt".to_owned(), log.display().to_string()];
        write(&service.join("log/run"), &sh(&logger), 0o755)?;
        logs.push(log.join("current"));
    }
    // A folder that changed within the last second makes runsvdir wait for the next.
    let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(60));
    let folder = File::open(&scan).and_then(|folder| folder.set_times(old));
    folder.map_err(failed("age", &scan))?;
    let mut command = Command::new("runsvdir");
    command.arg("-P").arg(scan).stdout(Stdio::null());
    Ok(Ready { command, logs })
}

fn s6(field: &Field<'_>, script: fn(&[String]) -> String) -> Result<Ready, String> {
    let scan = field.folder.join("service");
    let mut logs = Vec::new();
    for id in field.ids() {
        let (service, log) = (scan.join(format!("s{id}")), field.logs.join(format!("s{id}")));
        write(&service.join("run"), &script(&field.service(id)), 0o755)?;
        // The largest file before it is rotated; the default is 99,999 bytes.
        let logger = ["s6-log", "n1", "s268435455", "T"].map(str::to_owned);
        let logger: Vec<String> = logger.into_iter().chain([log.display().to_string()]).collect();
        write(&service.join("log/run"), &script(&logger), 0o755)?;
        logs.push(log.join("current"));
    }
    let mut command = Command::new("s6-svscan");
    // The default is at most 500 services.
    command.args(["-t0", "-c2000"]).arg(scan).stdout(Stdio::null());
    Ok(Ready { command, logs })
}

fn sh(words: &[String]) -> String {
    format!("#!/bin/sh\nexec {}\n", words.join(" "))
}

fn execline(words: &[String]) -> String {
    format!("#!/usr/bin/execlineb -P\n{}\n", words.join(" "))
}

/// A folder that the supervisor's files go to, empty.
pub fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(failed("make", folder))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        make(folder)?;
    }
    fs::write(path, text).map_err(failed("write", path))?;
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(failed("chmod", path))
}

fn failed(verb: &str, path: &Path) -> impl Fn(std::io::Error) -> String {
    let what = format!("cannot {verb} {}", path.display());
    move |error| format!("{what}: {error}")
}
