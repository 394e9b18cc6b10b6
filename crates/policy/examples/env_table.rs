//! Prints the page of environment variables.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

fn main() {
    print!("{}", hakmem_policy::env_vars_markdown());
}
