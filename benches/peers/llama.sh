#!/bin/sh
# Times llama.cpp on a GGUF file, tokens per second: decoding and a prompt of 128 tokens.
#
#     benches/peers/llama.sh MODEL.gguf [THREADS]
#
# llama.cpp comes as the sources of the package llama-cpp-python, and is built under target/llama with CMake and a C++
# compiler, which have to be there.
set -eu
model=$(realpath "$1")
cd "$(dirname "$0")/../.."
mkdir -p target/llama
if [ ! -x target/llama/build/bin/llama-bench ]; then
    python3 -m pip download --quiet --no-deps --no-binary :all: --dest target/llama llama-cpp-python==0.3.36
    tar -xzf target/llama/llama_cpp_python-*.tar.gz -C target/llama --strip-components=1
    cmake -S target/llama/vendor/llama.cpp -B target/llama/build -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF > /dev/null
    cmake --build target/llama/build --target llama-bench --parallel > /dev/null
fi
exec target/llama/build/bin/llama-bench -m "$model" -t "${2:-1}" -p 128 -n 32
