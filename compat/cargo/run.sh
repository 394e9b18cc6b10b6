set -euo pipefail
cp -r "$COMPAT_DIR/crate" crate
cd crate
export CARGO_TARGET_DIR=$PWD/target CARGO_NET_OFFLINE=true CARGO_BUILD_JOBS=2 CARGO_TERM_COLOR=never
unset RUSTFLAGS RUSTC_WRAPPER CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
cargo build --offline --quiet
./target/debug/compat-crate
cargo test --offline --quiet 2>&1 | grep '^test result' | sed 's/; finished in .*//'
cargo build --offline --quiet --release
./target/release/compat-crate
