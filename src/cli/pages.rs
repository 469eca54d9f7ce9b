//! What needs no node: the version of this binary, shell completions, manual pages.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::args::CommandLine;
use super::console::Console;
use super::error::Error;
use crate::install::Page;

const NAME: &str = "blackhole-node";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

/// How `version` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// `version`
pub fn version(format: Format, console: &mut Console<'_>) -> Result<(), Error> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match format {
        Format::Text => writeln!(console.out, "{NAME} {VERSION}")?,
        Format::Json => {
            let version = Version { name: NAME, version: VERSION, os, arch };
            let text = serde_json::to_string(&version).expect("four strings are always JSON");
            writeln!(console.out, "{text}")?;
        }
    }
    Ok(console.out.flush()?)
}

/// `completions`
pub fn completions(shell: Shell, console: &mut Console<'_>) -> Result<(), Error> {
    console.out.write_all(script(shell).as_bytes())?;
    Ok(console.out.flush()?)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    // It panics where it cannot write; into memory it always can.
    clap_complete::generate(shell, &mut visible(CommandLine::command()), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The command without its hidden verbs, which some completion scripts would offer.
fn visible(command: Command) -> Command {
    let shown: Vec<Command> =
        command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let bare = Command::new(NAME)
        .version(VERSION)
        .about(command.get_about().cloned().unwrap_or_default())
        .args(command.get_arguments().cloned());
    bare.subcommands(shown)
}

/// `man`: the main page.
pub fn main_page(console: &mut Console<'_>) -> Result<(), Error> {
    console.out.write_all(page(&documented())?.as_bytes())?;
    Ok(console.out.flush()?)
}

/// `man --output DIR`: one page for each verb, in `dir`, which is made if it is missing. Writes the
/// path of each.
pub fn all_pages(dir: &Path, console: &mut Console<'_>) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::ManualPage { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    for verb in with_all_verbs(&documented()) {
        let path = dir.join(Man::new(verb.clone()).get_filename());
        fs::write(&path, page(verb)?).map_err(failed(&path))?;
        writeln!(console.out, "{}", path.display())?;
    }
    Ok(console.out.flush()?)
}

/// All manual pages and completion scripts, in their places below the root of a host.
pub fn to_install() -> Result<Vec<Page>, Error> {
    let mut pages = Vec::new();
    for verb in with_all_verbs(&documented()) {
        let path = format!("usr/share/man/man1/{}", Man::new(verb.clone()).get_filename());
        pages.push(Page { path, text: page(verb)? });
    }
    let places = [
        (Shell::Bash, "usr/share/bash-completion/completions/blackhole-node"),
        (Shell::Zsh, "usr/share/zsh/vendor-completions/_blackhole-node"),
        (Shell::Fish, "usr/share/fish/vendor_completions.d/blackhole-node.fish"),
    ];
    pages.extend(places.map(|(shell, path)| Page { path: path.to_owned(), text: script(shell) }));
    Ok(pages)
}

/// The command with the names that its verbs have in pages, and without `help`, which has none.
fn documented() -> Command {
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    command
}

fn with_all_verbs(command: &Command) -> Vec<&Command> {
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    std::iter::once(command).chain(shown.flat_map(with_all_verbs)).collect()
}

/// One page. What stands behind the options in `--help`, examples and exit codes, has line breaks
/// that matter, which the generator does not know: `.nf` keeps them (`man(7)`).
fn page(command: &Command) -> Result<String, Error> {
    let mut page = Vec::new();
    Man::new(command.clone()).manual("Blackhole Node").render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    Ok(page.replace(".SH EXTRA\n", ".SH NOTES\n.nf\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::console::{Kind, Paint};

    const VERBS: [&str; 17] = [
        "run",
        "status",
        "start",
        "stop",
        "restart",
        "logs",
        "config",
        "version",
        "reload",
        "scale",
        "set-limits",
        "why",
        "install",
        "uninstall",
        "upgrade",
        "completions",
        "man",
    ];

    fn written(write: impl FnOnce(&mut Console<'_>) -> Result<(), Error>) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (paint, kind) = (Paint::Plain, Kind::Stream);
        write(&mut Console { out: &mut out, err: &mut err, paint, kind }).unwrap();
        assert!(err.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_version_is_the_packages() {
        let text = written(|console| version(Format::Text, console));
        assert_eq!(text, format!("blackhole-node {VERSION}\n"));
        let json = written(|console| version(Format::Json, console));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["name"], &json["version"]), (&NAME.into(), &VERSION.into()));
    }

    #[test]
    fn completions_offer_every_verb_and_no_hidden_one() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = written(|console| completions(shell, console));
            for verb in VERBS {
                assert!(script.contains(verb), "{shell}: {verb}");
            }
            for option in ["runtime-dir", "data-dir", "no-block", "since"] {
                assert!(script.contains(option), "{shell}: {option}");
            }
            assert!(!script.contains("blackhole__node__service"), "{shell}");
            assert!(!script.contains("-a \"service\""), "{shell}");
            assert!(!script.contains("'service:"), "{shell}");
        }
    }

    #[test]
    fn every_verb_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("share/man1");
        let told = written(|console| all_pages(&below, console));
        let names = |name: &str| format!("blackhole-node-{name}.1");
        let mut expected: BTreeSet<String> = VERBS.map(names).into();
        expected.extend(["config-check", "config-schema", "config-show"].map(names));
        expected.insert("blackhole-node.1".to_owned());
        let files = fs::read_dir(&below).unwrap();
        let files: BTreeSet<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(files, expected);
        assert_eq!(told.lines().count(), expected.len());
        for name in files {
            let page = fs::read_to_string(below.join(&name)).unwrap();
            assert!(page.contains(".SH DESCRIPTION"), "{name}");
            assert!(page.contains("\n.nf\n"), "{name}");
        }
    }

    #[test]
    fn the_main_page_tells_the_exit_codes_line_by_line() {
        let page = written(main_page);
        assert!(page.contains(".nf\nExit codes:\n"), "{page}");
        assert!(page.contains("\n  69  no node is running there\n"), "{page}");
        assert!(page.contains("BLACKHOLE_RUNTIME_DIR"), "{page}");
        assert!(!page.contains("\\-help(1)") && !page.contains("\\-service(1)"), "{page}");
    }

    #[test]
    fn a_page_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (paint, kind) = (Paint::Plain, Kind::Stream);
        let mut console = Console { out: &mut out, err: &mut err, paint, kind };
        let error = all_pages(&file.join("man"), &mut console).unwrap_err();
        assert!(error.to_string().contains("/file/man"), "{error}");
    }
}
