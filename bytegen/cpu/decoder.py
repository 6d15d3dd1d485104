"""`Decoder`: hidden states and logits of a model on the CPU, by the C library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch

from bytegen.cache import Cache
from bytegen.cpu.binding import BLOCK, Ring, Weights, exact_in_half, library, padded
from bytegen.model import ByteLM


def available(lm: ByteLM) -> bool:
    """Whether the library is there and takes the model: float32, on the CPU."""
    return library is not None and lm.device.type == "cpu" and lm.embed.weight.dtype == torch.float32


class Decoder:
    """A model, as the C library computes it. Weights are copied once: train elsewhere, then make another.

    What a token gives does not depend on the tokens beside it, bit for bit: not on the batch, nor on how its file is
    cut into chunks. `lanes` bounds the width of vectors (16, 8 or 1), for tests.
    """

    def __init__(self, lm: ByteLM, *, lanes: int = 16) -> None:
        if not available(lm):
            where = f"{lm.embed.weight.dtype} on {lm.device}"
            raise ValueError(
                f"the C decoder takes float32 on the CPU, and has to be compiled; the model is {where}"
            )
        self.config = lm.config
        self.lanes = library.bytegen_lanes(lanes)
        self.half = self.lanes > 1 and exact_in_half(lm)
        self._weights = Weights(lm, half=self.half, lanes=self.lanes)
        self._scratch = np.zeros(0, np.float32)

    def hidden(
        self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int], cache: Cache
    ) -> np.ndarray:
        """Feed tokens, N of them, each to a row of the cache at a position; those of a row in order.

        Returns float32 [N, D padded to a multiple of 64], normed. The cache must have room (`Cache.reserve`); its
        positions stay as they are.
        """
        model, n, threads = ctypes.byref(self._weights.model), len(tokens), torch.get_num_threads()
        need = library.bytegen_scratch(model, ctypes.c_int64(n), ctypes.c_int64(threads))
        if len(self._scratch) < need:
            self._scratch = np.zeros(need, np.float32)
        out = np.zeros((n, padded(self.config.dim)), np.float32)
        ids, lines, places = (np.array(x, np.int64) for x in (tokens, rows, positions))
        library.bytegen_step(
            model, _rings(cache), *map(_pointer, (ids, lines, places)), ctypes.c_int64(n), _pointer(out),
            _pointer(self._scratch), ctypes.c_int(threads),
        )  # fmt: skip
        return out

    def logits(self, hidden: np.ndarray, choices: int) -> np.ndarray:
        """float32 [N, choices] of hidden states as `hidden` gives them: the first `choices` ids' logits."""
        hidden = np.ascontiguousarray(hidden)
        blocks = padded(choices) // BLOCK
        out = np.empty((len(hidden), blocks * BLOCK), np.float32)
        library.bytegen_logits(
            ctypes.byref(self._weights.model), _pointer(hidden), ctypes.c_int64(len(hidden)), ctypes.c_int64(blocks),
            _pointer(out), ctypes.c_int(torch.get_num_threads()),
        )  # fmt: skip
        return out[:, :choices]

    def sample(
        self, logits: np.ndarray, mask: np.ndarray, uniform: Sequence[float], temperature: Sequence[float],
        top_p: Sequence[float], min_p: Sequence[float],
    ) -> list[tuple[int, float, float]]:  # fmt: skip
        """(choice, log probability, probability removed) of each row: what `kernels.masked_sample` draws.

        `logits` float32 [N, C], `mask` bool [N, C] with a choice in every row, the others one number a row.
        """
        n, choices = logits.shape
        logits = np.ascontiguousarray(logits)
        mask = np.ascontiguousarray(mask, np.uint8)
        numbers = np.array([uniform, temperature, top_p, min_p], np.float64)
        choice, results = np.empty(n, np.int64), np.empty((2, n))
        library.bytegen_sample(
            _pointer(logits), ctypes.c_int64(n), ctypes.c_int64(choices), _pointer(mask), _pointer(numbers),
            _pointer(choice), _pointer(results),
        )  # fmt: skip
        return list(zip(choice.tolist(), *results.tolist(), strict=True))


_decoders: WeakKeyDictionary[ByteLM, tuple[object, Decoder]] = WeakKeyDictionary()


def decoder_of(lm: ByteLM) -> Decoder:
    """The model's decoder, made again when its weights have changed."""
    state = [(p.data_ptr(), p._version) for p in lm.parameters()]
    known = _decoders.get(lm)
    if known is None or known[0] != state:
        known = _decoders[lm] = state, Decoder(lm)
    return known[1]


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _rings(cache: Cache) -> ctypes.Array[Ring]:
    rings = [
        Ring(
            layer.keys.data.data_ptr(), layer.values.data.data_ptr(),
            None if layer.conv is None else layer.conv.data.data_ptr(), layer.keys.capacity,
            0 if layer.conv is None else layer.conv.capacity,
        )
        for layer in cache.layers
    ]  # fmt: skip
    return (Ring * len(rings))(*rings)
