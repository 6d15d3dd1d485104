"""Decoding on a CPU: a step of the whole model in one call of C, compiled when bytegen is installed.

Where there is no C compiler, or the model is no float32 model on the CPU, torch does the same (`decoding.runners`).
"""

from bytegen.cpu.decoder import Decoder, available, decoder_of

__all__ = ["Decoder", "available", "decoder_of"]
