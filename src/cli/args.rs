//! What may stand on the command line, and the help texts. Knows no verb's work.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::exit;
use super::since::Since;
use crate::catalog::Builtin;
use crate::units::{InstanceId, ServiceName};

/// Run this server as a node: services as supervised processes behind one API.
///
/// Without a verb the node runs in the foreground until SIGTERM or SIGINT. Every other verb asks
/// the running node over its control socket, `<runtime-dir>/control.sock`.
#[derive(Debug, Parser)]
#[command(
    name = "blackhole-node",
    version,
    max_term_width = 100,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    after_long_help = exit::table()
)]
pub struct CommandLine {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub verb: Option<AnyVerb>,
}

/// The options that may stand before or after the verb. `--set` is no global argument of clap's,
/// which forgets the values before the verb when there are some behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Global options")]
pub struct Options {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BLACKHOLE_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// Where the node keeps its sockets [default: the unit's RuntimeDirectory=, else /run/blackhole
    /// for root, else $XDG_RUNTIME_DIR/blackhole, else DATA-DIR/run]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BLACKHOLE_RUNTIME_DIR",
        hide_env_values = true
    )]
    pub runtime_dir: Option<PathBuf>,
    /// Where the services keep their data [default: the unit's StateDirectory=, else
    /// /var/lib/blackhole for root, else $XDG_DATA_HOME/blackhole, else ~/.local/share/blackhole]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BLACKHOLE_DATA_DIR",
        hide_env_values = true
    )]
    pub data_dir: Option<PathBuf>,
    /// Set one configuration key, over the file's value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    pub sets: Vec<String>,
}

/// `--set` behind the verbs that read a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Settings {
    /// Set one configuration key, over the file's value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    pub sets: Vec<String>,
}

/// Everything that can stand in the verb's place.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum AnyVerb {
    /// Run the node in the foreground; the same as no verb.
    ///
    /// It starts every enabled service and ends, with all of them, at SIGTERM or SIGINT.
    #[command(after_long_help = "Example:\n  blackhole-node run --set api.http_port=8080")]
    Run(Settings),
    #[command(hide = true)]
    Service {
        #[arg(value_parser = builtin)]
        name: Builtin,
    },
    /// The unit's ExecStopPost=
    #[command(hide = true)]
    AfterStop,
    #[command(flatten)]
    Verb(Verb),
}

/// What an operator asks for. All but `config`, `install`, `uninstall`, `version`, `completions`
/// and `man` need a running node.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Show how the node and its services are.
    ///
    /// With a NAME it shows everything about that service or instance and its newest log lines,
    /// and exits with 3 when one of its instances is not ready.
    #[command(after_long_help = "Examples:\n  \
        blackhole-node status\n  \
        blackhole-node status storage\n  \
        blackhole-node status --security\n  \
        blackhole-node status --json | jq '.instances[] | select(.phase != \"ready\")'")]
    Status(StatusArgs),
    /// Start services and wait until they are ready.
    ///
    /// Prints one line for each instance; exits with 1 when one ended failed. A service that runs
    /// already is left alone.
    #[command(after_long_help = "Example:\n  blackhole-node start storage")]
    Start(ActArgs),
    /// Stop services, or the whole node, and wait until they are gone.
    ///
    /// A service that was stopped stays stopped until it is started. Without a NAME the node stops
    /// all services and itself; the verb returns when its process has ended.
    #[command(after_long_help = "Examples:\n  blackhole-node stop storage\n  blackhole-node stop")]
    Stop(StopArgs),
    /// Stop services, start them again and wait until they are ready.
    ///
    /// Their sockets stay open meanwhile: callers wait and are not refused.
    #[command(after_long_help = "Example:\n  blackhole-node restart storage-0")]
    Restart(ActArgs),
    /// Read the configuration anew and apply what changed.
    ///
    /// Only what changed is touched: services whose process is started otherwise are restarted, new
    /// ones started, removed ones stopped; other rules hold at once. A wrong configuration changes
    /// nothing: every error is shown, and the exit code is 78. SIGHUP does the same.
    #[command(after_long_help = "Example:\n  blackhole-node reload")]
    Reload(ReplanArgs),
    /// Replace the running orchestrator by another program, such as a newer version, in place.
    ///
    /// Services, sockets and logs do not notice. The program is asked first whether it can go on
    /// from where the node stands; if it cannot, nothing changes and the exit code is 1. `reload`
    /// does the same when the file that the node was started from was replaced.
    #[command(after_long_help = "Examples:\n  \
        apt-get install --only-upgrade blackhole-node && blackhole-node upgrade\n  \
        blackhole-node upgrade --binary ./target/release/blackhole-node")]
    Upgrade(UpgradeArgs),
    /// Change how many instances of a service run.
    ///
    /// Only the difference is started or stopped; callers of the service's shared socket are not
    /// refused. It holds until the node ends, or the configuration says another number.
    #[command(after_long_help = "Example:\n  blackhole-node scale storage 3")]
    Scale(ScaleArgs),
    /// Change what a service may use, while it runs.
    ///
    /// The keys are those of its section [services.NAME.resources] that a process can follow:
    /// memory, memory_high, memory_low, memory_min, memory_swap, oom_group, cpu_cores (or cpu),
    /// cpu_weight, io_weight, max_tasks (or tasks). "none" lifts a limit. Nothing is killed for it:
    /// where the memory in use does not come down within 5 s, everything stays as it was, and the
    /// exit code is 1. It holds until the node ends, or the configuration says another value.
    #[command(after_long_help = "Examples:\n  \
        blackhole-node set-limits storage memory=1GiB cpu=0.5\n  \
        blackhole-node set-limits web tasks=none")]
    SetLimits(SetLimitsArgs),
    /// Answer why a service is not up, or was started again.
    ///
    /// One screen for each instance: what it waits for, what happened to it, the rules that were
    /// applied, and the last lines it logged.
    #[command(after_long_help = "Example:\n  blackhole-node why storage")]
    Why(WhyArgs),
    /// Show what the services and the node itself logged.
    ///
    /// Shows all lines that the node keeps in memory, oldest first; `node` is the name of the
    /// orchestrator's own lines. Lines that were not kept are counted in between.
    #[command(after_long_help = "Examples:\n  \
        blackhole-node logs storage --follow\n  \
        blackhole-node logs --since 10m\n  \
        blackhole-node logs storage-0 -n 100 --json | jq .fields")]
    Logs(LogsArgs),
    /// Check or show the configuration, without a running node.
    #[command(subcommand, after_long_help = "Example:\n  blackhole-node config check node.toml")]
    Config(ConfigVerb),
    /// Install this binary as a service of systemd.
    ///
    /// Puts the binary, the unit, a configuration, manual pages and completions in their places,
    /// all or nothing, with a list of them in /usr/lib/blackhole/manifest. An edited configuration
    /// is kept. The service is neither enabled nor started: the last line says how.
    #[command(after_long_help = "Examples:\n  \
        blackhole-node install && systemctl enable --now blackhole\n  \
        blackhole-node install --root /mnt/image --systemd 257")]
    Install(InstallArgs),
    /// Remove what install has put in place.
    ///
    /// Files that were changed since are kept and named. The data of the services is left, and so
    /// is the user that they ran as.
    #[command(after_long_help = "Example:\n  \
        systemctl disable --now blackhole && blackhole-node uninstall")]
    Uninstall(PlaceArgs),
    /// Show the version of this binary.
    ///
    /// The version of a running node stands in `blackhole-node status`.
    #[command(after_long_help = "Example:\n  blackhole-node version --json")]
    Version {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the completion script of a shell.
    ///
    /// Source the script from the shell's start-up file, or save it in the folder where the shell
    /// looks for completions.
    #[command(after_long_help = "Example:\n  source <(blackhole-node completions bash)")]
    Completions { shell: Shell },
    /// Print the manual page, or write the pages of all verbs.
    ///
    /// Without --output the main page goes to standard output. With it the folder is made if it
    /// is missing and gets one file for each verb.
    #[command(after_long_help = "Examples:\n  \
        blackhole-node man | man -l -\n  \
        blackhole-node man --output /usr/local/share/man/man1")]
    Man {
        /// Write all pages into this folder
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

/// `install`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Install for this version of systemd [default: the version found below DIR]
    #[arg(long, value_name = "VERSION")]
    pub systemd: Option<u32>,
    /// Replace files in the way: of others, or changed since they were installed. Never the
    /// configuration
    #[arg(long)]
    pub force: bool,
}

/// `uninstall`, and what `install` has in common with it
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PlaceArgs {
    /// The root folder of the system or image
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Change nothing, only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `status`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StatusArgs {
    /// A service (storage) or an instance (storage-0)
    #[arg(value_parser = service_or_instance)]
    pub name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Show it again every second until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Show what the services are kept from, as the kernel says it
    #[arg(long)]
    pub security: bool,
}

/// `why`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct WhyArgs {
    /// A service (storage) or an instance (storage-0)
    #[arg(value_parser = service_or_instance)]
    pub name: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `start` and `restart`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ActArgs {
    /// Services (storage) or instances (storage-0)
    #[arg(required = true, value_name = "NAME", value_parser = service_or_instance)]
    pub names: Vec<String>,
    /// Return as soon as the node has accepted the command
    #[arg(long)]
    pub no_block: bool,
}

/// `reload`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReplanArgs {
    /// Return as soon as the node has accepted the configuration
    #[arg(long)]
    pub no_block: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `upgrade`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct UpgradeArgs {
    /// The program to become [default: what stands now where the running one was started from]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `scale`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ScaleArgs {
    /// A service
    #[arg(value_parser = service)]
    pub name: String,
    /// How many instances of it are to run, 1 to 64
    #[arg(value_name = "INSTANCES")]
    pub instances: u32,
    #[command(flatten)]
    pub replan: ReplanArgs,
}

/// `set-limits`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SetLimitsArgs {
    /// A service
    #[arg(value_parser = service)]
    pub name: String,
    /// What it may use, such as memory=512MiB
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = limit)]
    pub limits: Vec<String>,
    #[command(flatten)]
    pub replan: ReplanArgs,
}

/// `stop`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StopArgs {
    /// Services (storage) or instances (storage-0); none: the whole node
    #[arg(value_name = "NAME", value_parser = service_or_instance)]
    pub names: Vec<String>,
    /// Return as soon as the node has accepted the command
    #[arg(long)]
    pub no_block: bool,
}

/// `logs`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct LogsArgs {
    /// A service (storage), an instance (storage-0), or node
    #[arg(value_parser = log_source)]
    pub name: Option<String>,
    /// Go on with new lines until Ctrl-C; begins with the newest 10 unless told otherwise
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the newest N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,
    /// Only lines since then: 10m (ago), 2026-01-02T03:04:05Z, or "2026-01-02 03:04:05" (UTC)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `config check`, `config show` and `config schema`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ConfigVerb {
    /// Check a configuration and show every error in it.
    ///
    /// Nothing is started or changed. Exits with 78 when there is an error.
    #[command(after_long_help = "Example:\n  blackhole-node config check /etc/blackhole/node.toml")]
    Check {
        /// The file to check, rather than that of --config
        file: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show the configuration that the node would use, with all defaults.
    ///
    /// The file, --set and the built-in defaults are merged, as they are for `run`. Behind each
    /// value stands where it comes from; what is shown is a configuration file itself.
    #[command(after_long_help = "Examples:\n  \
        blackhole-node config show --set api.http_port=9000\n  \
        blackhole-node config show --json | jq '.\"api.http_port\"'")]
    Show {
        /// Print one JSON object: of each key the value and the source
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the JSON Schema of the configuration.
    ///
    /// Editors complete and check a configuration by it (JSON Schema 2020-12). What only shows when
    /// several keys are seen together, only `config check` finds.
    #[command(after_long_help = "Example:\n  blackhole-node config schema > blackhole.schema.json")]
    Schema,
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err("write KEY=VALUE, such as api.http_port=8080".to_owned()),
    }
}

fn limit(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err("write KEY=VALUE, such as memory=512MiB".to_owned()),
    }
}

fn builtin(text: &str) -> Result<Builtin, String> {
    Builtin::from_name(text).ok_or_else(|| {
        let known = Builtin::ALL.map(|builtin| builtin.entry().name).join(", ");
        format!("the built-in services are {known}")
    })
}

fn service_or_instance(text: &str) -> Result<String, String> {
    if text.parse::<InstanceId>().is_ok() {
        return Ok(text.to_owned());
    }
    service(text)
}

fn service(text: &str) -> Result<String, String> {
    text.parse::<ServiceName>().map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn log_source(text: &str) -> Result<String, String> {
    if text == "node" { Ok(text.to_owned()) } else { service_or_instance(text) }
}
