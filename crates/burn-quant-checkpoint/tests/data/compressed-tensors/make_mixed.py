#!/usr/bin/env python3
"""Write `mixed/`: a small layer for each scheme that the other folders do not have, compressed by the package.

    make_mixed.py

`model.safetensors` holds what `compress` returns, `decompressed.safetensors` what `decompress` makes of it.
Needs torch 2.15, safetensors 0.8 and compressed-tensors 0.20.0.
"""
import json
from pathlib import Path

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

INT = {"type": "int", "symmetric": True}
ASYM = {"type": "int", "symmetric": False}
FLOAT = {"type": "float", "symmetric": True}


def groups(size):
    return {"strategy": "group", "group_size": size}


def blocks(*shape):
    return {"strategy": "block", "block_structure": list(shape)}


# name, format, type of the scales, shape, weights
LAYERS = [
    ("int8_asym", "int-quantized", torch.bfloat16, (13, 50), ASYM | {"num_bits": 8, "strategy": "channel"}),
    ("int8_tensor_asym", "int-quantized", torch.float32, (6, 10), ASYM | {"num_bits": 8, "strategy": "tensor"}),
    ("int4_bytes", "int-quantized", torch.float16, (5, 24), INT | {"num_bits": 4} | groups(8)),
    ("int8_block", "int-quantized", torch.float32, (40, 48), INT | {"num_bits": 8} | blocks(16, 32)),
    ("fp8_block", "float-quantized", torch.bfloat16, (40, 48), FLOAT | {"num_bits": 8} | blocks(32, 32)),
    ("fp8_naive", "naive-quantized", torch.bfloat16, (7, 33), FLOAT | {"num_bits": 8, "strategy": "channel"}),
    ("pack_tensor_asym", "pack-quantized", torch.float32, (6, 10), ASYM | {"num_bits": 4, "strategy": "tensor"}),
    ("pack_channel_asym", "pack-quantized", torch.bfloat16, (13, 50), ASYM | {"num_bits": 3, "strategy": "channel"}),
    ("pack_group_asym", "pack-quantized", torch.float16, (13, 60), ASYM | {"num_bits": 5} | groups(20)),
    ("mxfp6", "mxfp6-pack-quantized", torch.bfloat16, (6, 64),
     FLOAT | {"num_bits": 6, "scale_dtype": "torch.uint8"} | groups(32)),
    *((f"pack_{bits}", "pack-quantized", torch.float32, (3, 50), INT | {"num_bits": bits, "strategy": "channel"})
      for bits in (2, 3, 4, 5, 6, 7, 8)),
]


def parameters(weight, args, dtype):
    """Scale and zero point by the package's own rule."""
    rows, columns = weight.shape
    if args.strategy == "block":
        h, w = args.block_structure
        padded = torch.nn.functional.pad(weight, (0, -columns % w, 0, -rows % h))
        blocks = padded.reshape(padded.shape[0] // h, h, -1, w).transpose(1, 2).flatten(2)
    else:
        size = args.group_size if args.strategy == "group" else columns
        blocks = weight.reshape(1, 1, -1) if args.strategy == "tensor" else weight.reshape(rows, -1, size)
    scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args)
    if args.strategy == "tensor":
        scale, zero = scale.reshape(1), zero.reshape(1)
    return scale.to(dtype), zero


def main():
    torch.manual_seed(20)
    out = Path(__file__).resolve().parent / "mixed"
    out.mkdir(exist_ok=True)
    stored, dense, schemes = {}, {}, {}
    for i, (name, form, dtype, shape, weights) in enumerate(LAYERS):
        scheme = QuantizationScheme.model_validate({"targets": [name], "weights": weights, "format": form})
        weight = torch.randn(shape) + 0.3 * (not scheme.weights.symmetric)
        scale, zero = parameters(weight, scheme.weights, dtype)
        compressor = BaseCompressor.get_value_from_registry(form)
        state = compressor.compress({"weight": weight, "weight_scale": scale, "weight_zero_point": zero}, scheme)
        dense[name] = compressor.decompress(state, scheme)["weight"].detach().contiguous()
        stored |= {f"{name}.{leaf}": tensor.detach().contiguous() for leaf, tensor in state.items()}
        schemes[f"group_{i}"] = scheme
    config = QuantizationConfig(
        config_groups=schemes, format="mixed-precision", quantization_status="compressed", ignore=[]
    )
    text = json.loads(config.model_dump_json())
    (out / "config.json").write_text(json.dumps({"quantization_config": text}, indent=1) + "\n")
    save_file(stored, out / "model.safetensors")
    save_file(dense, out / "decompressed.safetensors")


if __name__ == "__main__":
    main()
