"""What can be traced."""

VERBS = {  # names of both operands and of the result
    "forward": ("x", "w", "y"),
    "backward_input": ("dy", "w", "dx"),
    "backward_weight": ("x", "dy", "dw"),
}
ALGORITHMS = (
    "direct", "tiled", "implicit_gemm", "implicit_gemm_mma", "implicit_gemm_tf32", "implicit_gemm_3xtf32",
)  # fmt: skip
