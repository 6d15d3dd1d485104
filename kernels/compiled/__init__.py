"""Compiles every kernel ahead of time for GPUs that are not there, and reads what it takes of them.

`python -m bytegen.kernels.compiled` prints the table: registers, spills, shared memory, tensor-core instructions.
"""
