//! What a configuration is made of: what the operator gave, and what this host has.

use std::path::{Path, PathBuf};

use crate::units::ByteSize;

/// What the operator gave; later fields win over earlier ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The file's name and its text of at most 1 MiB: YAML where the name ends with `.yaml` or
    /// `.yml`, else TOML.
    pub file: Option<(&'a Path, &'a str)>,
    /// Each `KEY=VALUE` of `--set`, in order; the value is TOML, or a text where it is not.
    pub sets: &'a [String],
    /// `--data-dir`, absolute.
    pub data_dir: Option<&'a Path>,
    /// `--runtime-dir`, absolute.
    pub runtime_dir: Option<&'a Path>,
}

/// What holds on this host when nothing is written. Judged like everything that is written.
#[derive(Debug, Clone)]
pub struct HostDefaults {
    pub node_name: String,
    pub data_dir: PathBuf,
    pub runtime_dir: PathBuf,
    /// How much the host has; none: it is unknown, and nothing is checked against it.
    pub memory: Option<ByteSize>,
    pub processors: Option<u32>,
}
