//! The samples that the `soak` program wrote.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A table of numbers, and of the two columns of words.
#[derive(Default)]
pub struct Samples {
    columns: Vec<String>,
    rows: Vec<Sample>,
}

/// One line.
struct Sample {
    mark: String,
    values: Vec<f64>,
}

impl Samples {
    /// Reads a CSV file. Its last line may be cut off when the program was killed; any other bad line is an error.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("no samples: {}", path.display()))?;
        Self::parse(&text)
    }

    /// The same from a text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let header = lines.next().context("the samples have no header")?;
        let columns: Vec<String> = header.trim_end().split(',').map(str::to_owned).collect();
        let words: Vec<bool> = columns.iter().map(|name| name == "phase" || name == "mark").collect();
        let mut samples = Self { columns, rows: Vec::new() };
        for line in lines {
            let fields: Vec<&str> = line.trim_end().split(',').collect();
            ensure!(fields.len() == samples.columns.len(), "a sample has {} fields: {line:?}", fields.len());
            let number = |(field, &is_word): (&&str, &bool)| if is_word { Ok(0.0) } else { field.parse() };
            let values: Result<Vec<f64>, _> = fields.iter().zip(&words).map(number).collect();
            let values = values.with_context(|| format!("a sample: {line:?}"))?;
            let mark = samples.index("mark").and_then(|index| fields.get(index)).copied().unwrap_or("").to_owned();
            samples.rows.push(Sample { mark, values });
        }
        Ok(samples)
    }

    fn index(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column)
    }

    /// Time in seconds and value of every sample that has `mark`, or of all; `None` if there is no such column.
    pub fn series(&self, column: &str, mark: Option<&str>) -> Option<Vec<(f64, f64)>> {
        let (time, value) = (self.index("seconds")?, self.index(column)?);
        let wanted = |row: &&Sample| mark.is_none_or(|mark| row.mark == mark);
        self.rows.iter().filter(wanted).map(|row| Some((*row.values.get(time)?, *row.values.get(value)?))).collect()
    }

    /// Resident memory beyond the blocks in use.
    pub fn overhead(&self, mark: Option<&str>) -> Option<Vec<(f64, f64)>> {
        let (held, used) = (self.series("rss_bytes", mark)?, self.series("soak_live_bytes", mark)?);
        Some(held.iter().zip(&used).map(|(held, used)| (held.0, held.1 - used.1)).collect())
    }

    /// Names of the columns that hold numbers.
    pub fn numbers(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(String::as_str).filter(|name| *name != "phase" && *name != "mark")
    }

    /// The last value of a column.
    pub fn last(&self, column: &str) -> Option<f64> {
        self.series(column, None)?.last().map(|&(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "seconds,phase,mark,rss_bytes,soak_live_bytes\n1,mix,,100,40\n2,floor,floor,50,10\n3,mi";

    #[test]
    fn columns_marks_and_differences_are_read_and_a_cut_line_is_not() {
        let samples = Samples::parse(TEXT).unwrap();
        assert_eq!(samples.overhead(None).unwrap(), [(1.0, 60.0), (2.0, 40.0)]);
        assert_eq!(samples.series("rss_bytes", Some("floor")).unwrap(), [(2.0, 50.0)]);
        assert_eq!(samples.last("rss_bytes"), Some(50.0));
        assert!(samples.series("no_such_column", None).is_none());
    }

    #[test]
    fn damaged_lines_are_errors() {
        assert!(Samples::parse("").is_err());
        assert!(Samples::parse("seconds,rss_bytes\n1\n").is_err());
        assert!(Samples::parse("seconds,rss_bytes\n1,x\n").is_err());
    }
}
