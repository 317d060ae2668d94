"""Times products with packed weights: burn-quant against ONNX Runtime, and torch if it is installed.

Both sides run in turns, a few rounds each, so that both meet the same machine; the shortest time of each is kept.
Call it through `run.sh`, which builds our side and installs the other.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

BATCHES = (1, 8, 32, 128, 512)


def session(nodes, initializers, side, threads):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", side])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(a, n) for n, a in initializers])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def float_product(side, threads, rng):
    weight = rng.standard_normal((side, side), dtype=np.float32)
    return session([helper.make_node("MatMul", ["x", "w"], ["y"])], [("w", weight)], side, threads)


def integer_product(side, threads, rng):
    weight = rng.integers(-127, 128, (side, side), dtype=np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft"),
    ]
    scale = np.full((side,), 0.01, dtype=np.float32)
    return session(nodes, [("w", weight), ("s", scale)], side, threads)


def four_bits(side, threads, rng, block, accuracy):
    codes = rng.integers(0, 256, (side, side // block, block // 2), dtype=np.uint8)
    scales = np.full((side * side // block,), 0.01, dtype=np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft",
        K=side, N=side, bits=4, block_size=block, accuracy_level=accuracy,
    )
    return session([node], [("w", codes), ("s", scales)], side, threads)


RIVALS = {
    "f32": float_product,
    "W8, INT8 tokens": integer_product,
    "W4 block 32, INT8 tokens": lambda *a: four_bits(*a, 32, 4),
    "W4 block 128, INT8 tokens": lambda *a: four_bits(*a, 128, 4),
    "W4 block 32, float": lambda *a: four_bits(*a, 32, 1),
    "W4 block 128, float": lambda *a: four_bits(*a, 128, 1),
}


def shortest(call, seconds=0.25, least=5):
    for _ in range(2):
        call()
    best, end, n = float("inf"), time.perf_counter() + seconds, 0
    while n < least or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        n += 1
    return best * 1e3


def torch_dynamic(side, threads):
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    layer = torch.nn.Sequential(torch.nn.Linear(side, side, bias=False))
    layer = torch.ao.quantization.quantize_dynamic(layer, {torch.nn.Linear}, dtype=torch.qint8)

    def times(batch):
        x = torch.randn(batch, side)
        with torch.inference_mode():
            return shortest(lambda: layer(x))

    return times


class Theirs:
    def __init__(self, sides, threads):
        rng = np.random.default_rng(0)
        self.rng, self.sides = rng, sides
        self.one = {(name, side): make(side, threads, rng) for name, make in RIVALS.items() for side in sides}
        # eight in turn, so that weights come from memory
        self.eight = {name: [make(sides[0], threads, rng) for _ in range(8)] for name, make in RIVALS.items()}
        self.torch = {side: torch_dynamic(side, threads) for side in sides}

    def run(self, times):
        keep = lambda key, ms: times.__setitem__(key, min(ms, times.get(key, float("inf"))))
        for (name, side), run in self.one.items():
            for batch in BATCHES:
                x = {"x": self.rng.standard_normal((batch, side), dtype=np.float32)}
                keep((name, side, str(batch)), shortest(lambda: run.run(None, x)))
        for name, runs in self.eight.items():
            x = {"x": self.rng.standard_normal((1, self.sides[0]), dtype=np.float32)}
            keep((name, self.sides[0], "1 in turn"), shortest(lambda: [run.run(None, x) for run in runs]) / 8)
        for side, dynamic in self.torch.items():
            for batch in BATCHES if dynamic else ():
                keep(("W8, INT8 tokens", side, str(batch)), dynamic(batch))


def ours(binary, threads, instructions, times):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    if instructions:
        environment["BURN_QUANT_INSTRUCTIONS"] = instructions
    out = subprocess.run([binary], env=environment, check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        name, side, batch, ms = line.split("\t")
        key = (name, int(side), batch)
        times[key] = min(float(ms), times.get(key, float("inf")))


# our product, the rival's, and the least ratio by batch
def bounds(of_one, in_turn, of_8, of_32, of_more):
    return {"1": of_one, "1 in turn": in_turn, "8": of_8, "32": of_32, "128": of_more, "512": of_more}


PAIRS = [
    ("W8, INT8 tokens", "W8, INT8 tokens", bounds(1.1, 1.2, 1.1, 1.0, 0.95)),
    ("W4 block 32, INT8 tokens", "W4 block 32, INT8 tokens", bounds(2.0, 1.3, 2.3, 2.3, 2.3)),
    ("W4 block 128, INT8 tokens", "W4 block 128, INT8 tokens", bounds(1.6, 1.2, 1.9, 1.9, 1.9)),
    ("W4 block 32, float", "W4 block 32, float", bounds(2.0, None, None, None, None)),
    ("W4 block 128, float", "W4 block 128, float", bounds(2.0, None, None, None, None)),
    ("W4 block 32, INT15 tokens", "W4 block 32, float", bounds(5.0, None, 3.5, 2.0, 1.7)),
    ("W4 block 128, INT15 tokens", "W4 block 128, float", bounds(5.0, None, 3.5, 2.0, 1.7)),
    ("MXFP4, float", "f32", bounds(4.0, 3.0, None, None, None)),
    ("NVFP4, float", "f32", bounds(4.0, 3.0, None, None, None)),
    ("NF4, float", "f32", bounds(4.0, 3.0, None, None, None)),
    ("E4M3, float", "f32", bounds(2.5, 2.0, None, None, None)),
]
AVX2 = [
    ("W8, INT8 tokens", "W8, INT8 tokens", bounds(0.8, None, None, None, None)),
    ("W4 block 32, INT8 tokens", "W4 block 32, INT8 tokens", bounds(1.2, None, None, None, None)),
    ("W8, INT8 tokens", "f32", bounds(None, None, None, 1.4, 1.4)),
    ("W4 block 32, INT8 tokens", "f32", bounds(None, None, None, 1.9, 1.9)),
]


def table(title, pairs, our, their, sides):
    print(f"\n## {title}\n\n| product | rival | size | batch | ours, ms | rival, ms | rival / ours | bound | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, rival, least in pairs:
        for side in sides:
            for batch in least:
                if rival == "f32" and "float" in name and side != 4096:
                    continue  # the bounds are those of a weight that f32 takes from memory
                mine, other = our.get((name, side, batch)), their.get((rival, side, batch))
                if mine is None or other is None:
                    continue
                ratio, bound = other / mine, least[batch]
                verdict = "" if bound is None else ("met" if ratio >= bound else "short")
                bound = "" if bound is None else f"{bound:.2f}"
                print(f"| {name} | {rival} | {side} | {batch} | {mine:.4f} | {other:.4f} | {ratio:.2f} | {bound} | {verdict} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", help="our side: target/release/products")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 1024])
    args = parser.parse_args()
    theirs = Theirs(args.sides, args.threads)
    their, our, avx2 = {}, {}, {}
    for round in range(args.rounds):
        theirs.run(their)
        ours(args.binary, args.threads, None, our)
        ours(args.binary, args.threads, "avx2", avx2)
        print(f"round {round + 1} of {args.rounds}", file=sys.stderr)
    torch = "with" if any(theirs.torch.values()) else "without"
    print(f"ONNX Runtime {ort.__version__}, {torch} torch, onnx {onnx.__version__}; {args.threads} thread(s)")
    table("Products", PAIRS, our, their, args.sides)
    table("AVX2 alone, against whatever the rival takes", AVX2, avx2, their, args.sides)


if __name__ == "__main__":
    main()
