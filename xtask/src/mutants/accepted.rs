//! The list of mutants that may survive, each with its reason: `xtask/mutants.accepted`.

use std::collections::BTreeMap;

/// Names of mutants and why they may survive.
pub type Accepted = BTreeMap<String, String>;

/// A line names a mutant, the indented line below it says why; `#` begins a comment.
pub fn read(text: &str) -> Result<Accepted, String> {
    let mut accepted = Accepted::new();
    let mut open: Option<&str> = None;
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    for line in lines {
        match (line.starts_with(' '), open.take()) {
            (true, Some(name)) => {
                if accepted.insert(name.to_owned(), line.trim().to_owned()).is_some() {
                    return Err(format!("{name}: named twice"));
                }
            }
            (true, None) => return Err(format!("a reason without a mutant: {}", line.trim())),
            (false, Some(name)) => return Err(format!("{name}: no reason is given")),
            (false, None) => open = Some(line),
        }
    }
    open.map_or(Ok(accepted), |name| Err(format!("{name}: no reason is given")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_a_reason() {
        let text = "# why\na: b -> c\n    equal\n\nd: e -> f\n    slower\n";
        assert_eq!(read(text).map(|accepted| accepted.len()), Ok(2));
        assert!(read("a: b -> c\nd: e -> f\n    slower\n").is_err());
        assert!(read("    slower\n").is_err());
        assert!(read("a: b -> c\n").is_err());
    }
}
