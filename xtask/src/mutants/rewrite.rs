//! One source with all of its mutants in it, each behind its number: built once, the program is any
//! of them.

use std::ops::Range;

use super::sites::{Kind, Mutant};

/// The source in which the mutant that is `chosen` at run time takes the place of what was there.
/// Those of the list are numbered from `first` on.
pub fn with_mutants(source: &str, mutants: &[Mutant], first: usize) -> String {
    let mut places: Vec<(Range<usize>, Vec<usize>)> = Vec::new();
    for (index, mutant) in mutants.iter().enumerate() {
        match places.iter_mut().find(|(range, _)| *range == mutant.range) {
            Some((_, at)) => at.push(index),
            None => places.push((mutant.range.clone(), vec![index])),
        }
    }
    // An outer place before those that are in it.
    places.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let mut text = String::new();
    render(source, 0..source.len(), &places, (mutants, first), &mut text);
    text
}

fn render(
    source: &str,
    range: Range<usize>,
    places: &[(Range<usize>, Vec<usize>)],
    (mutants, first): (&[Mutant], usize),
    text: &mut String,
) {
    let mut done = range.start;
    let mut rest = places;
    while let Some(((place, indices), after)) = rest.split_first() {
        let inner = after.iter().take_while(|(inner, _)| inner.start < place.end).count();
        let (inner, others) = after.split_at(inner);
        text.push_str(&source[done..place.start]);
        let is_statement = indices.iter().any(|index| mutants[*index].kind == Kind::Statement);
        if is_statement {
            let numbers: Vec<String> = indices
                .iter()
                .map(|index| format!("!crate::is_mutant({})", first + index))
                .collect();
            text.push_str(&format!("if {} {{ ", numbers.join(" && ")));
        } else {
            text.push('(');
            for index in indices {
                let (number, other) = (first + index, &mutants[*index].text);
                text.push_str(&format!("if crate::is_mutant({number}) {{ {other} }} else "));
            }
            text.push_str("{ ");
        }
        render(source, place.clone(), inner, (mutants, first), text);
        text.push_str(if is_statement { " }" } else { " })" });
        done = place.end;
        rest = others;
    }
    text.push_str(&source[done..range.end]);
}

#[cfg(test)]
mod tests {
    use super::super::sites::find;
    use super::*;

    #[test]
    fn a_mutant_within_a_mutant_is_in_what_the_outer_one_leaves() {
        let source = "fn f() { g(!a); }";
        let text = with_mutants(source, &find(source).unwrap(), 7);
        let expected = "fn f() { if !crate::is_mutant(7) { \
                        g((if crate::is_mutant(8) { a } else { !a })); } }";
        assert_eq!(text, expected);
    }
}
