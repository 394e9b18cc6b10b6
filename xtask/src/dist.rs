//! `cargo xtask dist`: the preload library and its C header in `target/dist`.
//!
//! **Invariants.** The header declares only `hak_*` items; every function it declares is exported by the library (a C program that names them all is linked).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::launch;
use crate::project::Project;

/// Builds, copies, generates and checks.
pub fn dist(project: &Project) -> Result<ExitCode> {
    let library = project.preload_library()?;
    let directory = project.target().join("dist");
    std::fs::create_dir_all(&directory)?;
    let copy = directory.join("libhakmem.so");
    std::fs::copy(&library, &copy).with_context(|| format!("cannot copy {}", library.display()))?;

    let header = directory.join("hakmem.h");
    std::fs::write(&header, generate(project)?)?;
    check(&directory, &std::fs::read_to_string(&header)?)?;
    println!("{}\n{}", copy.display(), header.display());
    Ok(ExitCode::SUCCESS)
}

/// The header of `hak.rs`, in the form that its `cbindgen.toml` describes.
fn generate(project: &Project) -> Result<String> {
    let crate_directory = project.root().join("crates").join("preload");
    let source = crate_directory.join("src").join("hak.rs");
    let config = crate_directory.join("cbindgen.toml");
    let config = match cbindgen::Config::from_file(&config) {
        Ok(config) => config,
        Err(error) => bail!("{}: {error}", config.display()),
    };
    let bindings = cbindgen::Builder::new().with_config(config).with_src(&source).generate();
    let bindings = bindings.with_context(|| format!("cbindgen cannot read {}", source.display()))?;
    let mut bytes = Vec::new();
    bindings.write(&mut bytes);
    let text = in_old_comments(&String::from_utf8(bytes)?);

    let written = exported_functions(&std::fs::read_to_string(&source)?);
    let declared = declared_functions(&text);
    ensure!(!declared.is_empty(), "the header declares no function");
    ensure!(written == declared, "hak.rs exports {written:?}, but the header declares {declared:?}");
    if let Some(stray) = declared.iter().find(|name| !name.starts_with("hak_")) {
        bail!("hak.rs exports `{stray}`: only hak_ names belong into the header");
    }
    Ok(text)
}

/// The text with comments as C89 has them; cbindgen has some in the newer form only, and the others in twice the lines.
fn in_old_comments(text: &str) -> String {
    let in_old = |line: &str| match line.split_once("//") {
        Some((code, comment)) => format!("{code}/*{} */\n", comment.trim_end()),
        None => format!("{line}\n"),
    };
    text.lines().map(in_old).collect()
}

/// Names of the functions with a C ABI in a source text.
fn exported_functions(text: &str) -> BTreeSet<String> {
    let name_of = |rest: &str| -> Option<String> {
        let rest = rest.trim_start().strip_prefix("fn ")?;
        let name: String = rest.chars().take_while(|mark| mark.is_alphanumeric() || *mark == '_').collect();
        (!name.is_empty()).then_some(name)
    };
    text.split("extern \"C\"").skip(1).chain(text.split("extern \"C-unwind\"").skip(1)).filter_map(name_of).collect()
}

/// Names of the functions that the header declares.
fn declared_functions(header: &str) -> BTreeSet<String> {
    let is_name = |mark: char| mark.is_alphanumeric() || mark == '_';
    let code =
        header.lines().filter(|line| !line.starts_with(['#', '/', ' ', '*'])).map(|line| line.split("//").next());
    let code = code.flatten().filter(|line| line.contains('(')).filter_map(|line| line.split('(').next());
    let name = |line: &str| line.trim_end().rsplit(|mark| !is_name(mark)).next().map(str::to_owned);
    code.filter_map(name).filter(|name| !name.is_empty()).collect()
}

/// What a program does first with the API, in C.
const FIRST_STEPS: &str = r#"#include "hakmem.h"
#include <stdlib.h>

static int first_steps(void) {
    if (hak_check_abi(HAKMEM_ABI_MAGIC, HAKMEM_ABI_VERSION) != HAK_OK) return 10;
    char *block = (char *)malloc(100000);
    if (block == 0) return 11;
    block[99999] = 'x';
    hak_stats_t stats = HAK_STATS_INIT;
    if (hak_stats(&stats) != HAK_OK) return 12;
    if (stats.live_bytes < 100000) return 13;
    stats.abi_version += 1;
    if (hak_stats(&stats) == HAK_OK) return 14;
    free(block);
    return 0;
}
"#;

/// Compiles the header in the oldest form of C and C++, and a program against it as C and C++ with warnings as errors, links it with the library and runs it.
fn check(directory: &Path, header: &str) -> Result<()> {
    if launch::find_program("cc").is_none() {
        eprintln!("xtask: there is no C compiler `cc`, so the header was not checked");
        return Ok(());
    }
    let mut program = format!("{FIRST_STEPS}\nint main(void) {{\n");
    for function in declared_functions(header) {
        program.push_str(&format!("    if ((void (*)(void)){function} == 0) return 1;\n"));
    }
    program.push_str("    return first_steps();\n}\n");
    let scratch = tempfile::Builder::new().prefix("hakmem-dist-").tempdir().context("no temporary directory")?;
    let source = scratch.path().join("check.c");
    let binary = scratch.path().join("check");
    std::fs::write(&source, program)?;
    // Comparing every function with null, cast to one type, is on purpose here.
    let warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-address", "-Wno-cast-function-type"];
    let mut compile = Command::new("cc");
    compile.arg("-std=c11").args(warnings).arg("-I").arg(directory).arg(&source).arg("-o").arg(&binary);
    run(compile.arg(directory.join("libhakmem.so")))?;
    let alone = scratch.path().join("alone.c");
    std::fs::write(
        &alone,
        "#include \"hakmem.h\"\nhak_stats_t stats = HAK_STATS_INIT;\nhak_options_t options = HAK_OPTIONS_INIT;\n",
    )?;
    let strict = ["-pedantic-errors", "-fsyntax-only"];
    run(Command::new("cc").arg("-std=c89").args(strict).args(warnings).arg("-I").arg(directory).arg(&alone))?;
    if launch::find_program("c++").is_some() {
        let oldest = ["-std=c++98", "-x", "c++"];
        run(Command::new("c++").args(oldest).args(strict).args(warnings).arg("-I").arg(directory).arg(&alone))?;
        let mut compile = Command::new("c++");
        run(compile
            .args(["-std=c++17", "-x", "c++", "-fsyntax-only"])
            .args(warnings)
            .arg("-I")
            .arg(directory)
            .arg(&source))?;
    }
    // The refusal that the program provokes is written to stderr, which is nobody's business here unless it fails.
    let output =
        Command::new(&binary).env("LD_LIBRARY_PATH", directory).output().context("the C program does not start")?;
    if !output.status.success() {
        bail!("the C program that uses the header: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{name} does not start"))?;
    if !status.success() {
        bail!("checking the header: {name} failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_the_real_sources_is_complete() {
        let header = generate(&Project::load().unwrap()).unwrap();
        assert!(header.contains("HAKMEM_ABI_MAGIC") && declared_functions(&header).contains("hak_stats"), "{header}");
        assert!(!declared_functions(&header).contains("malloc"));
    }

    #[test]
    fn exported_functions_are_found_and_types_are_not() {
        let text = "#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn malloc(size: usize) {}\npub extern \"C\" fn hak_version() -> u32 {1}\ntype F = extern \"C\" fn(u32);";
        assert_eq!(exported_functions(text).into_iter().collect::<Vec<_>>(), ["hak_version", "malloc"]);
    }

    #[test]
    fn declared_functions_skip_comments_and_macros() {
        let header = "// hak_comment(x)\n#define HAK(x) 1\nuint32_t hak_version(void);\nint *hak_stats (struct s *out);\n/* b(c) */\n";
        assert_eq!(declared_functions(header).into_iter().collect::<Vec<_>>(), ["hak_stats", "hak_version"]);
    }
}
