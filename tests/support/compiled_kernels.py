"""Compiles every kernel for compute capability 9.0 and prints its shared memory; run by
test_kernels.py.
"""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sketchvar.estimators.kernels import programs

POINTERS = {
    "x": "*bf16",
    "out": "*bf16",
    "seed": "i64",
    "scale": "fp32",
    "packed": "*u8",
    "order": "*i32",
}
POINTERS |= {
    "offsets": "*i32",
    "signs": "*fp32",
    "low": "*fp32",
    "step": "*fp32",
    "y": "*bf16",
    "mean": "*fp32",
}  # all others are i32
TILE = {"ROWS": 32, "P": 128, "Q": 128, "PRECISION": "ieee"}
CASES = (
    (programs.draw_partition, {"BLOCK": 128}, 4),
    (programs.sum_buckets, {"x_column": 1, "ROWS": 4, "COLUMNS": 2048, "WIDE": tl.float32}, 4),
    (programs.multiply_normals, {"x_column": 1, "K": 128, "D": 128, "PRECISION": "ieee"}, 8),
    (programs.multiply_signs, {"x_column": 1, "K": 128, "D": 128, "PRECISION": "ieee"}, 8),
    (programs.transform, {"x_column": 1, "FACTOR": 128, "COLUMNS": 64, "PRECISION": "tf32x3"}, 8),
    (programs.round_rows, {"x_column": 1, "BITS": 1, "BLOCK": 512}, 4),
    (programs.restore_rows, {"BITS": 4, "BLOCK": 1024}, 4),
    (
        programs.multiply_codes,
        {"BITS": 8, "CENTER": True, "TWICE": True, "y_column": 1, **TILE},
        8,
    ),
)
for kernel, constants, warps in CASES:
    names = kernel.arg_names
    types = {
        name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if types[name].startswith("*")
    }
    source = ASTSource(kernel, types, {(names.index(k),): v for k, v in constants.items()}, aligned)
    done = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert "cubin" in done.asm and done.metadata.shared <= 227 * 1024, (
        kernel.__name__,
        done.metadata.shared,
    )
    print(kernel.__name__, done.metadata.shared, "bytes shared")
