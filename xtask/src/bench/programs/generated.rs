//! Large texts for programs to read, the same on every machine.

use std::fmt::Write as _;

/// Numbers that look random enough to vary a text.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn word(&mut self) -> String {
        (0..3 + self.below(7)).map(|_| char::from(b'a' + (self.below(26) as u8))).collect()
    }
}

/// Writes into a text, which cannot fail.
macro_rules! put {
    ($text:expr, $($argument:tt)*) => {{ let _cannot_fail = writeln!($text, $($argument)*); }};
}

/// A C file of functions with loops, switches, structures and calls of each other.
pub fn c_source(functions: u64) -> String {
    let mut numbers = Numbers(1);
    let mut text = String::from("struct record { int kind; long value; struct record *next; char name[24]; };\n");
    for function in 0..functions {
        put!(text, "static long work{function}(struct record *list, int count) {{");
        put!(text, "    long sum = {}, table[{}] = {{0}};", numbers.below(100), 4 + numbers.below(60));
        put!(text, "    for (struct record *at = list; at; at = at->next) {{\n        switch (at->kind) {{");
        for case in 0..3 + numbers.below(9) {
            let (factor, shift) = (1 + numbers.below(90), numbers.below(7));
            put!(
                text,
                "        case {case}: sum += at->value * {factor} - (sum >> {shift}); table[sum & 3] ^= sum; break;"
            );
        }
        put!(text, "        default: sum ^= at->name[sum & 15];\n        }}\n    }}");
        for _ in 0..numbers.below(4) {
            let (bound, mask) = (2 + numbers.below(40), numbers.below(1000));
            put!(
                text,
                "    for (int i = 0; i < count && i < {bound}; i++) {{ if ((i ^ {mask}) & 4) sum += table[i & 3] / (i + 1); else sum -= i * count; }}"
            );
        }
        if function > 2 {
            put!(text, "    if (count > 1) sum += work{}(list, count / 2);", numbers.below(function));
        }
        put!(text, "    return sum;\n}}");
    }
    text.push_str("long all(struct record *list, int count) {\n    long sum = 0;\n");
    for function in 0..functions {
        put!(text, "    sum += work{function}(list, count);");
    }
    text + "    return sum;\n}\n"
}

/// An XML document with attributes, text, entities and some depth.
pub fn xml(items: u64) -> String {
    let mut numbers = Numbers(2);
    let mut text = String::from("<?xml version=\"1.0\"?>\n<list xmlns:n=\"urn:n\">\n");
    for item in 0..items {
        put!(text, "<item id=\"i{item}\" n:kind=\"{}\"><name>{}</name>", numbers.word(), numbers.word());
        for _ in 0..numbers.below(5) {
            put!(
                text,
                "<part weight=\"{}\">{} &amp; {}<!-- {} --></part>",
                numbers.below(1000),
                numbers.word(),
                numbers.word(),
                item
            );
        }
        put!(text, "</item>");
    }
    text + "</list>\n"
}

/// A JSON array of objects.
pub fn json(items: u64) -> String {
    let mut numbers = Numbers(3);
    let mut text = String::from("[\n");
    for item in 0..items {
        let comma = if item == 0 { "" } else { "," };
        let tags: Vec<String> = (0..numbers.below(6)).map(|_| format!("\"{}\"", numbers.word())).collect();
        put!(text, "{comma}{{\"id\": {item}, \"name\": \"{}\", \"tags\": [{}],", numbers.word(), tags.join(", "));
        put!(
            text,
            " \"deep\": {{\"a\": {}, \"b\": {{\"c\": [{}, null, true]}}}}}}",
            numbers.below(50),
            numbers.below(9)
        );
    }
    text + "]\n"
}

/// A directed graph for layout.
pub fn graph(nodes: u64) -> String {
    let mut numbers = Numbers(4);
    let mut text = String::from("digraph g {\n");
    for node in 1..nodes {
        put!(text, "n{} -> n{node} [label=\"{}\"];", numbers.below(node), numbers.word());
        if node % 4 == 0 {
            put!(text, "n{} -> n{node};", numbers.below(node));
        }
    }
    text + "}\n"
}

/// A history for `git fast-import`: files that change a little from commit to commit.
pub fn history(commits: u64) -> String {
    let mut numbers = Numbers(5);
    let mut files: Vec<Vec<String>> = (0..60)
        .map(|_| (0..200).map(|_| format!("{} {} {}", numbers.word(), numbers.word(), numbers.word())).collect())
        .collect();
    let mut text = String::new();
    for commit in 0..commits {
        let message = format!("change {commit}");
        put!(text, "commit refs/heads/main\ncommitter A <a@example.com> {} +0000", 1_700_000_000 + commit * 60);
        put!(text, "data {}\n{message}", message.len());
        let changed = if commit == 0 { 0..60 } else { 0..4 };
        for file in changed {
            let index = if commit == 0 { file } else { numbers.below(60) };
            let Some(lines) = files.get_mut(index as usize) else { continue };
            for _ in 0..3 {
                let at = numbers.below(200) as usize;
                let line = format!("{} {} in {commit}", numbers.word(), numbers.word());
                if let Some(old) = lines.get_mut(at) {
                    *old = line;
                }
            }
            let contents = lines.join("\n");
            put!(text, "M 100644 inline d{}/f{index}\ndata {}\n{contents}", index % 7, contents.len());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_texts_are_the_same_each_time_and_well_formed() {
        assert_eq!(c_source(20), c_source(20));
        assert!(
            serde_json::from_str::<serde_json::Value>(&json(100))
                .is_ok_and(|value| value.as_array().is_some_and(|items| items.len() == 100))
        );
        assert_eq!(xml(50).matches("<item ").count(), xml(50).matches("</item>").count());
        assert_eq!(history(10).matches("commit refs/heads/main").count(), 10);
        assert_eq!(graph(9).matches("->").count(), 10);
    }
}
