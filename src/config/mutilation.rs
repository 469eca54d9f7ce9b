//! Random damage to a configuration file never makes the node stumble.

use proptest::prelude::*;

use super::tests::{everything_active, load_named, load_text};
use super::yaml_tests::twin;
use super::*;

#[derive(Debug, Clone)]
enum Mutation {
    Delete { at: usize, bytes: usize },
    Insert { at: usize, text: String },
    Copy { from: usize, bytes: usize, to: usize },
}

fn snippets_of_toml() -> Vec<&'static str> {
    vec![
        "[",
        "]",
        "[[",
        "]]",
        "=",
        "\"",
        "'",
        "\n",
        "#",
        "{",
        "}",
        ",",
        ".",
        "ä",
        "\u{0}",
        "-1",
        "1e999",
        "0x",
        "\"\"\"",
        "''",
        "true",
        "[services.x]\n",
        "[services.storage]\n",
        "99999999999999999999",
        "depends_on = [\"web\"]\n",
        "1979-05-27",
        "\\u0000",
        "\r",
    ]
}

fn mutation(snippets: Vec<&'static str>) -> impl Strategy<Value = Mutation> {
    let snippet = prop::sample::select(snippets);
    prop_oneof![
        (any::<usize>(), 0..40_usize).prop_map(|(at, bytes)| Mutation::Delete { at, bytes }),
        (any::<usize>(), snippet).prop_map(|(at, text)| Mutation::Insert { at, text: text.into() }),
        (any::<usize>(), 0..200_usize, any::<usize>())
            .prop_map(|(from, bytes, to)| Mutation::Copy { from, bytes, to }),
    ]
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let bound = |at: usize| at % (chars.len() + 1);
        match mutation {
            Mutation::Delete { at, bytes } => {
                let start = bound(*at);
                chars.drain(start..(start + bytes).min(chars.len()));
            }
            Mutation::Insert { at, text } => {
                let at = bound(*at);
                chars.splice(at..at, text.chars());
            }
            Mutation::Copy { from, bytes, to } => {
                let (start, to) = (bound(*from), bound(*to));
                let copied = chars[start..(start + bytes).min(chars.len())].to_vec();
                chars.splice(to..to, copied);
            }
        }
    }
    chars.into_iter().collect()
}

fn snippets_of_yaml() -> Vec<&'static str> {
    vec![
        "&a ",
        "*a",
        "!!str ",
        "!<x> ",
        "- ",
        ": ",
        ":",
        "? ",
        "|\n",
        ">-\n",
        "\t",
        "\n---\n",
        "\n...\n",
        "%YAML 1.2\n",
        "{",
        "[",
        "}",
        "]",
        "#",
        " #",
        "\"",
        "'",
        "\n",
        "  ",
        "\u{feff}",
        "\u{85}",
        "\r",
        "<<: *a\n",
        ",",
        "~",
        "\u{0}",
        "ä",
        "-1",
        ".inf",
        "99999999999999999999",
        "\\x",
        "\\",
    ]
}

/// Taken whole, or refused with places that are in the file.
fn judge(name: &str, text: &str) -> Result<(), TestCaseError> {
    // Beside these YAML also ends a line at a carriage return alone.
    let lines = text.matches(['\n', '\r']).count() + 2;
    match load_named(name, text) {
        Ok(loaded) => {
            let again = load_text(&show(&loaded)).map(|again| again.config);
            prop_assert_eq!(again, Ok(loaded.config));
        }
        Err(errors) => {
            prop_assert!(!errors.problems().is_empty());
            for problem in errors.problems() {
                let fits = match &problem.place {
                    Place::File { line, column, .. } => (1..=lines).contains(line) && *column > 0,
                    Place::Default | Place::Set { .. } | Place::Option(_) => false,
                };
                prop_assert!(fits, "{}", problem);
                prop_assert_eq!(problem.to_string().lines().count(), 1);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_mutilated_toml_file_is_taken_whole_or_refused_with_places(
        mutations in prop::collection::vec(mutation(snippets_of_toml()), 1..6),
    ) {
        judge("node.toml", &mutate(&everything_active(), &mutations))?;
    }

    #[test]
    fn a_mutilated_yaml_file_is_taken_whole_or_refused_with_places(
        mutations in prop::collection::vec(mutation(snippets_of_yaml()), 1..6),
    ) {
        judge("node.yaml", &mutate(&twin(&everything_active()), &mutations))?;
    }
}
