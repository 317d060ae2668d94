"""Makes blocks.safetensors and encoded.safetensors: what gguf-python 0.19.0 makes of blocks, and of floats.

    pip install gguf==0.19.0 safetensors numpy && python make.py
"""

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

random = np.random.default_rng(7)

# Where the scales in f16 are, so that random bytes become finite ones.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0], "MXFP4": [],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}

blocks = {}
for name, halves in HALVES.items():
    size = GGML_QUANT_SIZES[T[name]][1]
    data = random.integers(0, 256, (3, size), dtype=np.uint8)
    for at in halves:
        scales = (random.standard_normal(3) * 2.0 ** random.integers(-16, 4, 3)).astype(np.float16)
        data[:, at : at + 2] = scales.view(np.uint8).reshape(3, 2)
    if name == "MXFP4":
        data[:, 0] = [0, 1, 254]  # the two subnormal scales, and the largest
    blocks[name] = data
    blocks[name + ".values"] = dequantize(data, T[name])
save_file(blocks, "blocks.safetensors")

rows = [random.standard_normal(32) * scale for scale in [1.0, 1e-3, 1e3, 1e-7]]
rows.append(np.zeros(32))
rows.append(np.full(32, -0.75))
rows.append(np.linspace(-8, 7.5, 32))  # halves between codes
rows.append(np.linspace(-127, 127, 32).round() + 0.5 * (np.arange(32) % 2))
rows.append(np.where(np.arange(32) % 2 == 0, 3.0, -3.0))  # the first of equal magnitudes
for power in [-20, -3, 1, 8]:  # just below and at a power of two, where a logarithm in f32 rounds up
    row = random.uniform(-1, 1, 32)
    row[5], row[9] = np.nextafter(np.float32(1), np.float32(0)), 0.75
    rows.append(row * 2.0**power)
    row[5] = 1.0
    rows.append(row * 2.0**power)
values = np.array(rows, dtype=np.float32)
encoded = {"values": values}
for name in ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]:
    encoded[name] = quantize(values, T[name]).view(np.uint8)
save_file(encoded, "encoded.safetensors")
