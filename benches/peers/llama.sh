#!/bin/sh
# Times packed language models beside llama.cpp, in turns: tokens per second of a prompt of 512, and of 64 and 800 written.
#
#     benches/peers/llama.sh FOLDER [THREADS] [ROUNDS]        a Hugging Face folder in float
#
# The folder is written as Q4_0 and Q8_0 by `burn-quant`; the table of embeddings is F16 there and INT8 here. llama.cpp
# comes as the sources of the package llama-cpp-python, and is built under target/llama with CMake and a C++ compiler,
# which have to be there.
set -eu
folder=$(realpath "$1")
threads=${2:-1}
rounds=${3:-3}
cd "$(dirname "$0")/../.."
mkdir -p target/llama
if [ ! -x target/llama/build/bin/llama-bench ]; then
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest target/llama llama-cpp-python==0.3.36
    tar -xzf target/llama/llama_cpp_python-*.tar.gz -C target/llama --strip-components=1
    cmake -S target/llama/vendor/llama.cpp -B target/llama/build -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF > /dev/null
    cmake --build target/llama/build --target llama-bench --parallel "$(nproc)" > /dev/null
fi
cargo build --quiet --release -p burn-quant-cli
cargo build --quiet --release -p burn-quant-benches --bin tokens
for bits in 4 8; do
    cat > target/llama/recipe.toml << EOF
[[rules]]
quantizer = "model.layers.*.weight_quantizer"
action = { set = { format = "int$bits", granularity = { block = 32 } } }
EOF
    [ -f "target/llama/$bits.gguf" ] || target/release/burn-quant quantize "$folder" --quiet \
        --recipe target/llama/recipe.toml --format gguf --out "target/llama/$bits.gguf"
    for _ in $(seq "$rounds"); do
        echo "W$bits, ours, $threads threads"
        RAYON_NUM_THREADS=$threads target/release/tokens "$folder" --weights "$bits" --rounds 1
        RAYON_NUM_THREADS=$threads target/release/tokens "$folder" --weights "$bits" --rounds 1 --prompt 1 --written 800
        echo "W$bits, llama.cpp"
        target/llama/build/bin/llama-bench -m "target/llama/$bits.gguf" -t "$threads" -p 512 -n 64,800 -r 1 2> /dev/null \
            | grep -E "pp|tg"
    done
done
