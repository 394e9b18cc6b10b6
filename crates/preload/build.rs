//! How the shared library is linked: what runs always lies together, libgcc's unwinder is inside, and calls within it stay within it.
//!
//! The first two are for small processes, which pay for every page of a library that they touch, and for every library (the numbers
//! are in the comments of `layout.ld`). Elsewhere than on Linux with glibc and the GNU linker's options nothing is asked for.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    if env::var("CARGO_CFG_TARGET_OS")? != "linux" || env::var("CARGO_CFG_TARGET_ENV")? != "gnu" {
        return Ok(());
    }
    // A copy beside what is built: its path holds for whoever builds there, from this checkout or another.
    let directory = PathBuf::from(env::var("OUT_DIR")?);
    let layout = directory.join("layout.ld");
    fs::copy("layout.ld", &layout)?;
    println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{}", layout.display());

    // The name under which it is installed, so that a program linked with it does not remember where it was built.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libhakmem.so");

    // What the library calls of itself is its own: `hak_realloc` must not become the program's `realloc` where the library was loaded
    // with `dlopen` and the program has another one.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");

    // The standard library asks for libgcc_s.so. The linker meets this text of that name first, which sends it to the static
    // libraries: their symbols stay inside, so that programs and the C++ runtime go on using their own unwinder.
    fs::write(directory.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")?;
    println!("cargo::rustc-cdylib-link-arg=-L{}", directory.display());
    Ok(())
}
