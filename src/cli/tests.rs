//! The command line as it is typed, and the verbs against a fake node.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use clap::CommandFactory;
use tokio::sync::Notify;

use super::args::CommandLine;
use super::logs::tests::record;
use super::since::Since;
use super::status::tests::{ready, troubled};
use super::*;
use crate::control::SOCKET;
use crate::control::fake::{Fake, Script};
use crate::rpc::pb::node::NodeStatus;

fn life(line: &str) -> Result<Life, clap::error::ErrorKind> {
    let arguments = std::iter::once("blackhole-node").chain(line.split_whitespace());
    parse_from(arguments).map_err(|error| error.kind())
}

fn verb(line: &str) -> Verb {
    match life(line) {
        Ok(Life::Verb(verb, _)) => verb,
        other => panic!("{line}: {other:?}"),
    }
}

mod parsing {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_verb_and_run_are_the_orchestrator() {
        assert_eq!(life(""), Ok(Life::Run(Options::default())));
        assert_eq!(life("run"), life(""));
    }

    #[test]
    fn a_service_life_is_hidden_and_only_for_built_in_services() {
        assert_eq!(life("service storage"), Ok(Life::Service(Builtin::Storage)));
        assert_eq!(life("service nginx"), Err(ErrorKind::ValueValidation));
        assert!(!CommandLine::command().render_long_help().to_string().contains("service NAME"));
    }

    #[test]
    fn options_stand_before_or_after_the_verb() {
        let expected = Options {
            config: Some("n.toml".into()),
            runtime_dir: Some("/r".into()),
            data_dir: Some("/d".into()),
            sets: vec!["a=1".to_owned(), "b=x=y".to_owned()],
        };
        let options = "--config n.toml --runtime-dir /r --data-dir=/d --set a=1 --set b=x=y";
        for line in [options.to_owned(), format!("{options} run"), format!("run {options}")] {
            assert_eq!(life(&line), Ok(Life::Run(expected.clone())), "{line}");
        }
        let (place, expected) = ("--runtime-dir /r", Some("/r".into()));
        for line in [format!("{place} status"), format!("status {place}")] {
            let Ok(Life::Verb(_, options)) = life(&line) else { panic!("{line}") };
            assert_eq!(options.runtime_dir, expected, "{line}");
        }
    }

    #[test]
    fn settings_on_both_sides_of_the_verb_all_count() {
        let sets = |sets: &[&str]| sets.iter().map(|set| (*set).to_owned()).collect();
        let all = Options { sets: sets(&["a=1", "b=2", "c=3"]), ..Options::default() };
        assert_eq!(life("--set a=1 run --set b=2 --set c=3"), Ok(Life::Run(all)));
        let before = Options { sets: sets(&["a=1"]), ..Options::default() };
        let settings = Settings { sets: sets(&["b=2"]) };
        let show = Verb::Config(ConfigVerb::Show { json: false, settings });
        let both = Life::Verb(show, before);
        assert_eq!(life("--set a=1 config show --set b=2"), Ok(both));
    }

    #[test]
    fn a_setting_that_would_have_no_effect_is_refused() {
        assert_eq!(life("--set a=1 status"), Err(ErrorKind::ArgumentConflict));
        assert_eq!(life("status --set a=1"), Err(ErrorKind::UnknownArgument));
    }

    #[test]
    fn a_setting_is_a_key_and_a_value() {
        assert_eq!(life("run --set port"), Err(ErrorKind::ValueValidation));
        assert_eq!(life("run --set =1"), Err(ErrorKind::ValueValidation));
    }

    #[test]
    fn status_takes_one_name_and_two_flags() {
        assert_eq!(verb("status"), Verb::Status(StatusArgs::default()));
        let all = StatusArgs {
            name: Some("storage-0".to_owned()),
            json: true,
            watch: true,
            security: false,
        };
        assert_eq!(verb("status --watch storage-0 --json"), Verb::Status(all));
        assert_eq!(life("status a b"), Err(ErrorKind::UnknownArgument));
        assert_eq!(life("status ../x"), Err(ErrorKind::ValueValidation));
    }

    #[test]
    fn acting_verbs_take_names() {
        let names = vec!["storage".to_owned(), "ledger-0".to_owned()];
        let args = ActArgs { names: names.clone(), no_block: false };
        assert_eq!(verb("start storage ledger-0"), Verb::Start(args.clone()));
        assert_eq!(verb("restart storage ledger-0"), Verb::Restart(args));
        let args = ActArgs { names: names.clone(), no_block: true };
        assert_eq!(verb("start --no-block storage ledger-0"), Verb::Start(args));
        assert_eq!(verb("stop storage ledger-0"), Verb::Stop(StopArgs { names, no_block: false }));
        let node = StopArgs { names: vec![], no_block: true };
        assert_eq!(verb("stop --no-block"), Verb::Stop(node));
        assert_eq!(life("start"), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(life("restart"), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(life("stop UPPER"), Err(ErrorKind::ValueValidation));
        assert_eq!(life("scale storage"), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(life("set-limits storage"), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(life("set-limits storage memory"), Err(ErrorKind::ValueValidation));
        assert_eq!(life("scale storage -1"), Err(ErrorKind::UnknownArgument));
        assert_eq!(life("scale storage many"), Err(ErrorKind::ValueValidation));
    }

    #[test]
    fn logs_take_a_name_and_bounds() {
        assert_eq!(verb("logs"), Verb::Logs(LogsArgs::default()));
        let since = Some(Since::Ago(Duration::from_secs(600)));
        let name = Some("node".to_owned());
        let all = LogsArgs { name, follow: true, lines: Some(5), since, json: true };
        assert_eq!(verb("logs node -f -n 5 --since 10m --json"), Verb::Logs(all.clone()));
        assert_eq!(verb("logs -fn5 --since=10m --json node"), Verb::Logs(all.clone()));
        assert_eq!(verb("logs --follow --lines 5 --since 10m --json node"), Verb::Logs(all));
        assert_eq!(life("logs -n -1"), Err(ErrorKind::UnknownArgument));
        assert_eq!(life("logs --since yesterday"), Err(ErrorKind::ValueValidation));
    }

    #[test]
    fn the_verbs_without_a_node_parse() {
        let check = |file| ConfigVerb::Check { file, settings: Settings::default() };
        assert_eq!(verb("config check x.toml"), Verb::Config(check(Some("x.toml".into()))));
        assert_eq!(verb("config check"), Verb::Config(check(None)));
        assert_eq!(verb("version --json"), Verb::Version { json: true });
        assert_eq!(verb("version"), Verb::Version { json: false });
        let shell = clap_complete::Shell::Fish;
        assert_eq!(verb("completions fish"), Verb::Completions { shell });
        assert_eq!(verb("man"), Verb::Man { output: None });
        assert_eq!(verb("man --output d"), Verb::Man { output: Some("d".into()) });
        assert_eq!(life("config"), Err(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand));
        assert_eq!(life("completions csh"), Err(ErrorKind::InvalidValue));
        assert_eq!(life("nonsense"), Err(ErrorKind::InvalidSubcommand));
    }

    #[test]
    fn every_help_text_fits_80_columns_and_has_an_example() {
        let mut command = CommandLine::command().term_width(80).disable_help_subcommand(true);
        command.build();
        check_help(&mut command);
    }

    fn check_help(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        if name != "blackhole-node" {
            assert!(help.contains("Example"), "{name}");
        }
        for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
            check_help(verb);
        }
    }

    #[test]
    fn the_help_ends_with_the_exit_codes() {
        let help = CommandLine::command().render_long_help().to_string();
        assert!(
            help.ends_with("78  the configuration is wrong, or more than this host can keep\n"),
            "{help}"
        );
    }
}

/// An output that tests read while the verb still writes.
#[derive(Clone, Default)]
struct Shared {
    bytes: Rc<RefCell<Vec<u8>>>,
    written: Rc<Notify>,
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.borrow().clone()).unwrap()
    }

    async fn until(&self, part: &str, times: usize) {
        while self.text().matches(part).count() < times {
            self.written.notified().await;
        }
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.borrow_mut().extend_from_slice(bytes);
        self.written.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn no_config(_question: &Question) -> Answer {
    Err("this test has no configuration".to_owned())
}

/// Runs one line against `fake`; gives the exit code and both outputs.
async fn typed(fake: &Fake, line: &str) -> (ExitCode, String, String) {
    typed_until(fake, line, Shared::default(), std::future::pending()).await
}

async fn typed_until(
    fake: &Fake,
    line: &str,
    mut out: Shared,
    end: impl Future<Output = ()>,
) -> (ExitCode, String, String) {
    let mut err = Shared::default();
    let (seen, told) = (out.clone(), err.clone());
    let kind = Kind::Stream;
    let mut console = Console { out: &mut out, err: &mut err, paint: Paint::Plain, kind };
    let options = Options { runtime_dir: Some(fake.dir().to_owned()), ..Options::default() };
    let result = run(&verb(line), &options, no_config, &mut console, end).await;
    let code = result.unwrap_or_else(|error| tell(&error, &mut console));
    (code, seen.text(), told.text())
}

fn said(code: ExitCode, out: &str, err: &str) -> (ExitCode, String, String) {
    (code, out.to_owned(), err.to_owned())
}

fn troubled_node() -> Fake {
    let mut gap = record("storage-0", "second");
    gap.skipped = 12;
    gap.unix_us += 1_000_000;
    let records = vec![record("storage-0", "first"), record("node", "hello"), gap];
    Fake::start(Script { status: troubled(), records, ..Script::default() })
}

mod against_a_fake_node {
    use super::*;

    #[tokio::test]
    async fn status_shows_the_table() {
        let (code, out, err) = typed(&troubled_node(), "status").await;
        assert_eq!((code, err.as_str()), (ExitCode::Ok, ""));
        assert!(out.starts_with("node alpha  degraded  0.1.0"), "{out}");
        assert!(out.contains("storage-0: waits for identity"), "{out}");
    }

    #[tokio::test]
    async fn status_of_one_service_exits_with_what_it_is() {
        let fake = troubled_node();
        let (code, out, _) = typed(&fake, "status identity").await;
        assert_eq!(code, ExitCode::Ok);
        assert!(out.starts_with("identity-0  ready\n"), "{out}");
        let (code, out, _) = typed(&fake, "status storage-0").await;
        assert_eq!(code, ExitCode::NotReady);
        assert!(out.contains("INFO  storage-0  first"), "{out}");
        let social = typed(&fake, "status social").await;
        let text = "social is disabled in the configuration\n";
        assert_eq!(social, said(ExitCode::NotReady, text, ""));
        let nginx = typed(&fake, "status nginx").await;
        assert_eq!(nginx, said(ExitCode::NoSuchService, "", "there is no service nginx\n"));
    }

    #[tokio::test]
    async fn why_is_one_screen_or_one_object() {
        let fake = troubled_node();
        let (code, out, err) = typed(&fake, "why storage").await;
        assert_eq!((code, err.as_str()), (ExitCode::Ok, ""));
        assert!(out.starts_with("storage-0 is "), "{out}");
        let titles = ["\nwaits for:\n", "\nrules:\n", "\nwhat happened:\n", "\nits last lines:\n"];
        let places: Vec<usize> = titles.iter().map(|title| out.find(title).unwrap()).collect();
        assert!(places.is_sorted(), "{out}");
        assert!(out.contains("2024-01-15T10:30:00.000123Z  run 3 ended: "), "{out}");
        let (_, out, _) = typed(&fake, "why storage --json").await;
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["instances"][0]["status"]["instance"], "storage-0");
        assert_eq!(object["instances"][0]["happenings"][0]["run"], 3);
        assert_eq!(typed(&fake, "why nosuch").await.0, ExitCode::NoSuchService);
    }

    #[tokio::test]
    async fn status_json_is_one_object_with_the_same_exit_code() {
        let fake = troubled_node();
        let (code, out, _) = typed(&fake, "status ledger --json").await;
        assert_eq!(code, ExitCode::NotReady);
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(parsed["instances"][0]["phase"], "failed");
        assert_eq!(parsed["instances"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn start_says_what_became_of_each_instance() {
        let fake = troubled_node();
        let identity = typed(&fake, "start identity").await;
        assert_eq!(identity, said(ExitCode::Ok, "identity-0 ready (pid 1002)\n", ""));
        let accepted = typed(&fake, "restart --no-block storage-0").await;
        let line = "storage-0 accepted: waits for identity\n";
        assert_eq!(accepted, said(ExitCode::Ok, line, ""));
        let stopped = typed(&fake, "stop ledger").await;
        assert_eq!(stopped, said(ExitCode::Ok, "ledger-0 stopped\n", ""));
    }

    #[tokio::test]
    async fn reload_says_what_changed_or_what_is_wrong() {
        let status = NodeStatus { instances: vec![ready("web")], ..troubled() };
        let mut script = Script { status, ..Script::default() };
        let told = typed(&Fake::start(script.clone()), "reload").await;
        let text = "configuration: node.toml\nweb-0 restarted (command): ready (pid 1002)\n";
        assert_eq!(told, said(ExitCode::Ok, text, ""));
        let (_, out, _) = typed(&Fake::start(script.clone()), "reload --json").await;
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["changes"][0]["what"], "restarted");
        script.wrong_configuration = Some("node.toml:1:1: no".to_owned());
        let told = typed(&Fake::start(script), "reload").await;
        let text = "the configuration is wrong, and nothing was changed:\nnode.toml:1:1: no\n";
        assert_eq!(told, said(ExitCode::Configuration, "", text));
    }

    #[tokio::test]
    async fn scale_says_what_came() {
        let told = typed(&troubled_node(), "scale storage 3").await;
        assert_eq!(told, said(ExitCode::Ok, "storage-1 added\nstorage-2 added\n", ""));
        assert_eq!(typed(&troubled_node(), "scale web 3").await.0, ExitCode::Ok);
        assert_eq!(typed(&troubled_node(), "scale nosuch 3").await.0, ExitCode::NoSuchService);
    }

    #[tokio::test]
    async fn set_limits_says_whose_limits_hold_or_why_not() {
        let told = typed(&troubled_node(), "set-limits identity memory=64MiB tasks=9").await;
        let text = "identity-0 adjusted (limits): ready (pid 1002)\n";
        assert_eq!(told, said(ExitCode::Ok, text, ""));
        let (code, _, err) = typed(&troubled_node(), "set-limits identity memory=1MiB").await;
        assert_eq!(code, ExitCode::Failed);
        assert_eq!(err, "identity-0: its memory does not come down to 1MiB\n");
        let (code, ..) = typed(&troubled_node(), "set-limits nosuch memory=1GiB").await;
        assert_eq!(code, ExitCode::NoSuchService);
    }

    #[tokio::test]
    async fn one_failure_does_not_hide_the_others() {
        let (code, out, err) = typed(&troubled_node(), "restart ledger identity").await;
        assert_eq!(code, ExitCode::Failed);
        assert_eq!(out, "identity-0 ready (pid 1002)\n");
        assert_eq!(err, "ledger-0 failed: exit code 1\n");
    }

    #[tokio::test]
    async fn an_unknown_name_among_known_ones_changes_nothing() {
        let (code, out, err) = typed(&troubled_node(), "stop identity storag").await;
        assert_eq!((code, out.as_str()), (ExitCode::NoSuchService, ""));
        assert!(err.starts_with("no service or instance is named storag; "), "{err}");
    }

    #[tokio::test]
    async fn stop_of_the_node_returns_when_nothing_listens_any_more() {
        let fake = troubled_node();
        let stopped = typed(&fake, "stop").await;
        assert_eq!(stopped, said(ExitCode::Ok, "stopping node alpha (pid 4242)\n", ""));
        let again = std::os::unix::net::UnixStream::connect(fake.dir().join(SOCKET));
        assert!(again.is_err());
    }

    #[tokio::test]
    async fn logs_are_filtered_by_the_node_and_tell_gaps() {
        let fake = troubled_node();
        let (code, out, _) = typed(&fake, "logs storage").await;
        assert_eq!(code, ExitCode::Ok);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        assert!(lines[0].contains("first") && lines[2].contains("second"), "{out}");
        assert_eq!(lines[1], "-- 12 lines skipped --");
        let (_, out, _) = typed(&fake, "logs node --json -n 1").await;
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(parsed["message"], "hello");
        let (_, out, _) = typed(&fake, "logs --since 2024-01-15T10:30:01Z").await;
        assert_eq!(out.lines().count(), 2, "{out}");
        let (code, ..) = typed(&fake, "logs nginx").await;
        assert_eq!(code, ExitCode::NoSuchService);
    }

    #[tokio::test]
    async fn following_ends_when_the_operator_says_so() {
        let fake = troubled_node();
        let out = Shared::default();
        let end = out.until("second", 1);
        let (code, text, err) = typed_until(&fake, "logs -f", out.clone(), end).await;
        assert_eq!((code, err.as_str()), (ExitCode::Ok, ""));
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[tokio::test]
    async fn following_a_node_that_goes_away_ends_with_its_code() {
        let mut fake = troubled_node();
        let out = Shared::default();
        let verb = verb("logs -f");
        let options = Options { runtime_dir: Some(fake.dir().to_owned()), ..Options::default() };
        let (mut seen, mut err) = (out.clone(), Shared::default());
        let (paint, kind) = (Paint::Plain, Kind::Stream);
        let mut console = Console { out: &mut seen, err: &mut err, paint, kind };
        let never = std::future::pending();
        let crash = async {
            out.until("second", 1).await;
            fake.crash();
        };
        let (result, ()) =
            tokio::join!(run(&verb, &options, no_config, &mut console, never), crash);
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::NotRunning, "{error:?}");
        assert!(error.to_string().contains("went away"), "{error}");
    }

    #[tokio::test]
    async fn watching_redraws_until_the_node_goes_away() {
        let mut fake = troubled_node();
        let mut node = Client::connect(fake.dir()).await.unwrap();
        let out = Shared::default();
        let (mut seen, mut err) = (out.clone(), Shared::default());
        let (paint, kind) = (Paint::Plain, Kind::Terminal);
        let mut console = Console { out: &mut seen, err: &mut err, paint, kind };
        let args = StatusArgs { watch: true, ..StatusArgs::default() };
        let every = Duration::from_millis(1);
        let never = std::future::pending();
        let crash = async {
            out.until("\x1b[Hnode alpha", 3).await;
            fake.crash();
        };
        let watch = status::watch(&mut node, &args, &mut console, every, never);
        let (result, ()) = tokio::join!(watch, crash);
        assert_eq!(result.unwrap_err().exit_code(), ExitCode::NotRunning);
    }

    #[tokio::test]
    async fn watching_ends_when_the_operator_says_so() {
        let fake = troubled_node();
        let out = Shared::default();
        let end = out.until("node alpha", 1);
        let watched = typed_until(&fake, "status --watch", out.clone(), end).await;
        assert_eq!(watched.0, ExitCode::Ok);
    }

    #[tokio::test]
    async fn a_verb_without_a_node_is_one_line_and_69() {
        let mut fake = Fake::start(Script::default());
        fake.crash();
        for line in ["status", "start storage", "stop", "restart storage", "logs"] {
            let (code, out, err) = typed(&fake, line).await;
            assert_eq!((code.number(), out.as_str()), (69, ""), "{line}");
            assert_eq!(err.lines().count(), 1, "{err}");
            assert!(err.contains("start it with: blackhole-node"), "{err}");
        }
    }

    /// An output whose reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_every_verb_quietly() {
        let fake = troubled_node();
        let options = Options { runtime_dir: Some(fake.dir().to_owned()), ..Options::default() };
        let lines = ["status", "status identity", "start identity", "logs", "logs -f", "man"];
        for line in lines.iter().chain(["completions bash", "version"].iter()) {
            let mut err = Shared::default();
            let told = err.clone();
            let (paint, kind) = (Paint::Plain, Kind::Stream);
            let mut console = Console { out: &mut Closed, err: &mut err, paint, kind };
            let never = std::future::pending();
            let error =
                run(&verb(line), &options, no_config, &mut console, never).await.unwrap_err();
            assert_eq!(tell(&error, &mut console), ExitCode::Ok, "{line}");
            assert_eq!(told.text(), "", "{line}");
        }
    }

    #[tokio::test]
    async fn a_whole_healthy_service_is_ready() {
        let status = NodeStatus { instances: vec![ready("a"), ready("b")], ..troubled() };
        let fake = Fake::start(Script { status, ..Script::default() });
        assert_eq!(typed(&fake, "status a").await.0, ExitCode::Ok);
    }
}
