//! YAML from the text to a configuration or to what an operator reads about it.

use std::fmt::Write as _;
use std::path::Path;

use super::tests::{everything_active, host, load_named, load_text};
use super::tree::camel_case;
use super::*;

const FILE: &str = "node.yaml";

/// The same configuration in YAML: sections as block mappings, everything else as JSON.
pub(super) fn twin(toml: &str) -> String {
    let mut text = String::new();
    block(&toml.parse().unwrap(), "", &mut text, &str::to_owned);
    text
}

fn block(table: &toml::Table, indent: &str, text: &mut String, spell: &dyn Fn(&str) -> String) {
    for (key, value) in table {
        match value.as_table() {
            Some(inner) => {
                writeln!(text, "{indent}{}:", spell(key)).unwrap();
                let inner_spell: &dyn Fn(&str) -> String =
                    if key == "environment" { &str::to_owned } else { spell };
                block(inner, &format!("{indent}  "), text, inner_spell);
            }
            None => writeln!(text, "{indent}{}: {value}", spell(key)).unwrap(),
        }
    }
}

#[track_caller]
fn config(text: &str) -> NodeConfig {
    load_named(FILE, text).unwrap_or_else(|errors| panic!("{errors}\n{text}")).config
}

#[track_caller]
fn refusal(text: &str) -> String {
    load_named(FILE, text).expect_err("this has to be refused").to_string()
}

#[test]
fn the_twin_of_a_toml_file_is_the_same_configuration() {
    for toml in [DEFAULTS, &everything_active()] {
        let expected = load_text(toml).unwrap().config;
        assert_eq!(config(&twin(toml)), expected);
        let mut camel = String::new();
        block(&toml.parse().unwrap(), "", &mut camel, &camel_case);
        assert!(camel.contains("maxRestarts: 5"), "{camel}");
        assert_eq!(config(&camel), expected);
    }
}

#[test]
fn the_ending_tells_yaml_from_toml() {
    let port = |name| load_named(name, "api: {http_port: 1}").map(|l| l.config.api.http_port);
    for name in ["a.yaml", "a.yml", "b/a.YAML"] {
        assert_eq!(port(name), Ok(1), "{name}");
    }
    for name in ["a.toml", "a", "yaml", "a.yaml.conf"] {
        assert!(port(name).unwrap_err().to_string().contains("this is not TOML"), "{name}");
    }
}

#[test]
fn what_people_write_in_yaml_is_read() {
    let text = r#"# a node
---
node: {name: n-1, dataDir: /d}
monitoring:
  logLevel: debug # loud
services:
  storage:
    logs:
    resources:
      cpuCores: 0.5
      disk: none
  web:
    command:
    - /bin/x
    - 'a: b'
    - "yes"
    - no
    environment:
      A_b: |
        one
        two
      portName: >-
        three
        four
...
"#;
    let text = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let config = config(&text);
    assert_eq!((config.node.name.as_str(), config.node.data_dir.to_str()), ("n-1", Some("/d")));
    assert_eq!(config.monitoring.log_level, crate::units::Level::Debug);
    let storage = &config.services[&"storage".parse().unwrap()];
    assert_eq!(storage.resources.cpu_cores, Some("0.5".parse().unwrap()));
    let Kind::Foreign(web) = &config.services[&"web".parse().unwrap()].kind else {
        panic!("web is foreign")
    };
    assert_eq!(web.command.arguments, ["a: b", "yes", "no"]);
    let variables: Vec<_> = web.environment.iter().collect();
    assert_eq!(variables[0], (&"A_b".to_owned(), &"one\ntwo\n".to_owned()));
    assert_eq!(variables[1], (&"portName".to_owned(), &"three four".to_owned()));
}

#[test]
fn a_file_that_says_nothing_is_the_defaults() {
    let defaults = load_text("").unwrap().config;
    for text in ["", "# nothing\n", "---\n", "~\n", "{}", "services:\n  storage:\n", "api: null"] {
        assert_eq!(config(text), defaults, "{text:?}");
    }
}

#[test]
fn a_set_lies_over_a_section_without_keys() {
    let sets = ["api.http_port=9000".to_owned()];
    let file = Some((Path::new(FILE), "api:\n"));
    let loaded = load(&Sources { file, sets: &sets, ..Sources::default() }, &host()).unwrap();
    assert_eq!(loaded.config.api.http_port, 9000);
}

#[test]
fn a_value_of_yaml_is_shown_with_the_place_of_its_key() {
    let text = "api:\n  httpPort: 1\nservices:\n  web: {command: [x]}\n";
    let loaded = load_named(FILE, text).unwrap();
    assert_eq!(loaded.origins.of("api.http_port").to_string(), "node.yaml:2:3");
    assert_eq!(loaded.origins.of("services.web.command").to_string(), "node.yaml:4:9");
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let text = r#"node:
  name: has space
  name: twice
process_management:
  health_checks: {interval: 10, "timeout": 5s}
api:
  http_port: 70000
  httpPort: 8080
  address:
monitoring: loud
services:
  storage: &shared
    enabled: yes
    max_restarts: 99999999999999999999
    colour: red
  ledger: *shared
  identity:
    max_restarts: !!int "3"
    depends_on:
      - nobody
  ? [web]
  : command: [x]
"#;
    let duration = "a duration with its unit from 1ms to 365days, such as \"5s\"";
    let name = "1 to 64 printable ASCII characters without spaces";
    let refused = refusal(text);
    let expected = [
        format!(
            "node.yaml:2:9: node.name = \"has space\": this cannot be a node's name; allowed: \
             {name}"
        ),
        "node.yaml:3:3: node: the key \"name\" is given a second time; allowed: one value"
            .to_owned(),
        format!(
            "node.yaml:5:29: process_management.health_checks.interval = 10: a whole number is not \
             what belongs here; allowed: {duration}"
        ),
    ];
    assert_eq!(refused.lines().take(3).collect::<Vec<_>>(), expected, "{refused}");
    let places: Vec<&str> =
        refused.lines().skip(3).map(|l| &l[10..l.find(": ").unwrap()]).collect();
    let expected = [
        "7:14", "8:3", "9:3", "10:13", "12:12", "13:14", "14:19", "15:5", "16:11", "18:19", "20:9",
        "21:5",
    ];
    assert_eq!(places, expected, "{refused}");
}

#[test]
fn what_yaml_has_and_a_configuration_has_not_is_refused_by_name() {
    let cases = [
        ("a: &x 1", "node.yaml:1:4: a: an anchor is not taken"),
        ("api: &x {http_port: 1}\nnode: *x", "node.yaml:2:7: node: an alias is not taken"),
        ("api: !!map {}", "node.yaml:1:6: api: a tag is not taken"),
        ("api: {}\n---\napi: {}", "node.yaml:2:1: a second document begins"),
        ("- api", "node.yaml:1:1: the file is a list and not a configuration"),
        ("api", "node.yaml:1:1: the file is a text and not a configuration"),
        ("api:\n  [a]: 1", "node.yaml:2:3: api: a list is no key; allowed: a text"),
        ("api: *x", "node.yaml:1:6: this is not YAML: "),
        ("api:\n\thttp_port: 1", "node.yaml:2:2: this is not YAML: tabs"),
        (
            "services:\n  web:\n    command: ~",
            "node.yaml:3:14: services.web.command = null: nothing is",
        ),
        ("api:\n  http_port:\nnode:", "node.yaml:2:3: api.http_port = null: nothing is"),
    ];
    for (text, expected) in cases {
        let refused = refusal(text);
        assert!(refused.lines().any(|line| line.starts_with(expected)), "{text:?}\n{refused}");
    }
}

#[test]
fn what_stands_before_the_end_of_yaml_is_judged_and_what_is_missing_is_not() {
    let text = "\
api:
  http_port: 70000
services:
  web:
    drain: x
    readiness: port
    instances: [1, 2
    command: [x]
";
    let refused = refusal(text);
    let starts: Vec<&str> = refused.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(starts, ["node.yaml:2:14:", "node.yaml:5:12:", "node.yaml:8:12:"], "{refused}");
}

#[test]
fn a_section_that_cannot_be_read_has_no_consequences() {
    for text in ["node: 'x\n", "node: [\n", "node: !!map x\n"] {
        let refused = refusal(text);
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}

#[test]
fn endless_nesting_and_growth_by_aliases_are_refused() {
    for deep in ["[", "{a: ", "- ", "{", "? "] {
        let refused = refusal(&format!("api: {}", deep.repeat(100_000 / deep.len())));
        assert!(!refused.is_empty());
    }
    let nested: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(refusal(&nested).contains("node.yaml:32:32: "), "{}", refusal(&nested));
    let mut bomb = "a: &a0 [x, x]\n".to_owned();
    for n in 1..40 {
        let before = n - 1;
        writeln!(bomb, "b{n}: &a{n} [*a{before}, *a{before}]").unwrap();
    }
    assert!(refusal(&bomb).contains("node.yaml:2:10: b1: an alias is not taken"));
}

#[test]
fn a_secret_is_not_repeated() {
    let text = "
services:
  web:
    command: [x]
    environment:
      A: 31415926535897932384
      B: 314159
      C: {314159: x}
";
    let refused = refusal(text);
    assert_eq!(refused.lines().count(), 3, "{refused}");
    assert!(!refused.contains("31415"), "{refused}");
}
