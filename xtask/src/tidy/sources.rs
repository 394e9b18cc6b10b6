//! What every source file of a box must say, and what only `atomic-ops` may say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::project::Project;

/// The one crate that spells memory orderings.
const ORDERING_CRATE: &str = "hakmem-atomic-ops";

/// Variants that tell a memory ordering from `core::cmp::Ordering`.
const MEMORY_ORDERINGS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

/// Headings that the face of a box has.
const LIB_HEADINGS: [&str; 2] = ["**Not here.**", "**Invariants.**"];

/// Files of [`ORDERING_CRATE`] that make the newtypes and their models; its locks and cells use them like any box does.
const NEWTYPES: [&str; 2] = ["src/words.rs", "src/model/"];

/// One acquire or release in the sources of a box.
#[derive(Clone, Debug)]
pub struct Site {
    /// Package that it is in.
    pub package: String,
    /// File, from the root of the workspace.
    pub file: String,
    /// Line of the call, from 1.
    pub line: usize,
    function: String,
    method: String,
    // How many of the same method come before it in the function.
    earlier: usize,
}

impl Site {
    /// A name that lasts as long as the function does: "`file` `function` `method`", with " #2" for a second such call.
    pub fn name(&self) -> String {
        let number = if self.earlier == 0 { String::new() } else { format!(" #{}", self.earlier + 1) };
        format!("`{}` `{}` `{}{number}`", self.file, self.function, self.method)
    }
}

/// Every call of a method that acquires or releases, in the sources of every box, tests left out.
pub fn ordering_sites(project: &Project) -> Result<Vec<Site>> {
    let ordered = ordered_methods(project)?;
    let mut sites = Vec::new();
    for package in project.packages() {
        let Some(directory) = package.manifest_path.as_std_path().parent() else { continue };
        if !directory.starts_with(project.root().join("crates")) {
            continue;
        }
        for path in rust_files(&directory.join("src"))? {
            let file = shown(project, &path);
            if package.name.as_str() == ORDERING_CRATE && NEWTYPES.iter().any(|part| file.contains(part)) {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
            sites.extend(sites_in(&text, &package.name, &file, &ordered));
        }
    }
    ensure!(!sites.is_empty(), "no acquire or release in the sources");
    Ok(sites)
}

fn sites_in(text: &str, package: &str, file: &str, ordered: &BTreeSet<String>) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    let mut function = String::new();
    for (position, line) in text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]")) {
        let code = line.split("//").next().unwrap_or(line);
        if let Some(name) = function_name(code) {
            function = name;
        }
        for method in called_of(code, ordered) {
            let same = |site: &&Site| site.function == function && site.method == method;
            let earlier = sites.iter().filter(same).count();
            let (package, file) = (package.to_owned(), file.to_owned());
            sites.push(Site { package, file, line: position + 1, function: function.clone(), method, earlier });
        }
    }
    sites
}

/// The name in `fn name(` or `fn name<`.
fn function_name(code: &str) -> Option<String> {
    let (before, rest) = code.split_once("fn ")?;
    let name: String = rest.chars().take_while(|&mark| is_name(mark)).collect();
    let opens = rest.get(name.len()..).is_some_and(|rest| rest.starts_with(['(', '<']));
    (opens && !name.is_empty() && (before.is_empty() || before.ends_with(' '))).then_some(name)
}

/// Findings in `crates/*/src` and in the manifests.
pub fn findings(project: &Project) -> Result<Vec<String>> {
    let ordered = ordered_methods(project)?;
    let mut findings = Vec::new();
    if ordered.is_empty() {
        findings.push(format!("{ORDERING_CRATE}: no method whose name ends in an ordering"));
    }
    for package in project.packages() {
        let Some(directory) = package.manifest_path.as_std_path().parent() else { continue };
        let manifest = std::fs::read_to_string(&package.manifest_path)?;
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!("{}: does not take over the workspace's lints", shown(project, directory)));
        }
        if !directory.starts_with(project.root().join("crates")) {
            continue;
        }
        let files = rust_files(&directory.join("src"))?;
        if files.is_empty() {
            findings.push(format!("{}: has no source file", shown(project, directory)));
        }
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let is_face = file.file_name().is_some_and(|name| name == "lib.rs");
            let may_order = package.name.as_str() == ORDERING_CRATE;
            let found = in_source(&text, is_face, (!may_order).then_some(&ordered));
            findings.extend(found.into_iter().map(|finding| format!("{}{finding}", shown(project, &file))));
        }
    }
    Ok(findings)
}

fn shown(project: &Project, path: &Path) -> String {
    path.strip_prefix(project.root()).unwrap_or(path).display().to_string()
}

/// Every `.rs` file under a directory, sorted.
fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Findings of one file as `:line: what` (or `: what`).
///
/// `ordered` names the methods that need a comment; none of the rules about orderings holds where it is `None`.
fn in_source(text: &str, is_face: bool, ordered: Option<&BTreeSet<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//! ") {
        findings.push(":1: does not begin with `//!` and a sentence".to_owned());
    }
    if is_face {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        for heading in LIB_HEADINGS {
            if !header.iter().any(|line| line.contains(heading)) {
                findings.push(format!(": the header has no `{heading}`"));
            }
        }
        if header.iter().any(|line| line.contains("Placeholder")) {
            findings.push(": the header is still a placeholder".to_owned());
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    for (position, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        let Some(ordered) = ordered else { continue };
        let at = position + 1;
        if MEMORY_ORDERINGS.iter().any(|variant| code.contains(&format!("Ordering::{variant}"))) {
            findings.push(format!(":{at}: spells a memory ordering; only {ORDERING_CRATE} does"));
        }
        if code.contains("sync::atomic") {
            findings.push(format!(":{at}: names sync::atomic; use the newtypes of {ORDERING_CRATE}"));
        }
        if calls_one_of(code, ordered) && !has_ordering_comment(&lines, position) {
            findings.push(format!(":{at}: an acquire or release without `// ORDERING:` in the lines above it"));
        }
    }
    findings
}

/// Names of the methods of the newtypes that say acquire, release, both or more.
fn ordered_methods(project: &Project) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let Some(package) = project.package(ORDERING_CRATE) else { return Ok(names) };
    let directory = package.manifest_path.as_std_path().with_file_name("src");
    for file in rust_files(&directory)? {
        let text = std::fs::read_to_string(&file)?;
        for rest in text.split("pub fn ").skip(1) {
            let name: String = rest.chars().take_while(|&mark| is_name(mark)).collect();
            if ["_acquire", "_release", "_acq_rel", "_seq_cst"].iter().any(|suffix| name.ends_with(suffix)) {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

fn is_name(mark: char) -> bool {
    mark.is_alphanumeric() || mark == '_'
}

/// Whether a line calls a method of that name: `.name(`.
fn calls_one_of(code: &str, names: &BTreeSet<String>) -> bool {
    called_of(code, names).next().is_some()
}

/// The methods of these names that a line calls.
fn called_of(code: &str, names: &BTreeSet<String>) -> impl Iterator<Item = String> {
    code.split('.').skip(1).filter_map(|rest| {
        let name: String = rest.chars().take_while(|&mark| is_name(mark)).collect();
        (rest.get(name.len()..).is_some_and(|rest| rest.starts_with('(')) && names.contains(&name)).then_some(name)
    })
}

/// The comment stands on the line or between it and the start of the function, at most twelve lines above.
fn has_ordering_comment(lines: &[&str], position: usize) -> bool {
    let first = position.saturating_sub(12);
    let Some(range) = lines.get(first..=position) else { return false };
    for (distance, line) in range.iter().rev().enumerate() {
        if line.contains("ORDERING:") {
            return true;
        }
        if distance > 0 && *line == "}" {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACE: &str = "//! A box.\n//!\n//! **Not here.** X.\n//! **Invariants.** Y.\n";

    fn ordered() -> BTreeSet<String> {
        BTreeSet::from(["swap_acquire".to_owned()])
    }

    #[test]
    fn complete_header_passes() {
        assert!(in_source(FACE, true, Some(&ordered())).is_empty());
    }

    #[test]
    fn header_that_misses_a_part_is_found() {
        assert_eq!(in_source("use core::ptr;\n", false, Some(&ordered())).len(), 1);
        assert_eq!(in_source(&FACE.replace("**Invariants.**", "Invariants:"), true, Some(&ordered())).len(), 1);
        assert_eq!(in_source(&FACE.replace("**Not here.**", ""), true, Some(&ordered())).len(), 1);
        assert!(
            in_source(&FACE.replace("**Not here.**", ""), false, Some(&ordered())).is_empty(),
            "only lib.rs is a face"
        );
    }

    #[test]
    fn memory_ordering_is_told_from_comparison() {
        let spelled = format!("{FACE}let x = word.load(Ordering::Relaxed);\n");
        assert_eq!(
            in_source(&spelled, true, Some(&ordered())),
            [":5: spells a memory ordering; only hakmem-atomic-ops does"]
        );
        assert!(in_source(&spelled, true, None).is_empty());
        assert!(
            in_source(&format!("{FACE}Ordering::Less => 1, // not Ordering::Relaxed\n"), true, Some(&ordered()))
                .is_empty()
        );
    }

    #[test]
    fn sites_are_named_by_function_and_method() {
        let text = "fn f(&self) {\n    a.swap_acquire(0);\n    b.swap_acquire(a.swap_acquire(1));\n}\npub(crate) fn g<T>() {\n\
            \n    c\n        .swap_acquire(2);\n}\n#[cfg(test)]\nfn t() { d.swap_acquire(3); }\n";
        let sites = sites_in(text, "p", "s.rs", &ordered());
        let named: Vec<_> = sites.iter().map(|site| (site.line, site.name())).collect();
        assert_eq!(
            named,
            [
                (2, "`s.rs` `f` `swap_acquire`".to_owned()),
                (3, "`s.rs` `f` `swap_acquire #2`".to_owned()),
                (3, "`s.rs` `f` `swap_acquire #3`".to_owned()),
                (8, "`s.rs` `g` `swap_acquire`".to_owned()),
            ]
        );
    }

    #[test]
    fn ordered_access_needs_its_partner_named() {
        let bare = format!("{FACE}fn f() {{\n    head.swap_acquire(0);\n}}\n");
        assert_eq!(in_source(&bare, true, Some(&ordered())).len(), 1);
        let named =
            format!("{FACE}fn f() {{\n    // ORDERING: takes what `push` released.\n    head.swap_acquire(0);\n}}\n");
        assert!(in_source(&named, true, Some(&ordered())).is_empty());
        let elsewhere = format!("{FACE}// ORDERING: other.\nfn g() {{\n}}\nfn f() {{\n    head.swap_acquire(0);\n}}\n");
        assert_eq!(in_source(&elsewhere, true, Some(&ordered())).len(), 1);
        assert!(
            in_source(&format!("{FACE}fn owner_acquire() {{ word.try_acquire(); }}\n"), true, Some(&ordered()))
                .is_empty()
        );
    }
}
