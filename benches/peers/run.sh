#!/bin/sh
# Compares products with packed weights with those of ONNX Runtime, and of torch if it is there, in one run.
#
#     benches/peers/run.sh [--threads 1] [--rounds 3]        prints a table in Markdown
#
# Installs ONNX Runtime into a virtual environment under target/; torch only if WITH_TORCH is set, as it takes gigabytes.
set -eu
cd "$(dirname "$0")/../.."
environment=target/peers
[ -x $environment/bin/python ] || python3 -m venv $environment
$environment/bin/pip install --quiet onnxruntime==1.32.0 onnx numpy ${WITH_TORCH:+torch}
cargo build --quiet --release -p burn-quant-benches --bin products
exec $environment/bin/python benches/peers/products.py target/release/products "$@"
