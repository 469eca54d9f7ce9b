//! Which files of a room use each other in a ring, read from their imports and paths. Test modules
//! are left out. A re-export (`pub use`) is no use: a name that a `mod.rs` re-exports counts as
//! used from the file that defines it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// From each file to the files that it uses.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// A module's place in the crate: `["config", "tree"]`.
type ModulePath = Vec<String>;

/// Each source is its path below `src` and its text; `mod.rs` is the module of its folder.
pub fn graph(sources: &[(String, String)]) -> Graph {
    let modules: BTreeMap<ModulePath, Module> =
        sources.iter().map(|(file, text)| (module_path(file), Module::read(file, text))).collect();
    let tests: Vec<ModulePath> = modules
        .iter()
        .flat_map(|(path, module)| module.test_children.iter().map(|name| below(path, name)))
        .collect();
    let is_test = |path: &ModulePath| tests.iter().any(|test| path.starts_with(test));
    let modules: BTreeMap<_, _> = modules.into_iter().filter(|(path, _)| !is_test(path)).collect();
    let used_by = |module: &Module, path: &ModulePath| {
        let uses = module.uses.iter();
        let targets = uses.filter_map(|segments| file_of(&modules, path, segments, 0));
        targets.filter(|file| *file != module.file).collect()
    };
    modules.iter().map(|(path, module)| (module.file.clone(), used_by(module, path))).collect()
}

/// The rings: the largest sets of files each of which uses, by way of others, every other.
pub fn rings(graph: &Graph) -> Vec<BTreeSet<String>> {
    let used: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|file| (file, reached(graph, file))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, reached) in &used {
        let ring: BTreeSet<String> =
            reached.iter().filter(|other| used[other].contains(*file)).cloned().collect();
        if !ring.is_empty() && !found.contains(&ring) {
            found.push(ring);
        }
    }
    found
}

/// The shortest way from a ring's first file back to itself: `a -> b -> a`.
pub fn cycle(graph: &Graph, ring: &BTreeSet<String>) -> String {
    let first = ring.first().expect("a ring has files");
    let mut open = VecDeque::from([vec![first.clone()]]);
    while let Some(way) = open.pop_front() {
        let last = way.last().expect("a way has a start");
        for next in graph[last].iter().filter(|file| ring.contains(*file)) {
            let longer: Vec<String> = way.iter().chain([next]).cloned().collect();
            if next == first {
                return longer.join(" -> ");
            }
            if !way.contains(next) {
                open.push_back(longer);
            }
        }
    }
    unreachable!("{ring:?} is no ring");
}

/// All files that a file uses, directly or by way of others; itself only if it is in a ring.
fn reached(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(file) = open.pop() {
        for next in graph.get(&file).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    found
}

fn module_path(file: &str) -> ModulePath {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

fn below(path: &[String], name: &str) -> ModulePath {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// The file that defines what `segments` name when they stand in the module `at`; none where that
/// is outside of the sources, or only a module as such.
fn file_of(
    modules: &BTreeMap<ModulePath, Module>,
    at: &[String],
    segments: &[String],
    depth: usize,
) -> Option<String> {
    // Two imports that name each other do not compile; a bound all the same.
    if depth > 16 {
        return None;
    }
    let (first, rest) = segments.split_first()?;
    match first.as_str() {
        "crate" => return walk(modules, &[], rest, depth),
        "self" => return walk(modules, at, rest, depth),
        "super" => return walk_up(modules, at, rest, depth),
        _ => {}
    }
    let is_child = modules.contains_key(&below(at, first));
    let is_imported = modules.get(at).is_some_and(|module| module.names.contains_key(first));
    if is_child || is_imported { walk(modules, at, segments, depth) } else { None }
}

fn walk_up(
    modules: &BTreeMap<ModulePath, Module>,
    at: &[String],
    rest: &[String],
    depth: usize,
) -> Option<String> {
    let (_, parent) = at.split_last()?;
    match rest.split_first() {
        Some((next, rest)) if next == "super" => walk_up(modules, parent, rest, depth),
        Some(_) | None => walk(modules, parent, rest, depth),
    }
}

fn walk(
    modules: &BTreeMap<ModulePath, Module>,
    at: &[String],
    segments: &[String],
    depth: usize,
) -> Option<String> {
    let (first, rest) = segments.split_first()?;
    if modules.contains_key(&below(at, first)) {
        return walk(modules, &below(at, first), rest, depth);
    }
    let module = modules.get(at)?;
    match module.names.get(first) {
        Some(imported) => {
            let whole: Vec<String> = imported.iter().chain(rest).cloned().collect();
            file_of(modules, at, &whole, depth + 1)
        }
        None => Some(module.file.clone()),
    }
}

/// What one file says about modules.
#[derive(Default)]
struct Module {
    file: String,
    /// Names that an import brings in, each with the path that it stands for.
    names: BTreeMap<String, Vec<String>>,
    /// Every path that is used, but for re-exports.
    uses: BTreeSet<Vec<String>>,
    test_children: BTreeSet<String>,
    /// How many modules that are written inside this file the reader is in.
    inside: usize,
}

impl Module {
    fn read(file: &str, text: &str) -> Self {
        let mut module = Self { file: file.to_owned(), ..Self::default() };
        match syn::parse_file(text) {
            Ok(parsed) => module.visit_file(&parsed),
            Err(error) => panic!("{file}: {error}"),
        }
        module
    }

    /// `self` and `super` in a module inside the file are this file.
    fn add(&mut self, segments: Vec<String>) {
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        let segments = match self.inside {
            0 => segments,
            inside if ups >= inside && ups > 0 => {
                let out = ["self".to_owned()].into_iter().filter(|_| ups == inside);
                out.chain(segments[inside..].iter().cloned()).collect()
            }
            _ => segments,
        };
        self.uses.insert(segments);
    }

    fn import(&mut self, tree: &UseTree, before: &[String], is_use: bool) {
        match tree {
            UseTree::Path(path) => {
                self.import(&path.tree, &below(before, &path.ident.to_string()), is_use);
            }
            UseTree::Group(group) => {
                for item in &group.items {
                    self.import(item, before, is_use);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                let own = before.last().cloned().unwrap_or_default();
                self.name(own, before.to_vec(), is_use);
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.name(name.clone(), below(before, &name), is_use);
            }
            UseTree::Rename(rename) if rename.ident == "self" => {
                self.name(rename.rename.to_string(), before.to_vec(), is_use);
            }
            UseTree::Rename(rename) => {
                let path = below(before, &rename.ident.to_string());
                self.name(rename.rename.to_string(), path, is_use);
            }
            UseTree::Glob(_) if is_use => self.add(below(before, "*")),
            UseTree::Glob(_) => {}
        }
    }

    fn name(&mut self, name: String, path: Vec<String>, is_use: bool) {
        if is_use {
            self.add(path.clone());
        }
        if self.inside == 0 && path != [name.clone()] {
            self.names.insert(name, path);
        }
    }

    /// The paths in a macro's arguments, which nobody has parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.add(std::mem::take(&mut path));
                    }
                    path.push(word.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.add(path);
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if is_for_tests(&item.attrs) {
            self.test_children.insert(item.ident.to_string());
        } else if item.content.is_some() {
            self.inside += 1;
            visit::visit_item_mod(self, item);
            self.inside -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() && !is_for_tests(&item.attrs) {
            self.import(&item.tree, &[], matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let words = attribute.path().is_ident("cfg");
        words && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}
