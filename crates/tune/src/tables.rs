//! What was decided in words and as a table, with the programs by name.

use std::fmt::Write as _;

use crate::judge::{Breach, Refusal, Verdict};
use crate::score::Ratios;

/// How many programs are named as those that won or lost most.
const NAMED: usize = 3;

/// The parts in one line.
pub fn parts(ratios: &Ratios) -> String {
    let Ratios { wall, cpu, faults, memory, peak } = ratios;
    format!("wall {wall:.3}, cpu {cpu:.3}, faults {faults:.3}, memory {memory:.3}, peak {peak:.3}")
}

/// A broken limit.
pub fn breach(breach: &Breach, names: &[String]) -> String {
    let whose = breach.program.and_then(|place| names.get(place)).map_or(String::new(), |name| format!(" of {name}"));
    format!("{}{whose} {:.2}", breach.part, breach.ratio)
}

/// The decision in a sentence.
pub fn verdict(verdict: &Verdict, names: &[String]) -> String {
    let (wins, pairs) = (verdict.wins, verdict.pairs);
    let figures = format!("cost {:.3} ({}), cheaper in {wins} of {pairs} pairs", verdict.cost, parts(&verdict.ratios));
    let Some(refusal) = &verdict.refusal else { return figures };
    let why = match refusal {
        Refusal::NotWorthIt(gain) => format!("the gain of {:.1} % is not worth a policy", gain * 100.0),
        Refusal::Chance => format!("cheaper in {wins} of {pairs} pairs only, which chance does too"),
        Refusal::Limit(found) => format!("{} is more than may be", breach(found, names)),
    };
    format!("{figures}: {why}. The defaults stay.")
}

/// Each program, those first that the policy did most for, and the mean.
pub fn programs(verdict: &Verdict, names: &[String]) -> String {
    let mut text = String::from(
        "| program | cost | cheaper in | wall | cpu | faults | memory | peak |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut rows: Vec<_> = verdict.programs.iter().zip(names).collect();
    rows.sort_by(|left, right| left.0.cost.total_cmp(&right.0.cost));
    let mut add = |name: &str, cost: f64, wins: usize, ratios: &Ratios| {
        let Ratios { wall, cpu, faults, memory, peak } = ratios;
        let _infallible = writeln!(
            text,
            "| {name} | {cost:.3} | {wins} of {} | {wall:.3} | {cpu:.3} | {faults:.3} | {memory:.3} | {peak:.3} |",
            verdict.pairs
        );
    };
    for (program, name) in rows {
        add(name, program.cost, program.wins, &program.ratios);
    }
    add("geometric mean", verdict.cost, verdict.wins, &verdict.ratios);
    text
}

/// The programs with the lowest costs and those with the highest, each with its cost; none is in both.
pub fn extremes(costs: &[f64], names: &[String]) -> (Vec<String>, Vec<String>) {
    let mut sorted: Vec<_> = costs.iter().zip(names).collect();
    sorted.sort_by(|left, right| left.0.total_cmp(right.0));
    let shown = |(cost, name): &(&f64, &String)| format!("{name} {cost:.2}");
    let few = NAMED.min(sorted.len() / 2);
    (sorted.iter().take(few).map(shown).collect(), sorted.iter().rev().take(few).map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::ProgramVerdict;
    use crate::score::Part;

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    fn example(refusal: Option<Refusal>) -> Verdict {
        let ratios = Ratios { wall: 1.0, cpu: 0.9, faults: 0.5, memory: 1.0, peak: 1.02 };
        let programs = [0.95, 0.7, 1.01].map(|cost| ProgramVerdict { cost, ratios, wins: 4 }).to_vec();
        Verdict { wins: 7, pairs: 8, cost: 0.88, ratios, programs, refusal }
    }

    #[test]
    fn programs_stand_in_the_order_of_what_was_done_for_them() {
        let text = programs(&example(None), &names());
        let first: Vec<&str> = text.lines().skip(2).filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(first, ["b", "a", "c", "geometric"]);
        assert!(text.contains("| b | 0.700 | 4 of 8 | 1.000 | 0.900 | 0.500 | 1.000 | 1.020 |"), "{text}");
    }

    #[test]
    fn a_refusal_names_part_and_program() {
        let found = Breach { program: Some(1), part: Part::Peak, ratio: 1.52 };
        let text = verdict(&example(Some(Refusal::Limit(found))), &names());
        assert!(text.contains("peak memory of b 1.52 is more than may be. The defaults stay."), "{text}");
        let mean = Breach { program: None, part: Part::Memory, ratio: 1.061 };
        assert_eq!(breach(&mean, &names()), "memory 1.06");
        assert!(verdict(&example(None), &names()).ends_with("cheaper in 7 of 8 pairs"));
    }

    #[test]
    fn those_who_won_and_those_who_lost_are_not_the_same() {
        let (best, worst) = extremes(&[0.95, 0.7, 1.01], &names());
        assert_eq!((best, worst), (vec!["b 0.70".to_owned()], vec!["c 1.01".to_owned()]));
        assert_eq!(extremes(&[], &[]), (vec![], vec![]));
    }
}
