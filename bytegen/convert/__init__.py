"""Checkpoints of transformers (Qwen2, Qwen2.5, Qwen3, Llama 3, CWM) to byte models, and back.

`bytegen convert HF_FOLDER OUT` and `bytegen export LM OUT` on the command line.
"""

from bytegen.convert.checkpoint import convert
from bytegen.convert.export import export

__all__ = ["convert", "export"]
