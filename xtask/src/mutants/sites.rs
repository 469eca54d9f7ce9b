//! The places of a source where a fault can be planted, found in its syntax: an operator, a
//! condition, a constant, the result of a match arm, a statement. Knows nothing of how the faulty
//! program is built or judged.
#![allow(clippy::wildcard_enum_match_arm, reason = "syntax has more forms than have mutants")]

use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprBinary, ExprIf, ExprLit, ExprMacro, ExprMatch,
    ExprMethodCall, ExprPath, ExprUnary, ExprWhile, ImplItemFn, Item, ItemConst, ItemFn, ItemMod,
    Lit, Pat, ReturnType, Signature, Stmt, UnOp,
};

/// Functions that are checks themselves: what they let pass is what the mutants are caught by.
const CHECKS: [&str; 2] = ["broken_invariant", "disagreement"];

/// Constants that cannot be halved.
const NO_NUMBERS: [&str; 1] = ["PIPE"];

/// One planted fault: another text for a part of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// Bytes of the source.
    pub range: Range<usize>,
    pub kind: Kind,
    /// What stands there instead; of a statement that is left out, nothing.
    pub text: String,
    /// The function it is in.
    pub function: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Expression,
    Statement,
}

/// All mutants of a source, or why it cannot be read.
pub fn find(source: &str) -> Result<Vec<Mutant>, String> {
    let file = syn::parse_file(source).map_err(|error| error.to_string())?;
    let mut finder = Finder { source, function: String::new(), found: Vec::new() };
    finder.visit_file(&file);
    Ok(finder.found)
}

struct Finder<'s> {
    source: &'s str,
    function: String,
    found: Vec<Mutant>,
}

impl Finder<'_> {
    fn text(&self, span: Span) -> &str {
        self.source.get(span.byte_range()).unwrap_or_default()
    }

    fn plant(&mut self, at: Span, kind: Kind, text: impl Into<String>) {
        let (range, text, function) = (at.byte_range(), text.into(), self.function.clone());
        let mutant = Mutant { range, kind, text, function };
        let is_other = self.source.get(mutant.range.clone()) != Some(mutant.text.as_str());
        if is_other && !self.found.contains(&mutant) {
            self.found.push(mutant);
        }
    }

    fn instead(&mut self, at: Span, texts: &[&str]) {
        texts.iter().for_each(|text| self.plant(at, Kind::Expression, *text));
    }

    fn condition(&mut self, condition: &Expr, outcomes: &[&str]) {
        if !has_let(condition) {
            self.instead(condition.span(), outcomes);
        }
    }

    fn within(&mut self, signature: &Signature, block: &Block, attributes: &[Attribute]) {
        let name = signature.ident.to_string();
        if is_for_tests(attributes) || signature.constness.is_some() || CHECKS.contains(&&*name) {
            return;
        }
        let outer = std::mem::replace(&mut self.function, name);
        let gives_bool = matches!(&signature.output,
            ReturnType::Type(_, kind) if self.text(kind.span()) == "bool");
        if let (true, Some(Stmt::Expr(tail, None))) = (gives_bool, block.stmts.last()) {
            self.instead(tail.span(), &["true", "false"]);
        }
        self.visit_block(block);
        self.function = outer;
    }

    /// Arms that plainly give a value give that of another arm.
    fn swap_results(&mut self, arms: &[Arm]) {
        let plain: Vec<Span> =
            arms.iter().filter(|arm| is_plain(&arm.body)).map(|arm| arm.body.span()).collect();
        for (place, span) in plain.iter().enumerate() {
            let others = plain.iter().cycle().skip(place + 1).take(plain.len() - 1);
            let own = self.text(*span);
            let other = others.map(|other| self.text(*other)).find(|other| *other != own);
            if let Some(other) = other.map(str::to_owned) {
                self.plant(*span, Kind::Expression, other);
            }
        }
    }

    /// Where some arm does nothing, another may do nothing as well.
    fn empty_arms(&mut self, arms: &[Arm]) {
        let is_empty =
            |arm: &Arm| matches!(&*arm.body, Expr::Block(it) if it.block.stmts.is_empty());
        if !arms.iter().any(is_empty) {
            return;
        }
        for arm in arms.iter().filter(|arm| is_deed(&arm.body)) {
            self.plant(arm.body.span(), Kind::Expression, "{}");
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !matches!(item, Item::Macro(_)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    /// A constant is read where it is used.
    fn visit_item_const(&mut self, _: &'ast ItemConst) {}

    fn visit_type(&mut self, _: &'ast syn::Type) {}

    /// Of a pattern only its guard is an expression.
    fn visit_pat(&mut self, pattern: &'ast Pat) {
        if let Pat::Guard(guarded) = pattern {
            self.condition(&guarded.guard, &["true", "false"]);
            self.visit_expr(&guarded.guard);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.within(&function.sig, &function.block, &function.attrs);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.within(&function.sig, &function.block, &function.attrs);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if let Stmt::Expr(expression, Some(_)) = statement {
            if is_for_tests(attributes(expression)) {
                return;
            }
            if is_deed(expression) {
                self.plant(statement.span(), Kind::Statement, "");
            }
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        let [left, right] = [&binary.left, &binary.right].map(|side| self.text(side.span()));
        let others = others(&binary.op);
        let texts: Vec<String> =
            others.iter().map(|other| format!("({left}) {other} ({right})")).collect();
        if !has_let(&binary.left) && !has_let(&binary.right) {
            for text in texts {
                self.plant(binary.span(), Kind::Expression, text);
            }
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast ExprUnary) {
        if matches!(unary.op, UnOp::Not(_)) {
            let text = self.text(unary.expr.span()).to_owned();
            self.plant(unary.span(), Kind::Expression, text);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_if(&mut self, expression: &'ast ExprIf) {
        self.condition(&expression.cond, &["true", "false"]);
        visit::visit_expr_if(self, expression);
    }

    fn visit_expr_while(&mut self, expression: &'ast ExprWhile) {
        self.condition(&expression.cond, &["false"]);
        visit::visit_expr_while(self, expression);
    }

    fn visit_expr_match(&mut self, expression: &'ast ExprMatch) {
        self.swap_results(&expression.arms);
        self.empty_arms(&expression.arms);
        visit::visit_expr_match(self, expression);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let name = call.method.to_string();
        let whole = call.span().byte_range();
        let method = call.method.span().byte_range();
        let before = self.source.get(whole.start..method.start).unwrap_or_default();
        let after = self.source.get(method.end..whole.end).unwrap_or_default();
        let text = match other_method(&name) {
            Some(other) => Some(format!("{before}{other}{after}")),
            None if name.starts_with("is_") || name.starts_with("contains") => {
                Some(format!("!{before}{name}{after}"))
            }
            None => None,
        };
        if let Some(text) = text {
            self.plant(call.span(), Kind::Expression, text);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_macro(&mut self, expression: &'ast ExprMacro) {
        if expression.mac.path.is_ident("matches") {
            let text = format!("!{}", self.text(expression.span()));
            self.plant(expression.span(), Kind::Expression, text);
        }
    }

    fn visit_expr_lit(&mut self, literal: &'ast ExprLit) {
        match &literal.lit {
            Lit::Bool(value) => {
                let other = if value.value { "false" } else { "true" };
                self.plant(literal.span(), Kind::Expression, other);
            }
            Lit::Int(value) => {
                if let Ok(number) = value.base10_parse::<u64>() {
                    let text = format!("{}{}", number + 1, value.suffix());
                    self.plant(literal.span(), Kind::Expression, text);
                }
            }
            _ => {}
        }
    }

    fn visit_expr_path(&mut self, path: &'ast ExprPath) {
        let name = self.text(path.span());
        let is_constant =
            name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        if is_constant && !NO_NUMBERS.contains(&name) {
            let text = format!("{name} / 2");
            self.plant(path.span(), Kind::Expression, text);
        }
    }
}

/// What another operator makes of the same operands.
fn others(operator: &BinOp) -> &'static [&'static str] {
    match operator {
        BinOp::Lt(_) => &["<=", ">="],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<="],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["/"],
        BinOp::Div(_) => &["*"],
        BinOp::BitXor(_) => &["|"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        _ => &[],
    }
}

fn other_method(name: &str) -> Option<&'static str> {
    Some(match name {
        "any" => "all",
        "all" => "any",
        "min" => "max",
        "max" => "min",
        "is_some" => "is_none",
        "is_none" => "is_some",
        "is_some_and" => "is_none_or",
        "is_none_or" => "is_some_and",
        "saturating_add" => "saturating_sub",
        "saturating_sub" => "saturating_add",
        _ => return None,
    })
}

fn has_let(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// What is done for its effect alone.
fn is_deed(expression: &Expr) -> bool {
    match expression {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_) => true,
        Expr::Binary(binary) => matches!(binary.op, BinOp::AddAssign(_) | BinOp::SubAssign(_)),
        _ => false,
    }
}

/// A value that no pattern has bound.
fn is_plain(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Path(path) => {
            let last = path.path.segments.last().map(|segment| segment.ident.to_string());
            last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_uppercase()))
        }
        _ => false,
    }
}

fn attributes(expression: &Expr) -> &[Attribute] {
    match expression {
        Expr::MethodCall(call) => &call.attrs,
        Expr::Call(call) => &call.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list().ok();
        list.is_some_and(|list| list.path.is_ident("cfg") && list.tokens.to_string() == "test")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(body: &str) -> Vec<String> {
        let source = format!("fn f() {{ {body} }}");
        let found = find(&source).unwrap();
        found
            .iter()
            .map(|mutant| format!("{} -> {}", &source[mutant.range.clone()], mutant.text))
            .collect()
    }

    #[test]
    fn each_kind_of_place_is_found() {
        assert_eq!(planted("a < b"), ["a < b -> (a) <= (b)", "a < b -> (a) >= (b)"]);
        assert_eq!(planted("!a"), ["!a -> a"]);
        assert_eq!(planted("g(a);"), ["g(a); -> "]);
        assert_eq!(planted("a.max(b)"), ["a.max(b) -> a.min(b)"]);
        assert_eq!(planted("if a { b }"), ["a -> true", "a -> false"]);
        assert_eq!(planted("n += 1;")[..2], ["n += 1; -> ", "n += 1 -> (n) -= (1)"]);
        assert_eq!(planted("match a { A => X::B, C => X::D }").len(), 2);
        assert_eq!(planted("now + PATIENCE")[1], "PATIENCE -> PATIENCE / 2");
    }

    #[test]
    fn tests_constants_patterns_and_let_chains_are_left_alone() {
        assert_eq!(planted("if let 1 = a && let 2 = b {}"), [""; 0]);
        assert_eq!(find("#[cfg(test)] mod tests { fn f() { 1 + 1 } }").unwrap(), []);
        assert_eq!(find("const A: u64 = 1 << 62;").unwrap(), []);
    }
}
