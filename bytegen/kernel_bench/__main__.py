"""`python -m bytegen.kernel_bench`: `bytegen bench kernels` without the rest of the command line.

So a machine whose Python has torch and triton alone can run it.
"""

from bytegen.cli.bench_kernels import kernels_bench

if __name__ == "__main__":
    kernels_bench()
