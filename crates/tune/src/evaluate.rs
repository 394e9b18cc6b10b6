//! `hakmem-tune evaluate`: one program under several allocators and modes, in turn.
//!
//! **Invariants.** Every round runs every subject once, each round in another order. A subject that cannot run the program, and a
//! library that the loader would leave out, is named, and fails the command.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use hakmem_policy::FrozenPolicy;

use crate::document::Document;
use crate::measure::Usage;
use crate::plot;
use crate::score::Ratios;
use crate::score::{Weights, median, median_usage, spread};
use crate::subject::{Library, Program, Subject, find_peer};

/// What to compare.
pub struct Options {
    /// The preload library of hakmem.
    pub library: PathBuf,
    /// Modes of hakmem.
    pub modes: Vec<String>,
    /// Policy files, each of which runs FROZEN.
    pub policies: Vec<PathBuf>,
    /// Other allocators: name and library.
    pub peers: Vec<(String, PathBuf)>,
    /// Runs of each.
    pub rounds: usize,
    /// What counts how much.
    pub weights: Weights,
    /// Where the table, the runs and the plot go.
    pub output: PathBuf,
}

/// Runs everything and prints the table.
pub fn evaluate(program: &Program, options: &Options) -> Result<ExitCode> {
    ensure!(options.rounds > 0, "at least one round");
    let has_its_own = program.library == Library::Inside && !options.peers.is_empty();
    ensure!(!has_its_own, "{} has hakmem inside: no peer can take its place", program.called());
    let subjects = subjects(options)?;
    program.check_that_it_listens(&options.library)?;
    let mut runs: Vec<Vec<Usage>> = vec![Vec::new(); subjects.len()];
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..options.rounds {
        random.shuffle(&mut order);
        for &place in &order {
            let (Some(subject), Some(mine)) = (subjects.get(place), runs.get_mut(place)) else { continue };
            eprintln!("round {}/{}: {}", round + 1, options.rounds, subject.name);
            mine.push(program.run(subject)?);
        }
    }
    let table = table(&subjects, &runs, &options.weights);
    println!("{}\n\n{table}", program.shown());
    std::fs::create_dir_all(&options.output).with_context(|| format!("cannot make {}", options.output.display()))?;
    std::fs::write(options.output.join("table.md"), &table)?;
    write_runs(&options.output.join("runs.csv"), &subjects, &runs)?;
    let curves: Vec<(String, Vec<(f64, f64)>)> =
        subjects.iter().zip(&runs).map(|(subject, runs)| (subject.name.clone(), typical_curve(runs))).collect();
    plot::memory(&options.output.join("memory.svg"), &program.shown(), &curves)?;
    println!("Runs and plot: {}", options.output.display());
    Ok(ExitCode::SUCCESS)
}

fn subjects(options: &Options) -> Result<Vec<Subject>> {
    let hakmem = |policy: FrozenPolicy| Subject::hakmem(&options.library, policy);
    let mut subjects = Vec::new();
    for mode in &options.modes {
        if !["FROZEN", "OBSERVE", "LEARN"].contains(&mode.as_str()) {
            bail!("no mode `{mode}`; there are FROZEN, OBSERVE, LEARN");
        }
        subjects.push(hakmem(FrozenPolicy::DEFAULT).with("HAKMEM_MODE", mode).called(&format!("hakmem {mode}")));
    }
    for policy in &options.policies {
        let document = Document::read(policy)?;
        let name = name_of(policy, &options.policies);
        subjects.push(hakmem(document.policy).with_sites(&document.sites).called(&format!("hakmem {name}")));
    }
    for (name, library) in &options.peers {
        let library = find_peer(library).with_context(|| format!("{name} cannot be compared"))?;
        subjects.push(Subject::peer(name, library));
    }
    ensure!(!subjects.is_empty(), "nothing to compare");
    Ok(subjects)
}

/// What a policy file is called in the table: its stem, or its path where another one has the same stem.
fn name_of(policy: &Path, policies: &[PathBuf]) -> String {
    let is_alone = policies.iter().filter(|other| other.file_stem() == policy.file_stem()).count() == 1;
    let stem = policy.file_stem().filter(|_| is_alone);
    stem.unwrap_or(policy.as_os_str()).to_string_lossy().into_owned()
}

/// The run whose memory over time is in the middle.
pub fn typical_curve(runs: &[Usage]) -> Vec<(f64, f64)> {
    let middle = median(runs.iter().map(|run| run.mean_rss));
    let distance = |run: &&Usage| (run.mean_rss - middle).abs();
    let typical = runs.iter().min_by(|left, right| distance(left).total_cmp(&distance(right)));
    typical.map(|run| run.curve.clone()).unwrap_or_default()
}

/// Medians, and ratios to the first subject.
fn table(subjects: &[Subject], runs: &[Vec<Usage>], weights: &Weights) -> String {
    let base = runs.first().map(|runs| median_usage(runs)).unwrap_or_default();
    let mut text = String::from(
        "| allocator | runs | wall s | cpu s | faults | mean RSS MiB | peak RSS MiB | cpu | faults | mean RSS | cost | cost ± |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (subject, runs) in subjects.iter().zip(runs) {
        let middle = median_usage(runs);
        let ratios = Ratios::of(&middle, &base);
        let costs: Vec<f64> = runs.iter().map(|run| Ratios::of(run, &base).cost(weights)).collect();
        let _infallible = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            subject.name,
            runs.len(),
            middle.wall,
            middle.cpu,
            middle.faults,
            middle.mean_rss / 1_048_576.0,
            middle.peak_rss / 1_048_576.0,
            ratios.cpu,
            ratios.faults,
            ratios.memory,
            ratios.cost(weights),
            spread(&costs),
        );
    }
    text
}

fn write_runs(path: &Path, subjects: &[Subject], runs: &[Vec<Usage>]) -> Result<()> {
    let mut writer = csv::Writer::from_path(path).with_context(|| format!("cannot write {}", path.display()))?;
    writer.write_record(["allocator", "run", "wall_s", "cpu_s", "faults", "mean_rss_bytes", "peak_rss_bytes"])?;
    for (subject, runs) in subjects.iter().zip(runs) {
        for (number, run) in runs.iter().enumerate() {
            let fields = [
                subject.name.clone(),
                number.to_string(),
                format!("{:.4}", run.wall),
                format!("{:.4}", run.cpu),
                format!("{:.0}", run.faults),
                format!("{:.0}", run.mean_rss),
                format!("{:.0}", run.peak_rss),
            ];
            writer.write_record(fields)?;
        }
    }
    writer.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subject_is_what_others_are_measured_by() {
        let subject = |name: &str| Subject::peer(name, PathBuf::new());
        let run = |mean_rss| Usage { wall: 1.0, cpu: 1.0, faults: 1e6, mean_rss, ..Usage::default() };
        let runs = [vec![run(2e9), run(2e9)], vec![run(1e9), run(1e9)]];
        let text = table(&[subject("one"), subject("two")], &runs, &Weights::default());
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert!(rows[0].starts_with("| one | 2 | 1.00 |") && rows[0].contains("| 1.000 | 0.000 |"), "{text}");
        assert!(rows[1].contains("| 0.500 | 0.850 | 0.000 |"), "{text}");
    }

    #[test]
    fn policies_of_one_stem_are_told_apart() {
        let policies = ["old/policy.toml", "new/policy.toml", "new/other.toml"].map(PathBuf::from);
        let names = policies.each_ref().map(|policy| name_of(policy, &policies));
        assert_eq!(names, ["old/policy.toml", "new/policy.toml", "other"]);
    }

    #[test]
    fn the_typical_curve_is_that_of_the_middle_run() {
        let run = |mean_rss: f64| Usage { mean_rss, curve: vec![(0.0, mean_rss)], ..Usage::default() };
        assert_eq!(typical_curve(&[run(9.0), run(1.0), run(2.0)]), [(0.0, 2.0)]);
        assert!(typical_curve(&[]).is_empty());
    }
}
