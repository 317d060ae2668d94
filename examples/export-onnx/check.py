"""Runs exported files in ONNX Runtime and compares with what the networks computed in burn.

    pip install onnx onnxruntime safetensors
    python examples/export-onnx/check.py FOLDER

For each `NAME.onnx` beside a `NAME.safetensors` it prints the largest difference, relative to the largest output, where
it ran, and how many products ONNX Runtime computes in integers. What its CPU provider has no kernels for (FP4, scales in
E8M0) runs in the evaluator of the package `onnx`. The exit status is 1 if a file is invalid or off by more than 1e-6.
In INT8 an activation at the border between two codes may round the other way, as sums run in another order: such a file
is off by more, and is counted.
"""

import collections
import os
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

INTEGER = {"MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QLinearConv", "MatMulNBits"}
FLOAT = {"MatMul", "Gemm", "Conv", "FusedMatMul", "FusedConv", "FusedGemm"}


def run(path, inputs):
    """The outputs, and in words where they were computed."""
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
            return ReferenceEvaluator(str(path)).run(None, inputs), "evaluator of onnx"
        nodes = collections.Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    integer, floats = (sum(nodes[name] for name in names) for names in (INTEGER, FLOAT))
    return session.run(None, inputs), f"{integer} of {integer + floats} products in integers"


def main():
    failed = 0
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
        case = load_file(path.with_suffix(".safetensors"))
        inputs = {name.removeprefix("input."): x for name, x in case.items() if name.startswith("input.")}
        outputs = [y for name, y in sorted(case.items()) if name.startswith("output.")]
        try:
            onnx.checker.check_model(str(path), full_check=True)
            found, where = run(path, inputs)
        except Exception as error:
            failed += 1
            print(f"{path.stem:45} {str(error).splitlines()[0][:120]}")
            continue
        off = max(float(np.abs(y - z).max() / (np.abs(z).max() or 1.0)) for y, z in zip(found, outputs, strict=True))
        failed += not off <= 1e-6
        print(f"{path.stem:45} {off:.1e}  {where}{'' if off <= 1e-6 else '  FAILED'}")
    print(f"{failed} failed")
    return failed > 0


sys.exit(main())
