#!/bin/sh
# Compares products with packed weights with candle's, of ggml's formats: a line per weight and batch, in milliseconds.
#
#     benches/peers/candle.sh [THREADS]
#
# Both sides run twice, in turns. candle is built under target/, outside the workspace.
set -eu
cd "$(dirname "$0")/../.."
export RAYON_NUM_THREADS="${1:-1}"
cargo build --quiet --release --manifest-path benches/peers/candle/Cargo.toml --target-dir target/candle
cargo build --quiet --release -p burn-quant-benches --bin products
for _ in 1 2; do
    target/candle/release/candle-products
    target/release/products
done
