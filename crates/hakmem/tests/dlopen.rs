//! A shared library that uses the facade is loaded, used by several threads, and unloaded, a hundred times.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may stop")]

use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use hakmem_testkit::{Child, Memory};

const ROUNDS: u64 = 100;
/// A library that is unloaded cannot take its metadata along; each load may cost this much resident memory.
const KIB_PER_LOAD: u64 = 640;

#[test]
fn a_library_that_uses_the_facade_is_loaded_and_unloaded_a_hundred_times() {
    if Child::role().is_none() {
        let plugin = build_plugin();
        let test = "a_library_that_uses_the_facade_is_loaded_and_unloaded_a_hundred_times";
        let ended = Child::of_test(test, plugin.to_str().unwrap()).run();
        ended.assert_success();
        return eprint!("{}", ended.stderr);
    }
    let plugin = CString::new(Child::role().unwrap()).unwrap();
    let expected = load_use_unload(&plugin, 7);
    let settled = Memory::now();
    for _ in 1..ROUNDS {
        assert_eq!(load_use_unload(&plugin, 7), expected);
    }
    let end = Memory::now();
    eprintln!("dlopen: {} KiB resident after one round, {} after {ROUNDS}", settled.resident_kib, end.resident_kib);
    assert!(end.resident_kib <= settled.resident_kib + ROUNDS * KIB_PER_LOAD);
}

/// Builds the library into a directory of its own: the outer cargo may hold the lock of the usual one.
fn build_plugin() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "hakmem-dlopen-plugin", "--manifest-path"])
        .arg(workspace)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .unwrap();
    assert!(status.success(), "the plugin does not build");
    target.join("debug/libhakmem_dlopen_plugin.so")
}

fn load_use_unload(plugin: &CStr, seed: u64) -> u64 {
    // SAFETY: a NUL-terminated path; the library's constructors do nothing that another thread could mind.
    let library = unsafe { libc::dlopen(plugin.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "{}", dl_error());
    let work = work_of(library);

    let result = work(seed);
    // One thread ends while the library is loaded, another one after `dlclose`.
    assert_eq!(thread::spawn(move || work(seed)).join().unwrap(), result);
    let (unloaded, wait) = channel::<()>();
    let late = thread::spawn(move || {
        let result = work(seed);
        let _hung_up = wait.recv();
        result
    });
    // SAFETY: the handle came from `dlopen` and is closed once; `work` is not called again from this thread.
    let closed = unsafe { libc::dlclose(library) };
    assert_eq!(closed, 0, "{}", dl_error());
    drop(unloaded);
    assert_eq!(late.join().unwrap(), result);
    result
}

fn work_of(library: *mut c_void) -> extern "C" fn(u64) -> u64 {
    // SAFETY: the handle is open and the name is NUL-terminated.
    let address = unsafe { libc::dlsym(library, c"plugin_work".as_ptr()) };
    assert!(!address.is_null(), "{}", dl_error());
    // SAFETY: the plugin defines `plugin_work` with this signature.
    unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(u64) -> u64>(address) }
}

fn dl_error() -> String {
    // SAFETY: no condition.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no error".into();
    }
    // SAFETY: `dlerror` returned a NUL-terminated text that stays until the next call of the same thread.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
