"""Decoding on a CPU: a step of the whole model in one call of C, compiled when bytegen is installed; without torch.

Where there is no C compiler, or the model is no float32 model on the CPU, torch does the same (`decoding.runners`).
"""

from bytegen.cpu.binding import threads
from bytegen.cpu.cache import CpuCache
from bytegen.cpu.decoder import Decoder
from bytegen.cpu.light import LightLM
from bytegen.cpu.of_torch import available, decoder_of
from bytegen.cpu.steps import Steps

__all__ = ["CpuCache", "Decoder", "LightLM", "Steps", "available", "decoder_of", "threads"]
