#!/usr/bin/env python3
"""Write folders as AutoAWQ and AutoGPTQ pack them, and what their layers mean. Needs numpy and safetensors."""
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
INPUTS, OUTPUTS = 64, 32


def awq_pack(codes):
    """AutoAWQ 0.2, WQLinear_GEMM.from_linear: eight columns in a word."""
    packed = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    order_map = [0, 2, 4, 6, 1, 3, 5, 7]
    for col in range(packed.shape[1]):
        for i in range(8):
            packed[:, col] |= codes[:, col * 8 + order_map[i]].astype(np.uint32) << np.uint32(i * 4)
    return packed.view(np.int32)


def gptq_pack(codes, bits):
    """AutoGPTQ 0.7, QuantLinear.pack (cuda_old): consecutive rows in words; 3 bits straddle them."""
    codes = codes.astype(np.uint32)
    packed = np.zeros((codes.shape[0] * bits // 32, codes.shape[1]), np.uint32)
    i = row = 0
    while row < packed.shape[0]:
        if bits in (2, 4, 8):
            for j in range(i, i + 32 // bits):
                packed[row] |= codes[j] << np.uint32(bits * (j - i))
            i += 32 // bits
            row += 1
        else:
            for j in range(i, i + 10):
                packed[row] |= codes[j] << np.uint32(3 * (j - i))
            i += 10
            packed[row] |= codes[i] << np.uint32(30)
            row += 1
            packed[row] |= (codes[i] >> np.uint32(2)) & np.uint32(1)
            i += 1
            for j in range(i, i + 10):
                packed[row] |= codes[j] << np.uint32(3 * (j - i) + 1)
            i += 10
            packed[row] |= codes[i] << np.uint32(31)
            row += 1
            packed[row] |= (codes[i] >> np.uint32(1)) & np.uint32(3)
            i += 1
            for j in range(i, i + 10):
                packed[row] |= codes[j] << np.uint32(3 * (j - i) + 2)
            i += 10
            row += 1
    return packed.view(np.int32)


def write(name, config, tensors, dense):
    out = HERE / name
    out.mkdir(exist_ok=True)
    (out / "config.json").write_text(json.dumps({"quantization_config": config}, indent=1) + "\n")
    save_file({f"model.fc.{leaf}": np.ascontiguousarray(tensor) for leaf, tensor in tensors.items()},
              out / "model.safetensors")
    save_file({"model.fc": np.ascontiguousarray(dense)}, out / "dequantized.safetensors")


def numbers(rng, bits, group, least_zero):
    codes = rng.integers(0, 2**bits, (INPUTS, OUTPUTS))
    zeros = rng.integers(least_zero, 2**bits, (INPUTS // group, OUTPUTS))
    scales = rng.uniform(0.001, 0.1, zeros.shape).astype(np.float16)
    return codes, zeros, scales


def main():
    rng = np.random.default_rng(7)
    codes, zeros, scales = numbers(rng, 4, 32, 0)
    groups = np.arange(INPUTS) // 32
    # numpy rounds the product of two f16 once, as PyTorch does
    mean = lambda codes, zeros, scales, groups: ((codes - zeros[groups]).astype(np.float16) * scales[groups]).T
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
              "modules_to_not_convert": None}
    write("awq", config, {"qweight": awq_pack(codes), "qzeros": awq_pack(zeros), "scales": scales},
          mean(codes, zeros, scales, groups))
    for name, bits, group, format, act_order in [
        ("gptq_2", 2, 32, "gptq", False),
        ("gptq_3", 3, 64, "gptq", False),
        ("gptq_4", 4, 32, "gptq_v2", False),
        ("gptq_8", 8, 16, "gptq", False),
        ("gptq_4_act_order", 4, 16, "gptq", True),
    ]:
        codes, zeros, scales = numbers(rng, bits, group, 1)
        groups = np.arange(INPUTS) // group
        if act_order:
            groups = rng.permutation(groups)
        config = {"quant_method": "gptq", "bits": bits, "group_size": -1 if group == INPUTS else group,
                  "desc_act": act_order, "sym": False, "checkpoint_format": format}
        stored = zeros - (format == "gptq")
        tensors = {"qweight": gptq_pack(codes, bits), "qzeros": gptq_pack(stored.T, bits).T, "scales": scales,
                   "g_idx": groups.astype(np.int32)}
        write(name, config, tensors, mean(codes, zeros, scales, groups))


if __name__ == "__main__":
    main()
