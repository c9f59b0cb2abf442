"""Does the JAX program compute what the PyTorch tutorial computes? Measured, and as a table.

    python -m benchmarks.equivalence --data-dir DIR

The command prints each measurement beside its tolerance; `tests/equivalence/` asserts the same
measurements, and that each of them notices a mistake.
"""
