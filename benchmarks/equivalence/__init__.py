"""Does the JAX program compute what the PyTorch tutorial computes? Measured, and as a table.

`python -m benchmarks.equivalence` prints each measurement beside its tolerance;
`tests/equivalence/` asserts them, and that each of them notices a mistake.
"""
