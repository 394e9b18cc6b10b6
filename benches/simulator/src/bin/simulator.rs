//! `simulator`: makes traces, records them from programs, and replays them in the model or in the real allocator.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Parser, Subcommand};
use hakmem_learner::{Knob, Options, Weights};
use hakmem_policy::file::parse_policy;
use hakmem_policy::{FrozenPolicy, parse_environment_over};
use hakmem_simulator::evaluate::{
    Cost, DEFAULT_VARIANT, Judged, KnownMarks, NOTHING, Report, Scale, Subject, account, learned, search, settled,
    variants,
};
use hakmem_simulator::model::{Costs, Machine};
use hakmem_simulator::trace::Trace;
use hakmem_simulator::{execute, raw_log, synthetic, validate};

/// Traces of allocations, and a model of hakmem that replays them.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Writes a made-up trace.
    Make {
        /// Name of the workload.
        workload: String,
        /// Seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Runs a program under the recorder and writes a trace of each of its processes that did much.
    Record {
        /// Folder for the traces.
        #[arg(long)]
        out: PathBuf,
        /// The recorder (`cargo build --release -p hakmem-recorder`); beside this program if not given.
        #[arg(long)]
        recorder: Option<PathBuf>,
        /// hakmem's library, to record under mode OBSERVE; without it the system's allocator serves the program.
        #[arg(long)]
        library: Option<PathBuf>,
        /// Processes with fewer events leave no trace.
        #[arg(long, default_value_t = 50_000)]
        min_events: usize,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// What is in a trace.
    Show {
        /// Trace files, or names of workloads.
        traces: Vec<String>,
    },
    /// Replays traces in the model, under the policy that the variables HAKMEM_* say.
    Replay {
        /// Trace files, or names of workloads.
        #[arg(default_values_t = synthetic::ALL.iter().map(|workload| workload.name.to_owned()))]
        traces: Vec<String>,
    },
    /// What the policy that the variables HAKMEM_* say scores on traces, as a whole and by phase.
    Score {
        /// Trace files, or names of workloads.
        traces: Vec<String>,
    },
    /// What the account says of each purge delay while the policy of the variables HAKMEM_* runs, beside replays under them.
    Account {
        /// Trace files, or names of workloads.
        traces: Vec<String>,
    },
    /// What a learner does on a trace, step by step.
    Log {
        /// Trace file, or name of a workload.
        trace: String,
        /// Rounds.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Seed of the learner.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Which learner, by its name in the tables.
        #[arg(long, default_value = DEFAULT_VARIANT)]
        learner: String,
    },
    /// What the best policies of a trace are: for the whole, and for each phase.
    Search {
        /// Trace file, or name of a workload.
        trace: String,
    },
    /// Compares learners with the defaults, the best policy that never changes and an oracle: tables, CSV and curves.
    Evaluate {
        /// Further traces, of recorded programs; their load is taken to change.
        traces: Vec<PathBuf>,
        /// Only these made-up workloads.
        #[arg(long, value_delimiter = ',')]
        only: Option<Vec<String>>,
        /// Only these learners.
        #[arg(long, value_delimiter = ';')]
        learners: Option<Vec<String>>,
        /// Rounds of each trace that a learner has.
        #[arg(long, default_value_t = 30)]
        rounds: u32,
        /// Seeds of each learner.
        #[arg(long, default_value_t = 2)]
        seeds: u64,
        /// Seed of the made-up workloads.
        #[arg(long, default_value_t = 1)]
        load_seed: u64,
        /// A file for the best policy that never changes and the oracle of each trace: those in it are not searched again. They are for
        /// one seed, one number of rounds and one table of prices.
        #[arg(long)]
        marks: Option<PathBuf>,
        /// Makes each price of the model wrong by up to 30 %, by this seed.
        #[arg(long)]
        perturb: Option<u64>,
        /// Makes what the kernel does cost so many times what the learner believes.
        #[arg(long, default_value_t = 1.0)]
        kernel: f64,
        /// Folder for the results.
        #[arg(long)]
        out: PathBuf,
        /// A document in which the tables stand between the marks `<!-- simulated: ... -->`.
        #[arg(long)]
        docs: Option<PathBuf>,
    },
    /// Executes a trace with the real allocator in this process, under the policy that the variables HAKMEM_* say.
    Execute {
        /// Trace file, or name of a workload.
        trace: String,
        /// Runs this many times as fast as the trace says.
        #[arg(long, default_value_t = 1)]
        speed: u32,
        /// Faults, mean MiB, milliseconds in the kernel; no more.
        #[arg(long)]
        csv: bool,
    },
    /// Compares the model with the real allocator: the same traces under the same ten policies.
    Validate {
        /// Trace files, or names of workloads.
        #[arg(required = true)]
        traces: Vec<String>,
        /// Runs this many times as fast as the traces say.
        #[arg(long, default_value_t = 4)]
        speed: u32,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Make { workload, seed, out } => synthetic::find(&workload)?.make(seed)?.save(&out),
        Task::Record { out, recorder, library, min_events, command } => {
            record(&out, recorder, library.as_deref(), min_events, &command)
        }
        Task::Show { traces } => traces.iter().try_for_each(|name| show(&trace(name)?)),
        Task::Replay { traces } => {
            let policy = policy_of_environment()?;
            println!(
                "trace, events, seconds, cpu_ms, system_ms, faults, huge_faults, madvise_calls, mean_mib, ns_per_event"
            );
            traces.iter().try_for_each(|name| replay(&trace(name)?, &policy))
        }
        Task::Score { traces } => {
            let policy = policy_of_environment()?;
            traces.iter().try_for_each(|name| {
                show_score(trace(name)?, &policy);
                Ok(())
            })
        }
        Task::Account { traces } => {
            let policy = policy_of_environment()?;
            traces.iter().try_for_each(|name| show_account(trace(name)?, &policy))
        }
        Task::Log { trace: name, rounds, seed, learner } => {
            let variant = variants().into_iter().find(|variant| variant.name == learner);
            let options = variant.with_context(|| format!("no learner {learner}"))?.options;
            log(trace(&name)?, &options, rounds, seed);
            Ok(())
        }
        Task::Search { trace: name } => {
            show_best(trace(&name)?);
            Ok(())
        }
        Task::Evaluate { traces, only, learners, rounds, seeds, load_seed, marks, perturb, kernel, out, docs } => {
            let costs = perturb.map_or(Costs::MEASURED, |seed| Costs::MEASURED.perturbed(seed)).with_kernel(kernel);
            let mut marks = KnownMarks::open(marks)?;
            let mut subjects = Vec::new();
            for workload in synthetic::ALL {
                if only.as_ref().is_none_or(|names| names.iter().any(|name| name == workload.name)) {
                    subjects.push((workload.make(load_seed)?, workload.changes, false));
                }
            }
            for path in traces {
                subjects.push((Trace::load(&path)?.with_phases(RECORDED_PHASES), true, true));
            }
            let report = evaluate(subjects, learners.as_deref(), (rounds, seeds), &costs, &mut marks, &out)?;
            let tables = report.markdown();
            println!("{tables}");
            docs.map_or(Ok(()), |path| put_between_marks(&path, &tables))
        }
        Task::Validate { traces, speed } => validate_all(&traces, speed),
        Task::Execute { trace: name, speed, csv } => {
            let measured = execute::run(&trace(&name)?.faster(speed))?;
            if csv {
                let memory = mebibytes(measured.mean_resident_bytes);
                println!("{},{memory},{}", measured.faults, measured.system_ns as f64 / 1e6);
                return Ok(());
            }
            println!(
                "{name}, faults {}, mean {:.2} MiB, peak {:.2} MiB, user {:.1} ms, system {:.1} ms",
                measured.faults,
                mebibytes(measured.mean_resident_bytes),
                mebibytes(measured.peak_resident_bytes as f64),
                measured.user_ns as f64 / 1e6,
                measured.system_ns as f64 / 1e6
            );
            Ok(())
        }
    }
}

/// A trace file, or a made-up trace by its name.
fn trace(name: &str) -> Result<Trace> {
    if Path::new(name).exists() { Trace::load(Path::new(name)) } else { synthetic::find(name)?.make(1) }
}

fn policy_of_environment() -> Result<FrozenPolicy> {
    let variables: Vec<(Vec<u8>, Vec<u8>)> = std::env::vars_os()
        .map(|(name, value)| (name.into_encoded_bytes(), value.into_encoded_bytes()))
        .filter(|(name, _)| name.starts_with(b"HAKMEM_"))
        .collect();
    let (mut complaints, mut refusal) = (Vec::new(), None);
    let pairs = variables.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let mut read_file =
        |path: &[u8], base: &FrozenPolicy| read_policy(path, base).map_err(|error| refusal = Some(error)).ok();
    let settings =
        parse_environment_over(pairs, &mut read_file, &mut |complaint| complaints.push(complaint.to_string()));
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    refusal.map_or(Ok(settings.policy), Err)
}

/// The policy that the file at `path` makes of `base`. Its site rules stay out: a trace does not say who called.
fn read_policy(path: &[u8], base: &FrozenPolicy) -> Result<FrozenPolicy> {
    let file = Path::new(OsStr::from_bytes(path));
    let text = std::fs::read(file).with_context(|| format!("HAKMEM_POLICY: cannot read {}", file.display()))?;
    parse_policy(&text, base).map_err(|error| {
        let mut line = String::new();
        let _infallible = error.write_line(path, &mut line);
        anyhow!(line)
    })
}

fn replay(trace: &Trace, policy: &FrozenPolicy) -> Result<()> {
    let started = Instant::now();
    let mut machine = Machine::new(trace, policy, &Costs::MEASURED);
    trace.events().iter().for_each(|event| machine.step(event));
    let took_ns = started.elapsed().as_nanos() as f64;
    let totals = machine.totals();
    println!(
        "{}, {}, {:.1}, {:.1}, {:.1}, {}, {}, {}, {:.2}, {:.0}",
        trace.name,
        totals.events,
        totals.elapsed_ns as f64 / 1e9,
        totals.cpu_ns / 1e6,
        totals.system_ns / 1e6,
        totals.counters.faults,
        totals.counters.huge_faults,
        totals.counters.madvises,
        mebibytes(totals.mean_resident_bytes()),
        took_ns / totals.events.max(1) as f64
    );
    Ok(())
}

/// Phases that a recorded trace is cut into.
const RECORDED_PHASES: u32 = 8;

fn evaluate(
    subjects: Vec<(Trace, bool, bool)>,
    learners: Option<&[String]>,
    (rounds, seeds): (u32, u64),
    costs: &Costs,
    marks: &mut KnownMarks,
    out: &Path,
) -> Result<Report> {
    std::fs::create_dir_all(out)?;
    let mut variants = variants();
    variants.retain(|variant| learners.is_none_or(|names| names.contains(&variant.name) || variant.name == NOTHING));
    let mut report = Report::default();
    // Written after each trace: an evaluation takes long, and one that is stopped has said something.
    for (trace, changes, is_recorded) in subjects {
        let subject = Subject::new(trace);
        let best = marks.of(&subject, costs, rounds)?;
        let judged = Judged::new(&subject, best, (changes, is_recorded), &variants, (rounds, seeds), costs);
        let score = judged.score(DEFAULT_VARIANT).unwrap_or(f64::NAN);
        eprintln!(
            "{}: static {:.3}, oracle {:.3}, LEARN {score:.3}",
            judged.name, judged.best.score, judged.best.oracle
        );
        report.judged.push(judged);
        report.write_csv(&out.join("learners.csv"))?;
        report.write_curves(&out.join("learners.svg"))?;
        std::fs::write(out.join("learners.md"), report.markdown()).context("learners.md")?;
    }
    Ok(report)
}

fn validate_all(traces: &[String], speed: u32) -> Result<()> {
    let program = std::env::current_exe()?;
    let mut correlations = Vec::new();
    println!("| trace | policy | faults: model | real | MiB: model | real | kernel ms: model | real |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for name in traces {
        let trace = trace(name)?.faster(speed);
        let mut pairs = Vec::new();
        for (policy, variables) in validate::POLICIES {
            let pair = validate::compare(&program, name, &trace, variables, speed)?;
            println!(
                "| {} | {policy} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |",
                trace.name,
                pair.faults[0],
                pair.faults[1],
                pair.memory[0],
                pair.memory[1],
                pair.system[0],
                pair.system[1]
            );
            pairs.push(pair);
        }
        let of = |pick: fn(&validate::Pair) -> [f64; 2]| {
            validate::rank_correlation(&pairs.iter().map(pick).collect::<Vec<_>>())
        };
        correlations.push((trace.name.clone(), of(|pair| pair.faults), of(|pair| pair.memory), of(|pair| pair.system)));
    }
    println!("\n| rank correlation over policies | faults | memory | kernel time |\n|---|---:|---:|---:|");
    for (name, faults, memory, system) in correlations {
        println!("| {name} | {faults:.2} | {memory:.2} | {system:.2} |");
    }
    Ok(())
}

const MARK: &str = "<!-- simulated: written by `simulator evaluate` -->";
const END_MARK: &str = "<!-- simulated: end -->";

fn put_between_marks(path: &Path, tables: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(MARK).with_context(|| format!("{}: no {MARK}", path.display()))?;
    let (_, after) = rest.split_once(END_MARK).with_context(|| format!("{}: no {END_MARK}", path.display()))?;
    Ok(std::fs::write(path, format!("{before}{MARK}\n{tables}{END_MARK}{after}"))?)
}

/// Prints what a policy that never changes scores.
fn show_score(trace: Trace, policy: &FrozenPolicy) {
    let subject = Subject::new(trace.with_phases(RECORDED_PHASES));
    let scale = Scale::new(&settled(&subject, &FrozenPolicy::DEFAULT, &Costs::MEASURED), Weights::default());
    show_round(&subject.trace.name, &scale, &settled(&subject, policy, &Costs::MEASURED));
}

fn show_round(name: &str, scale: &Scale, phases: &[Cost]) {
    let [cpu, faults, memory] = scale.ratios(phases);
    print!("{name}: {:.3}, cpu {cpu:.3} faults {faults:.3} memory {memory:.3}, by phase:", scale.score(phases));
    phases.iter().for_each(|phase| print!(" {:.3}", scale.share(phase)));
    println!();
}

/// Prints what the account says and what is so; 1 is the policy that runs.
fn show_account(trace: Trace, policy: &FrozenPolicy) -> Result<()> {
    let subject = Subject::new(trace);
    let rows = account(&subject, policy, &Costs::MEASURED);
    let runs = rows.iter().find(|row| row.delay_ms == policy.purge_delay_ms);
    let runs = runs.with_context(|| format!("no account is kept of {} ms", policy.purge_delay_ms))?.is;
    let scale = Scale::new(&[runs], Weights::default());
    println!("{}, {} ms running: said | so", subject.trace.name, policy.purge_delay_ms);
    for row in &rows {
        let [said, is] = [row.said, row.is].map(|cost| {
            let [cpu, faults, memory] = scale.ratios(&[cost]);
            format!("{:.3}, cpu {cpu:.3} faults {faults:.3} memory {memory:.3}", scale.score(&[cost]))
        });
        println!("{:6} ms: {said} | {is}", row.delay_ms);
    }
    Ok(())
}

/// Prints what a search finds.
fn show_best(trace: Trace) {
    let best = search(&Subject::new(trace.with_phases(RECORDED_PHASES)), &Costs::MEASURED);
    println!("{} policies tried", best.tried);
    show_round("whole trace", &best.scale, &best.costs);
    print_differences(&FrozenPolicy::DEFAULT, &best.policy);
    println!("oracle: {:.3}", best.oracle);
    for (number, phase) in best.phases.iter().enumerate() {
        print!("phase {}: {:.3} -> {:.3} ({:.3})", number + 1, phase.defaults, phase.best, phase.static_best);
        print_differences(&FrozenPolicy::DEFAULT, &phase.policy);
    }
}

fn print_differences(before: &FrozenPolicy, after: &FrozenPolicy) {
    for knob in Knob::ALL.into_iter().filter(|knob| knob.value(before) != knob.value(after)) {
        print!(" {}: {} -> {}", knob.field(), knob.value(before), knob.value(after));
    }
    println!();
}

/// Runs a learner and prints what it did.
fn log(trace: Trace, options: &Options, rounds: u32, seed: u64) {
    let subject = Subject::new(trace.with_phases(RECORDED_PHASES));
    let run = learned(&subject, options, &Costs::MEASURED, seed, rounds);
    let scale = Scale::new(&settled(&subject, &FrozenPolicy::DEFAULT, &Costs::MEASURED), Weights::default());
    let mut before = FrozenPolicy::DEFAULT;
    for step in &run.log {
        print!("{:9.1} s {:?}", step.at_ns as f64 / 1e9, step.phase);
        print_differences(&before, &step.policy);
        before.clone_from(&step.policy);
    }
    for (round, phases) in run.rounds.iter().enumerate() {
        show_round(&format!("round {}", round + 1), &scale, phases);
    }
}

fn show(trace: &Trace) -> Result<()> {
    println!(
        "{}: {} events in {:.1} s, {} threads, at most {} blocks at a time",
        trace.name,
        trace.events().len(),
        trace.elapsed_ns() as f64 / 1e9,
        trace.thread_count(),
        trace.block_count()
    );
    Ok(())
}

fn record(
    out: &Path,
    recorder: Option<PathBuf>,
    library: Option<&Path>,
    min_events: usize,
    command: &[String],
) -> Result<()> {
    let recorder = match recorder {
        Some(recorder) => recorder,
        None => std::env::current_exe()?.with_file_name("libhakmem_recorder.so"),
    };
    let mut preload = recorder.canonicalize().with_context(|| recorder.display().to_string())?.into_os_string();
    if let Some(library) = library {
        preload.push(":");
        preload.push(library.canonicalize().with_context(|| library.display().to_string())?);
    }
    std::fs::create_dir_all(out)?;
    // Of this call alone, and gone after it however it ends: an earlier one may have been interrupted.
    let logs = tempfile::Builder::new().prefix("logs-").tempdir_in(out).context("no place for logs")?;
    let [program, arguments @ ..] = command else { bail!("a program to record") };
    let status = Command::new(program)
        .args(arguments)
        .env("LD_PRELOAD", preload)
        .env("HAKMEM_TEST_RECORD_DIR", logs.path().canonicalize()?)
        .env("HAKMEM_MODE", "OBSERVE")
        .status()
        .with_context(|| program.clone())?;
    let mut recorded = 0;
    for entry in std::fs::read_dir(&logs)? {
        let log = entry?.path();
        let trace = raw_log::convert(&log)?;
        if trace.events().len() >= min_events {
            let process = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            trace.save(&out.join(format!("{}-{process}.trace", trace.name.replace('/', "_"))))?;
            show(&trace)?;
            recorded += 1;
        }
    }
    logs.close()?;
    ensure!(status.success(), "{program} ended with {status}");
    ensure!(recorded > 0, "no process of {program} had {min_events} events");
    Ok(())
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
