"""Runs exported files in ONNX Runtime and compares with what the networks computed in burn.

    pip install onnx onnxruntime safetensors
    python examples/export-onnx/check.py FOLDER

For each `NAME.onnx` beside a `NAME.safetensors` it prints the largest difference, relative to the largest output, where
it ran, and how many products ONNX Runtime computes in integers. What its CPU provider has no kernels for (FP4, scales in
E8M0) runs in the evaluator of the package `onnx`. The exit status is 1 if a file is invalid or off by more than 1e-6.
In INT8 an activation at the border between two codes may round the other way, as sums run in another order: such a file
is off by more, and is counted, unless it has integer convolutions, whose sums ONNX Runtime rounds by a factor of its
own: there 1e-2 is allowed, and 1e-5 where an image is resized. For matrices of classes the line says how many rows have
the same largest class. With `--time` it prints how many times faster each file runs than `NETWORK-float.onnx`, on one
thread. With `--table` it prints a table in Markdown, with sizes and times, and leaves judging to the reader.
"""

import collections
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

INTEGER = {"MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QLinearConv", "MatMulNBits"}
FLOAT = {"MatMul", "Gemm", "Conv", "FusedMatMul", "FusedConv", "FusedGemm"}


def run(path, inputs):
    """The outputs, in words where they were computed, and how far off they may be."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # by default products with INT4 weights round their activations, which the model does not ask for
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if "NOT_IMPLEMENTED" not in str(error):
                raise
            return ReferenceEvaluator(str(path)).run(None, inputs), "evaluator of onnx", 1e-6
        nodes = collections.Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    integer, floats = (sum(nodes[name] for name in names) for names in (INTEGER, FLOAT))
    # pixels between pixels are found by coordinates in f32, which differ by 1e-6 of a pixel in images of these sizes
    bound = 1e-2 if nodes["QLinearConv"] else 1e-5 if nodes["Resize"] else 1e-6
    return session.run(None, inputs), f"{integer} of {integer + floats} products in integers", bound


def ratio(against, path, inputs):
    """How many times faster one file runs than another: the shortest of turns, on one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    sessions = [ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in (against, path)]
    best = [float("inf")] * 2
    for turn in range(12):
        for i, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(None, inputs)
            if turn > 1:
                best[i] = min(best[i], time.perf_counter() - start)
    return best[0] / best[1]


def row(path, off, where, same, times):
    """A row of the table: a file beside the float one of its network."""
    network, preset = path.stem.rsplit("-", 1)
    float_file = path.with_name(f"{network}-float.onnx")
    size = f"{path.stat().st_size / float_file.stat().st_size:.2f}" if float_file.exists() else "–"
    cells = [network, f"`{preset}`", size, f"{off:.1e}", where.removesuffix(" products in integers"), same, times]
    print("| " + " | ".join(cells) + " |")


def main():
    failed, table = 0, "--table" in sys.argv[2:]
    if table:
        print("| network | preset | file, of f32 | largest difference | products in integers | same class | float / time |")
        print("|---|---|---|---|---|---|---|")
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
        case = load_file(path.with_suffix(".safetensors"))
        inputs = {name.removeprefix("input."): x for name, x in case.items() if name.startswith("input.")}
        try:
            names = [output.name for output in onnx.load(str(path), load_external_data=False).graph.output]
            outputs = [case[f"output.{name}"] for name in names]
            onnx.checker.check_model(str(path), full_check=True)
            found, where, bound = run(path, inputs)
        except Exception as error:
            if table:
                raise
            failed += 1
            print(f"{path.stem:45} {str(error).splitlines()[0][:120]}")
            continue
        shapes = [y.shape for y in found], [z.shape for z in outputs]
        if shapes[0] != shapes[1]:
            if table:
                raise ValueError(f"{path.stem}: shapes {shapes[0]}, in burn {shapes[1]}")
            failed += 1
            print(f"{path.stem:45} shapes {shapes[0]}, in burn {shapes[1]}")
            continue
        pairs = [(y.astype(np.float64), z.astype(np.float64)) for y, z in zip(found, outputs, strict=True)]
        off = float(np.max([np.abs(y - z).max(initial=0) / (np.abs(z).max(initial=0) or 1.0) for y, z in pairs]))  # NaN if one is
        failed += not off <= bound
        same = ""
        if found[0].ndim == 2 and len(found[0]) >= 100:
            same = f"{np.mean(found[0].argmax(1) == outputs[0].argmax(1)):.1%}"
        faster = ""
        if table or "--time" in sys.argv[2:]:
            network = path.stem.rsplit("-", 1)[0]
            against = path.with_name(f"{network}-float.onnx")
            if against.exists():
                faster = f"{ratio(against, path, inputs):.2f}"
        if table:
            row(path, off, where, same or "–", faster or "–")
            continue
        same = same and f", {same} of classes equal"
        faster = faster and f", {faster} times as fast as float"
        print(f"{path.stem:45} {off:.1e}  {where}{same}{faster}{'' if off <= bound else '  FAILED'}")
    if not table:
        print(f"{failed} failed")
    return failed > 0 and not table


sys.exit(main())
