#!/usr/bin/env bash
# Fuzzes each target for so many seconds, from the seeds that are committed; what it finds to be new stays
# in the target directory. Without a nightly compiler or cargo-fuzz it says so and succeeds.
#
#     tools/fuzz.sh TARGET_DIRECTORY SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
target=$(cd "$1" && pwd)
seconds=$2

skip() {
    echo "fuzz: skipped, $1"
    exit 0
}

cargo +nightly --version >/dev/null 2>&1 || skip "there is no nightly compiler (rustup toolchain install nightly)"
tools=$target/fuzz-tools
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    cargo +nightly install --quiet --locked --version 0.13.2 --root "$tools" cargo-fuzz ||
        skip "cargo-fuzz could not be installed"
fi
export PATH="$tools/bin:$PATH" RUSTUP_TOOLCHAIN=nightly

cargo fuzz build --target-dir "$target/fuzz"
for name in $(cargo fuzz list); do
    found=$target/fuzz-corpus/$name
    mkdir -p "$found"
    echo "fuzz: $name for $seconds s"
    # No run is longer than this: a target that hangs is a find, too.
    cargo fuzz run --target-dir "$target/fuzz" "$name" "$found" "fuzz/corpus/$name" -- \
        -max_total_time="$seconds" -timeout=10 -max_len=4096 -verbosity=0 -print_final_stats=1
done
echo "fuzz: nothing found"
