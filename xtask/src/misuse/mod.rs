//! `cargo xtask misuse`: programs with one mistake each, at every level of hakmem; which mistakes are caught must not get fewer.
//!
//! **Not here.** What the mistakes are: that is written in `misuse/`, one case in one place.
//! **Invariants.** What fails the command: a case that the checked-in table says is caught, and is not; a control twin that does
//! not come back clean; a table whose rows are not those of the suite; a level that does not reach its bar.

mod outcome;
mod page;
mod setting;
mod suite;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::level::Level;
use crate::project::Project;
use crate::table;
use outcome::Outcome;
use page::Page;
use setting::Setting;
use suite::{Case, Suite};

/// The checked-in table.
const PAGE: &str = "docs/misuse-table.md";

/// Percent of all cases, and of all mistakes, that the level `hardened` has to catch; the default level's bar is marked case by
/// case.
const HARDENED_PERCENT: usize = 95;

/// What `cargo xtask misuse` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Only this level (may be repeated).
    #[arg(long = "level", value_enum, value_name = "LEVEL")]
    levels: Vec<Level>,
    /// Only this mistake (may be repeated).
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Also under the other allocators that are installed.
    #[arg(long)]
    peers: bool,
    /// Write what came out into docs/misuse-table.md; what was not run stays as it is there.
    #[arg(long)]
    fix: bool,
    /// Run each case so often and count the worst outcome.
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    repeat: u32,
}

/// What came of a case in one column.
struct Finding<'a> {
    case: &'a Case,
    setting: &'a Setting,
    mistaken: Outcome,
    control: Outcome,
}

impl Finding<'_> {
    fn is_caught(&self) -> bool {
        self.mistaken.is_caught(self.case.success, self.setting.is_hakmem)
    }
}

/// Runs the suite, prints the table, and compares it with the checked-in one.
pub fn misuse(project: &Project, options: &Options) -> Result<ExitCode> {
    let scratch = tempfile::Builder::new().prefix("hakmem-misuse-").tempdir().context("no temporary directory")?;
    // Under a name of its own, by which the suite knows it, and in a place that LD_PRELOAD can name.
    let library = scratch.path().join("libhakmem.so");
    std::fs::copy(project.preload_library()?, &library)?;
    let suite = Suite::build(&project.root().join("misuse"), scratch.path())?;
    for name in &options.only {
        ensure!(suite.cases.iter().any(|case| case.name == *name), "the suite has no mistake `{name}`");
    }
    let mut settings = setting::levels(&options.levels, &library);
    if options.peers {
        settings.extend(setting::peers());
    }
    let findings = run_all(&suite, &settings, options)?;

    let path = project.root().join(PAGE);
    let written = Page::read(&std::fs::read_to_string(&path).unwrap_or_default());
    let mut page = written.for_cases(&suite.cases);
    page.columns = columns(&written, &settings);
    for finding in &findings {
        page.set(finding.case, &finding.setting.name, &finding.mistaken.words(), finding.is_caught());
    }
    print(&page, &suite.cases, &findings, &settings);

    let mut problems = wrong_cases(&findings);
    problems.extend(unmet_bars(&page, &suite.cases));
    if options.fix {
        std::fs::write(&path, page.write(&suite.cases)).with_context(|| format!("cannot write {PAGE}"))?;
        println!("wrote {PAGE}");
    } else {
        problems.extend(losses(&written, &findings));
        problems.extend(
            written.strangers(&suite.cases).iter().map(|row| format!("{row} is in {PAGE} and not in the suite")),
        );
    }
    problems.iter().for_each(|problem| eprintln!("misuse: {problem}"));
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the chosen cases under each setting, as many at a time as there are processors.
fn run_all<'a>(suite: &'a Suite, settings: &'a [Setting], options: &Options) -> Result<Vec<Finding<'a>>> {
    let chosen = |case: &&Case| options.only.is_empty() || options.only.contains(&case.name);
    let pairs = suite.cases.iter().filter(chosen).flat_map(|case| settings.iter().map(move |setting| (case, setting)));
    let queue = Mutex::new(pairs);
    let work = || -> Result<Vec<Finding<'a>>> {
        let mut findings = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((case, setting)) = next else { return Ok(findings) };
            findings.push(run_one(suite, case, setting, options.repeat)?);
        }
    };
    let mut findings = std::thread::scope(|scope| -> Result<Vec<Finding<'a>>> {
        let worker_count = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..worker_count).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??);
        }
        Ok(all)
    })?;
    let position = |finding: &Finding| suite.cases.iter().position(|case| std::ptr::eq(case, finding.case));
    findings.sort_by_key(position);
    Ok(findings)
}

/// The worst outcome of the repetitions: one that is not caught, if there is one.
fn run_one<'a>(suite: &Suite, case: &'a Case, setting: &'a Setting, repeat: u32) -> Result<Finding<'a>> {
    let run = || -> Result<Finding<'a>> {
        let mistaken = suite.run(case, setting, false)?;
        Ok(Finding { case, setting, mistaken, control: suite.run(case, setting, true)? })
    };
    let is_bad = |finding: &Finding| !finding.is_caught() || finding.control != Outcome::Harmless;
    let mut finding = run()?;
    for _ in 1..repeat {
        if is_bad(&finding) {
            break;
        }
        finding = run()?;
    }
    Ok(finding)
}

/// Columns of the new table: the levels, then other allocators, those of this run in place of older versions.
fn columns(written: &Page, settings: &[Setting]) -> Vec<String> {
    let first_word = |name: &str| name.split(' ').next().unwrap_or(name).to_owned();
    let mut columns: Vec<String> = Level::ALL.map(|level| level.name().to_owned()).to_vec();
    for name in written.columns.iter().chain(settings.iter().map(|setting| &setting.name)) {
        match columns.iter_mut().find(|column| first_word(column) == first_word(name)) {
            Some(column) => column.clone_from(name),
            None => columns.push(name.clone()),
        }
    }
    columns
}

/// The rows of this run, then the sums of the columns of this run.
fn print(page: &Page, cases: &[Case], findings: &[Finding], settings: &[Setting]) {
    let names = || settings.iter().map(|setting| setting.name.clone());
    let mut rows = vec![["mistake", "size", "bar"].map(str::to_owned).into_iter().chain(names()).collect::<Vec<_>>()];
    for of_case in findings.chunk_by(|left, right| std::ptr::eq(left.case, right.case)) {
        let Some(Finding { case, .. }) = of_case.first() else { continue };
        let bar = if case.in_default_bar { "bar" } else { "" };
        let mut row = vec![case.name.clone(), case.size.clone(), bar.to_owned()];
        row.extend(names().map(|column| match page.get(case, &column) {
            Some((words, true)) => words.to_owned(),
            Some((words, false)) => format!("!! {words}"),
            None => String::new(),
        }));
        rows.push(row);
    }
    for (title, only_bar) in [("all", false), ("bar", true)] {
        let mut row = vec![format!("caught, {title}"), String::new(), String::new()];
        row.extend(names().map(|column| page.sum(cases, &column, |case| case.in_default_bar || !only_bar).to_string()));
        rows.push(row);
    }
    let mut row = vec!["mistakes caught at every size".to_owned(), String::new(), String::new()];
    row.extend(names().map(|column| page.sum_of_mistakes(cases, &column).to_string()));
    rows.push(row);
    for line in table::lines(&rows, &[]) {
        println!("{line}");
    }
}

/// Cases whose control twin is stopped, or that cannot show their mistake: the suite is wrong there, or the level is.
fn wrong_cases(findings: &[Finding]) -> Vec<String> {
    let mut problems = Vec::new();
    for Finding { case, setting, mistaken, control } in findings {
        let place = format!("{} {} under {}", case.name, case.size, setting.name);
        let mut found = Vec::new();
        if !matches!(control, Outcome::Harmless | Outcome::NotAvailable) {
            found.push(format!("{place}: {} without the mistake", control.words()));
        }
        if let Outcome::Broken(why) = mistaken {
            found.push(format!("{place}: the case does not work: {why}"));
        }
        // What is wrong under another allocator is worth a line, and nothing that this project could mend.
        if setting.is_hakmem {
            problems.extend(found);
        } else {
            found.iter().for_each(|problem| eprintln!("{problem}"));
        }
    }
    problems
}

/// Cases that the written table says are caught and that are not any more, and cases that it does not know.
fn losses(written: &Page, findings: &[Finding]) -> Vec<String> {
    let mut problems = Vec::new();
    for finding in findings.iter().filter(|finding| finding.setting.is_hakmem) {
        let Finding { case, setting, mistaken, .. } = finding;
        let place = format!("{} {} at level {}", case.name, case.size, setting.name);
        match (written.get(case, &setting.name), finding.is_caught()) {
            (Some((was, true)), false) => {
                problems.push(format!("{place}: {}; {PAGE} says it is caught ({was})", mistaken.words()));
            }
            (Some((was, false)), true) => eprintln!("{place} is caught now ({PAGE}: {was}); `--fix` writes it down"),
            (None, _) => problems.push(format!("{place} is not in {PAGE}; `--fix` adds it")),
            _ => {}
        }
    }
    problems
}

/// What the levels have to catch and do not, by the table as it is now.
fn unmet_bars(page: &Page, cases: &[Case]) -> Vec<String> {
    let mut unmet = Vec::new();
    // A sample must not lose what an ordinary block would have shown.
    for level in ["default", "sampled"] {
        let caught = page.sum(cases, level, |case| case.in_default_bar);
        if !caught.reaches(100) {
            unmet.push(format!("{level} catches {caught} of the default level's own cases, all are wanted"));
        }
    }
    for (what, hardened) in
        [("cases", page.sum(cases, "hardened", |_| true)), ("mistakes", page.sum_of_mistakes(cases, "hardened"))]
    {
        if !hardened.reaches(HARDENED_PERCENT) {
            unmet.push(format!("hardened catches {hardened} {what}, {HARDENED_PERCENT} % are wanted"));
        }
    }
    unmet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_new_version_replace_those_of_the_old_one() {
        let written = Page::read("| mistake | size | bar | default | glibc 2.35 | other 1 |\n");
        let of_run = setting::levels(&[Level::Default], std::path::Path::new("lib.so"));
        assert_eq!(columns(&written, &of_run), ["default", "hardened", "sampled", "glibc 2.35", "other 1"]);
        let newer = Page::read("| mistake | size | bar | glibc 2.36 |\n");
        assert_eq!(columns(&newer, &[]), ["default", "hardened", "sampled", "glibc 2.36"]);
    }

    #[test]
    fn mistake_that_is_not_caught_any_more_and_one_without_a_row_are_losses() {
        let cases = suite::read_list("a.c\t1\tone\t-\tstop\tbar\tx\na.c\t2\ttwo\t-\tstop\t\ty\n").unwrap();
        let of_run = setting::levels(&[Level::Default], std::path::Path::new("lib.so"));
        let mut written = Page::read("| mistake | size | bar | default |\n");
        written.set(&cases[0], "default", "SIGSEGV", true);
        let missed =
            |case| Finding { case, setting: &of_run[0], mistaken: Outcome::Missed, control: Outcome::Harmless };
        let findings = [missed(&cases[0]), missed(&cases[1])];
        assert_eq!(losses(&written, &findings).len(), 2);
        assert!(wrong_cases(&findings).is_empty());
        written.set(&cases[0], "default", "missed", false);
        written.set(&cases[1], "default", "missed", false);
        assert!(losses(&written, &findings).is_empty());
        assert_eq!(unmet_bars(&written, &cases).len(), 4);
    }

    #[test]
    fn control_twin_that_is_stopped_is_a_problem() {
        let cases = suite::read_list("a.c\t1\tone\t-\tstop\tbar\tx\n").unwrap();
        let of_run = setting::levels(&[Level::Default], std::path::Path::new("lib.so"));
        let stopped = Outcome::Signalled { signal: libc::SIGSEGV, late: false };
        let finding = |mistaken: &Outcome, control: &Outcome| {
            let (mistaken, control) = (mistaken.clone(), control.clone());
            wrong_cases(&[Finding { case: &cases[0], setting: &of_run[0], mistaken, control }]).len()
        };
        assert_eq!(finding(&stopped, &stopped), 1);
        assert_eq!(finding(&Outcome::Broken(String::new()), &Outcome::Harmless), 1);
        assert_eq!(finding(&stopped, &Outcome::Harmless), 0);
    }
}
