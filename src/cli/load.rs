//! From the command line's options to a loaded configuration: reads the one file, knows this
//! host's defaults. What the text means is the `config` room's business.

use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::thread;

use super::args::Options;
use super::config::{Answer, Question, What};
use super::dirs::{Environment, NoHome};
use crate::config::{ConfigErrors, HostDefaults, Loaded, Sources, load, schema, show, show_json};
use crate::units::ByteSize;

const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const MEMINFO: &str = "/proc/meminfo";
/// The node's name where the host's is none that a node can have.
const NAMELESS: &str = "node";

/// The name of a text that is in no file.
const IN_FORCE: &str = "the configuration in force";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the configuration {}: {reason}", path.display())]
    Read { path: PathBuf, reason: io::Error },
    #[error("cannot tell which folder {} is: {reason}", path.display())]
    Folder { path: PathBuf, reason: io::Error },
    #[error("{0}")]
    NoHome(#[from] NoHome),
    #[error("{0}")]
    Wrong(#[from] ConfigErrors),
}

/// A configuration and where it came from, in words.
#[derive(Debug)]
pub struct FromOptions {
    pub loaded: Loaded,
    pub origin: String,
}

/// Loads what `--config`, `--set`, `--data-dir` and `--runtime-dir` ask for.
pub fn from_options(options: &Options) -> Result<FromOptions, LoadError> {
    let text = options.config.as_deref().map(read).transpose()?;
    let file = options.config.as_deref().zip(text.as_deref());
    let loaded = load_from(options, file, &options.sets)?;
    Ok(FromOptions { loaded, origin: origin(options) })
}

/// Loads a configuration that was in force before, as the full text that `config show` writes.
pub fn from_text(options: &Options, text: &str) -> Result<FromOptions, LoadError> {
    let loaded = load_from(options, Some((Path::new(IN_FORCE), text)), &[])?;
    Ok(FromOptions { loaded, origin: "what was in force before".to_owned() })
}

fn load_from(
    options: &Options,
    file: Option<(&Path, &str)>,
    sets: &[String],
) -> Result<Loaded, LoadError> {
    let environment = Environment::of_this_process();
    let data_dir = options.data_dir.as_deref().map(whole).transpose()?;
    let runtime_dir = options.runtime_dir.as_deref().map(whole).transpose()?;
    let host = HostDefaults {
        node_name: host_name(),
        data_dir: match &data_dir {
            Some(given) => given.clone(),
            None => environment.data_dir()?,
        },
        runtime_dir: environment.runtime_dir(data_dir.as_deref())?,
        memory: memory(),
        processors: thread::available_parallelism()
            .ok()
            .and_then(|processors| u32::try_from(processors.get()).ok()),
    };
    let sources =
        Sources { file, sets, data_dir: data_dir.as_deref(), runtime_dir: runtime_dir.as_deref() };
    Ok(load(&sources, &host)?)
}

/// What the verbs of `config` answer.
pub fn ask(question: &Question) -> Answer {
    let load = || from_options(&question.options).map_err(|error| error.to_string());
    match question.what {
        What::Schema => Ok(schema()),
        What::Show => Ok(show(&load()?.loaded)),
        What::ShowJson => Ok(show_json(&load()?.loaded)),
        What::Check => {
            let FromOptions { loaded, origin } = load()?;
            let mut answer = format!("{origin}: ok");
            for remark in &loaded.remarks {
                answer.push_str(&format!("\nwarning: {remark}"));
            }
            Ok(answer)
        }
    }
}

fn origin(options: &Options) -> String {
    let file = match &options.config {
        Some(path) => path.display().to_string(),
        None => "built-in defaults".to_owned(),
    };
    match options.sets.len() {
        0 => file,
        1 => format!("{file}, with one --set"),
        sets => format!("{file}, with {sets} --set"),
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|reason| LoadError::Read { path: path.to_owned(), reason })
}

fn whole(path: &Path) -> Result<PathBuf, LoadError> {
    absolute(path).map_err(|reason| LoadError::Folder { path: path.to_owned(), reason })
}

fn host_name() -> String {
    let name = fs::read_to_string(HOSTNAME).unwrap_or_default();
    let name = name.trim();
    let usable = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_graphic());
    if usable { name.to_owned() } else { NAMELESS.to_owned() }
}

/// The first line of meminfo is `MemTotal: 16384 kB` (proc_meminfo(5)).
fn memory() -> Option<ByteSize> {
    let text = fs::read_to_string(MEMINFO).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse().ok().map(ByteSize::kib)
}
