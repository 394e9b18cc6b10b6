//! A policy file with its evidence: what the allocator reads, and what only people and tools do.
//!
//! **Invariants.** The allocator's own reader takes every text that [`Document::to_text`] makes, as the same policy. What a tool
//! of another version added to the evidence is skipped, and what it left out is empty.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use hakmem_policy::FrozenPolicy;
use hakmem_policy::file::{Knobs, POLICY_FILE_BYTES, parse_policy_file, write_policy};
use serde::{Deserialize, Deserializer, Serialize};

use crate::sites::{Noted, Site};

const HEADER: &str = "# A policy of hakmem; `hakmem-tune explain FILE` says what it does and why.\n";

/// Where a policy comes from.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// What wrote it.
    pub tool: String,
    /// The program that it was made for, or how many.
    pub command: String,
    /// The programs by name, where it was made for several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// The machine.
    pub host: String,
    /// Processors of the machine.
    pub cpus: u64,
    /// Runs of the program that it rests on; its weight when policies are merged.
    pub runs: u64,
    /// Windows that a learner has seen, if one wrote it.
    #[serde(skip_serializing_if = "is_zero")]
    pub windows: u64,
    /// Median cost with it, where the defaults cost 1; 0 if nobody compared.
    pub cost: f64,
    /// Pairs of runs, defaults and policy, that confirmed it.
    pub pairs: u64,
    /// Those in which the policy was cheaper.
    pub wins: u64,
    /// Those of the programs that it did most for, with the cost of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub best: Vec<String>,
    /// Those that it did least for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub worst: Vec<String>,
    /// What counted how much.
    pub weights: String,
    /// The files that it was merged from.
    pub files: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a knob has its value.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Value of the defaults.
    #[serde(deserialize_with = "any_scalar")]
    pub before: String,
    /// Value of the policy.
    #[serde(deserialize_with = "any_scalar")]
    pub now: String,
    /// Runs that were looked at, or a learner's trials.
    pub trials: u64,
    /// Cost with this value, where the defaults cost 1.
    pub score_with: f64,
    /// Cost of the same policy with the value that it was compared with: the one before, or another that was tried.
    pub score_without: f64,
    /// A sentence.
    pub reason: String,
    /// Who found something else, when policies were merged.
    pub dissent: Vec<String>,
}

/// Takes `300`, `true` and `"300"` for the same.
fn any_scalar<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(match toml::Value::deserialize(input)? {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(switch) => if switch { "1" } else { "0" }.to_owned(),
        toml::Value::Array(items) => {
            let items: Vec<String> =
                items.iter().filter_map(toml::Value::as_integer).map(|item| item.to_string()).collect();
            items.join(",")
        }
        _ => return Err(serde::de::Error::custom("expected a value of a knob")),
    })
}

/// What the allocator's reader skips.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
struct Notes {
    source: Source,
    evidence: BTreeMap<String, Evidence>,
    site: Vec<Noted>,
}

/// What stands below the knobs.
#[derive(Serialize)]
struct Tables {
    source: Source,
    evidence: BTreeMap<String, Evidence>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    site: Vec<Site>,
}

/// A policy with its evidence.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// The policy; knobs that the file does not name have their default.
    pub policy: FrozenPolicy,
    /// Where it comes from.
    pub source: Source,
    /// Why each knob has its value, also for knobs that were tried and kept.
    pub evidence: BTreeMap<String, Evidence>,
    /// The site rules, in order.
    pub sites: Vec<Site>,
}

impl Document {
    /// Reads a file as the allocator would, and its evidence.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_text(&text, &path.display().to_string())
    }

    /// The same for a text; `name` is what complaints call it.
    pub fn from_text(text: &[u8], name: &str) -> Result<Self> {
        let mut rules = Vec::new();
        let policy =
            parse_policy_file(text, &FrozenPolicy::DEFAULT, &mut |rule| rules.push(*rule)).map_err(|error| {
                let mut line = String::new();
                let _infallible = error.write_line(name.as_bytes(), &mut line);
                anyhow!("{line}")
            })?;
        let text = std::str::from_utf8(text).with_context(|| format!("{name} is no text"))?;
        let notes: Notes = toml::from_str(text).with_context(|| format!("{name}: the evidence cannot be read"))?;
        let sites = rules.iter().zip(notes.site).map(|(rule, noted)| Site::new(rule, noted)).collect();
        Ok(Self { policy, source: notes.source, evidence: notes.evidence, sites })
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<String> {
        let mut text = HEADER.to_owned();
        write_policy(&self.policy, Knobs::Changed, &mut text).context("cannot write the knobs")?;
        let notes = Tables {
            source: plain_source(&self.source),
            evidence: plain_evidence(&self.evidence),
            site: plain_sites(&self.sites),
        };
        text.push('\n');
        text.push_str(&toml::to_string(&notes).context("cannot write the evidence")?);
        ensure!(text.len() <= POLICY_FILE_BYTES, "{} bytes are more than a policy file may have", text.len());
        let again =
            Self::from_text(text.as_bytes(), "what was written").context("a policy file that cannot be read")?;
        ensure!(
            again.policy == self.policy && again.sites == notes.site,
            "the policy file does not say what it should"
        );
        Ok(text)
    }

    /// Writes the file, as a whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.to_text()?;
        write_whole(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Writes under another name first, which then becomes the file's: a policy of which the end is missing is one, too. What is no plain
/// file (a pipe, a terminal, a link) is written as it is, and so is a file in a folder that is not one's own.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let is_plain = path.symlink_metadata().map_or(true, |found| found.is_file());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As for any new file: the user's mask says who may read it.
    let mut aside = tempfile::Builder::new();
    aside.permissions(Permissions::from_mode(0o666));
    match aside.tempfile_in(folder) {
        Ok(mut aside) if is_plain => {
            aside.write_all(text)?;
            aside.persist(path)?;
            Ok(())
        }
        _ => std::fs::write(path, text),
    }
}

fn plain_source(source: &Source) -> Source {
    Source {
        tool: plain(&source.tool),
        command: plain(&source.command),
        host: plain(&source.host),
        weights: plain(&source.weights),
        files: plain_all(&source.files),
        programs: plain_all(&source.programs),
        best: plain_all(&source.best),
        worst: plain_all(&source.worst),
        cost: rounded(source.cost),
        ..source.clone()
    }
}

fn plain_evidence(evidence: &BTreeMap<String, Evidence>) -> BTreeMap<String, Evidence> {
    let one = |found: &Evidence| Evidence {
        reason: plain(&found.reason),
        dissent: plain_all(&found.dissent),
        score_with: rounded(found.score_with),
        score_without: rounded(found.score_without),
        ..found.clone()
    };
    evidence.iter().map(|(field, found)| (field.clone(), one(found))).collect()
}

fn plain_sites(sites: &[Site]) -> Vec<Site> {
    let one = |site: &Site| {
        let mut site = site.clone();
        let evidence = &mut site.evidence;
        evidence.symbols = plain(&evidence.symbols);
        evidence.dissent = plain_all(&evidence.dissent);
        evidence.mib = rounded(evidence.mib);
        evidence.idle_ms = evidence.idle_ms.map(rounded);
        site
    };
    sites.iter().map(one).collect()
}

fn plain_all(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| plain(text)).collect()
}

/// A text that TOML needs no escapes and no second line for.
fn plain(text: &str) -> String {
    const LONGEST: usize = 400;
    let plain = |letter: char| match letter {
        '"' | '\'' | '\\' => '`',
        letter if letter.is_control() => ' ',
        letter => letter,
    };
    text.chars().take(LONGEST).map(plain).collect()
}

fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1e4).round() / 1e4 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let evidence = Evidence {
            before: "300".into(),
            now: "1000".into(),
            trials: 7,
            score_with: 0.912_345_6,
            score_without: 1.0,
            reason: "fewer \"faults\",\nas '''said'''".into(),
            dissent: vec!["b.toml: 10".into()],
        };
        Document {
            policy: FrozenPolicy { purge_delay_ms: 1000, mid_cap: [1, 2, 3, 4, 5], ..FrozenPolicy::DEFAULT },
            source: Source {
                command: "sh -c 'a \"b\" \\ [knobs]'\n[knobs]".into(),
                runs: 12,
                cost: f64::NAN,
                ..Source::default()
            },
            evidence: BTreeMap::from([("purge_delay_ms".to_owned(), evidence)]),
            sites: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read_again_whatever_the_texts_say() {
        let document = document();
        let again = Document::from_text(document.to_text().unwrap().as_bytes(), "x").unwrap();
        assert_eq!(again.policy, document.policy);
        assert_eq!(again.source.runs, 12);
        let evidence = &again.evidence["purge_delay_ms"];
        assert_eq!((evidence.trials, evidence.score_with), (7, 0.9123));
        assert_eq!(evidence.reason, "fewer `faults`, as ```said```");
        assert_eq!(again.to_text().unwrap(), document.to_text().unwrap());
    }

    #[test]
    fn site_rules_are_read_with_their_evidence_and_written_again() {
        let text = "version = 1\n[[site]]\nkeep_ms = '2s'\ncalls = 'p+0x1 q+0x2'\n[site.evidence]\nblocks = 4\nmib = 128.0\n\
                    symbols = 'a+0x3 b+0x4'\nweather = 'mild'\n[[site]]\ncalls = 'p+0x9'\npages = 'huge'\nbytes = [5, 9]\n";
        let document = Document::from_text(text.as_bytes(), "x").unwrap();
        let [waits, pages] = &document.sites[..] else { panic!("{:?}", document.sites) };
        assert_eq!((waits.calls.as_str(), waits.keep_ms, waits.evidence.blocks), ("p+0x1 q+0x2", Some(2000), 4));
        assert_eq!((pages.pages.as_deref(), pages.bytes, pages.evidence.blocks), (Some("huge"), Some([5, 9]), 0));
        let again = Document::from_text(document.to_text().unwrap().as_bytes(), "y").unwrap();
        assert_eq!(again.sites, document.sites);
    }

    #[test]
    fn evidence_of_other_tools_may_say_less_and_more() {
        let text = b"version = 1\n[knobs]\nmid_cap = [1, 2, 3, 4, 5]\n[evidence.mid_cap]\nbefore = [9, 9]\nnow = true\nweather = \"mild\"\n";
        let document = Document::from_text(text, "x").unwrap();
        let evidence = &document.evidence["mid_cap"];
        assert_eq!((evidence.before.as_str(), evidence.now.as_str(), evidence.trials), ("9,9", "1", 0));
        assert_eq!(document.source, Source::default());
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_name_and_line() {
        let error = Document::from_text(b"version = 3\n", "fleet.toml").unwrap_err();
        assert_eq!(error.to_string(), "fleet.toml:1: version 3; this hakmem reads version 1");
        let error = Document::from_text(b"version = 1\n[knobs]\n\noutbox_blocks = 0\n", "b.toml").unwrap_err();
        assert!(error.to_string().starts_with("b.toml:4: outbox_blocks = 0 is out of range"), "{error}");
    }

    #[test]
    fn evidence_for_every_knob_fits_into_a_file() {
        let mut document = document();
        let long = Evidence { reason: "r".repeat(400), dissent: vec!["d".repeat(100); 3], ..Evidence::default() };
        document.evidence = FrozenPolicy::FIELDS.iter().map(|field| ((*field).to_owned(), long.clone())).collect();
        document.to_text().unwrap();
    }
}
