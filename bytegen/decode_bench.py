"""`python -m bytegen.decode_bench`: `bytegen bench decode` without the rest of the command line.

So a machine whose Python has torch, triton, safetensors and huggingface_hub, but no LIEF or capstone, can run it.
"""

from bytegen.cli.bench_decode import decode_bench

if __name__ == "__main__":
    decode_bench()
