//! `config check`, `config show` and `config schema`: hands the question to the `config` room and
//! its answer, which is text already, to the reader.

use super::args::{ConfigVerb, Options, Settings};
use super::console::Console;
use super::error::Error;
use super::exit::ExitCode;

/// What is asked of the `config` room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub what: What,
    /// The file and the settings over it; a FILE behind `check` has already taken the place of
    /// that of `--config`.
    pub options: Options,
}

/// Which of the verbs, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Check,
    Show,
    ShowJson,
    Schema,
}

/// Text for standard output (for `check` one line that says what was checked, with any warnings),
/// or every error for standard error, rendered with its place.
pub type Answer = Result<String, String>;

/// The `config` room as the verbs see it.
pub type Ask = fn(&Question) -> Answer;

/// Asks and writes the answer.
pub fn run(
    verb: &ConfigVerb,
    options: &Options,
    ask: Ask,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    match ask(&question(verb, options)) {
        Ok(text) => {
            writeln!(console.out, "{}", text.trim_end_matches('\n'))?;
            console.out.flush()?;
            Ok(ExitCode::Ok)
        }
        Err(errors) => {
            writeln!(console.err, "{}", errors.trim_end_matches('\n'))?;
            Ok(ExitCode::Configuration)
        }
    }
}

fn question(verb: &ConfigVerb, options: &Options) -> Question {
    let none = Settings::default();
    let (what, file, settings) = match verb {
        ConfigVerb::Check { file, settings } => (What::Check, file.clone(), settings),
        ConfigVerb::Show { json: false, settings } => (What::Show, None, settings),
        ConfigVerb::Show { json: true, settings } => (What::ShowJson, None, settings),
        ConfigVerb::Schema => (What::Schema, None, &none),
    };
    let mut options = options.clone();
    options.config = file.or(options.config);
    options.sets.extend_from_slice(&settings.sets);
    Question { what, options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::console::{Kind, Paint};

    fn ask(verb: &ConfigVerb, ask: Ask) -> (ExitCode, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let sets = vec!["a=1".to_owned()];
        let config = Some("default.toml".into());
        let options = Options { config, sets, ..Options::default() };
        let code = {
            let (paint, kind) = (Paint::Plain, Kind::Stream);
            let mut console = Console { out: &mut out, err: &mut err, paint, kind };
            run(verb, &options, ask, &mut console).unwrap()
        };
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_configuration_is_told_on_standard_output() {
        let settings = Settings { sets: vec!["b=2".to_owned()] };
        let verb = ConfigVerb::Check { file: Some("other.toml".into()), settings };
        let answer = ask(&verb, |question| {
            assert_eq!(question.what, What::Check);
            assert_eq!(question.options.sets, ["a=1", "b=2"]);
            Ok(format!("{} is fine\n", question.options.config.as_ref().unwrap().display()))
        });
        assert_eq!(answer, (ExitCode::Ok, "other.toml is fine\n".to_owned(), String::new()));
    }

    #[test]
    fn errors_go_to_standard_error_and_to_the_exit_code() {
        let answer =
            ask(&ConfigVerb::Show { json: true, settings: Settings::default() }, |question| {
                assert_eq!(question.what, What::ShowJson);
                Err(format!("{}:1:1: no", question.options.config.as_ref().unwrap().display()))
            });
        let expected =
            (ExitCode::Configuration, String::new(), "default.toml:1:1: no\n".to_owned());
        assert_eq!(answer, expected);
    }
}
