//! Generates a module, so that the build runs a program of its own.

use std::fmt::Write as _;

fn main() {
    let mut text = String::from("pub const NAMES: &[&str] = &[\n");
    for number in 0..2000 {
        writeln!(text, "    \"name {number}\",").unwrap();
    }
    text.push_str("];\n");
    let directory = std::env::var("OUT_DIR").unwrap();
    std::fs::write(std::path::Path::new(&directory).join("names.rs"), text).unwrap();
    println!("cargo::rerun-if-changed=build.rs");
}
