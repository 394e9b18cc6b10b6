//! Builds what the tests run: C and C++ programs, and the preload library.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "a test may stop, and needs some of this")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use hakmem_testkit::Ended;

/// Has the command run under the library; programs check that they really do.
pub fn preload(command: &mut Command) {
    let library = library();
    command.env("LD_PRELOAD", library).env("EXPECT_LIBRARY", library.file_name().unwrap());
}

/// The number that the exit statistics give for `name`; that there are none is no zero.
#[track_caller]
pub fn number(ended: &Ended, name: &str) -> u64 {
    let lines = ended.lines_of(&format!("  {name} "));
    let number = lines.first().and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in the statistics: {}", ended.stderr))
}

/// Compiles a program, once however many tests use it. It exports its functions, so that some can stand before the C
/// library's.
pub fn compile(source: &str) -> PathBuf {
    compile_with(source, &["-pthread", "-rdynamic"])
}

/// Compiles with these options besides the usual ones.
pub fn compile_with(source: &str, options: &[&str]) -> PathBuf {
    static COMPILED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.replace('.', "_"));
    if compiled.iter().any(|done| done == source) {
        return program;
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let (compiler, standard) = if source.ends_with("pp") { ("c++", "-std=c++17") } else { ("cc", "-std=gnu11") };
    let status = Command::new(compiler)
        .args([standard, "-O1", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(options)
        .arg("-o")
        .args([&program, &sources.join(source)])
        .arg("-ldl")
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{compiler} does not compile {source}");
    compiled.push(source.into());
    program
}

/// The preload library, built once as this test itself was built.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| std::env::var_os("HAKTEST_PRELOAD_LIBRARY").map_or_else(build_library, PathBuf::from))
}

fn build_library() -> PathBuf {
    // A directory of its own: the outer cargo may hold the lock of the usual one.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("library");
    let (profile, folder) = if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "hakmem-preload", "--profile", profile, "--target-dir"])
        .arg(&target)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "the preload library does not build");
    target.join(folder).join("libhakmem_preload.so")
}
