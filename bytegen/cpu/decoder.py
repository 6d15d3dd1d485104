"""`Decoder`: hidden states, logits and draws of a model on the CPU, by the C library."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from bytegen.config import ModelConfig
from bytegen.cpu.binding import BLOCK, library, padded, pointer
from bytegen.cpu.binding import threads as default_threads
from bytegen.cpu.cache import CpuCache
from bytegen.cpu.weights import Weights, narrowest
from bytegen.errors import UserError

MOST_CHOICES = 1024
"""Choices that a draw is made from, at most."""


def check_choices(count: int) -> None:
    """Raise ValueError where a draw would be from more choices than the C library takes."""
    if count > MOST_CHOICES:
        raise ValueError(f"a draw from {count} choices; the C library takes {MOST_CHOICES} at most")


MOST_HEAD, MOST_INPUTS = 1024, 1 << 15
"""What a head, and the inputs of a linear map, may be in int8-dynamic: room, and sums that 32 bits hold."""


def _check_whole_numbers(config: ModelConfig) -> None:
    widest = max(config.dim, config.ffn_dim, config.n_heads * config.head_dim)
    if config.head_dim > MOST_HEAD or widest > MOST_INPUTS:
        raise UserError(
            f"int8-dynamic takes heads of up to {MOST_HEAD} and maps of up to {MOST_INPUTS} inputs in the C decoder;"
            f" this model has heads of {config.head_dim} and {widest} inputs; precision 'int8' takes it"
        )


class Decoder:
    """A model, as the C library computes it, from arrays named as in the model's state, which are copied.

    What a token gives does not depend on the tokens beside it, bit for bit: not on the batch, nor on how its file is
    cut into chunks, nor on the threads. `lanes` bounds the width of vectors (16, 8 or 1); `half_cache` says whether
    keys and values are kept in float16 (by default where there are vectors). With `dynamic` what maps of int8 weights
    read, and queries, keys and values, are rounded to int8 too, and multiplied as whole numbers.
    """

    def __init__(
        self,
        config: ModelConfig,
        arrays: Mapping[str, np.ndarray],
        *,
        lanes: int = 16,
        half_cache: bool | None = None,
        dynamic: bool = False,
    ) -> None:
        if dynamic:
            _check_whole_numbers(config)
        self.config = config
        self.lanes: int = library.bytegen_lanes(lanes)
        self.held = narrowest(arrays) if self.lanes > 1 else "float32"
        self.half_cache = self.lanes > 1 and half_cache is not False and not dynamic
        self.cache_dtype: type = np.int8 if dynamic else np.float16 if self.half_cache else np.float32
        self._weights = Weights(
            config, arrays, held=self.held, cache_dtype=self.cache_dtype, lanes=self.lanes, dynamic=dynamic
        )
        self.model = ctypes.byref(self._weights.model)
        self.address = ctypes.addressof(self._weights.model)

    @property
    def nbytes(self) -> int:
        """The bytes that its weights take."""
        return self._weights.nbytes

    @property
    def cache_bytes_a_number(self) -> int:
        """Bytes of a number among keys and values."""
        return np.dtype(self.cache_dtype).itemsize

    def cache(self, *, batch: int = 0, max_length: int, chunk: int = 256) -> CpuCache:
        """An empty cache for this decoder (see `CpuCache`)."""
        return CpuCache(self.config, batch=batch, max_length=max_length, chunk=chunk, dtype=self.cache_dtype)

    def hidden(
        self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int], cache: CpuCache, *,
        threads: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Feed tokens, N of them, each to a row of the cache at a position; those of a row together, in order.

        Returns float32 [N, D padded to a multiple of 64], normed. The cache must have room (`CpuCache.reserve`); its
        positions stay as they are. Calls with caches of their own may run at the same time. `threads` is the
        most that it takes, `cpu.threads()` by default.
        """
        n, count, rings = len(tokens), threads or default_threads(), cache.rings()
        need = self.scratch(n, count)
        if len(cache.scratch) < need:
            cache.scratch = np.zeros(need, np.float32)
        out = np.zeros((n, padded(self.config.dim)), np.float32)
        ids = np.array((tokens, rows, positions), np.int64)
        library.bytegen_step(
            self.model, rings, pointer(ids), ctypes.c_int64(n), pointer(out), pointer(cache.scratch), count
        )
        return out

    def scratch(self, n: int, threads: int) -> int:
        """Floats of working memory that a step of `n` ids takes."""
        found: int = library.bytegen_scratch(self.model, ctypes.c_int64(n), ctypes.c_int64(threads))
        return found

    def logits(self, hidden: np.ndarray, choices: int, *, threads: int | None = None) -> np.ndarray:
        """float32 [N, choices] of hidden states as `hidden` gives them: the first `choices` ids' logits."""
        hidden = np.ascontiguousarray(hidden)
        blocks = padded(choices) // BLOCK
        out = np.empty((len(hidden), blocks * BLOCK), np.float32)
        library.bytegen_logits(
            self.model, pointer(hidden), ctypes.c_int64(len(hidden)), ctypes.c_int64(blocks), pointer(out),
            ctypes.c_int(threads or default_threads()),
        )  # fmt: skip
        return out[:, :choices]

    def ahead(self, hidden: np.ndarray, choices: int, *, threads: int | None = None) -> np.ndarray:
        """float32 [N, K, choices]: log probabilities by K multi-token prediction heads, among the first `choices` ids.

        Where `logits` are of a byte, those of head k, at index k - 1, are of the byte k places behind it.
        """
        check_choices(choices)
        hidden = np.ascontiguousarray(hidden)
        n, heads, blocks = len(hidden), self.config.mtp_heads, padded(choices) // BLOCK
        rows = np.zeros((n * heads, hidden.shape[1]), np.float32)
        logits = np.empty((n * heads, blocks * BLOCK), np.float32)
        found = np.empty((n, heads, choices), np.float32)
        library.bytegen_ahead(
            self.model, pointer(hidden), ctypes.c_int64(n), ctypes.c_int64(blocks), ctypes.c_int64(choices),
            pointer(rows), pointer(logits), pointer(found), ctypes.c_int(threads or default_threads()),
        )  # fmt: skip
        return found

    def sample(
        self, logits: np.ndarray, mask: np.ndarray, uniform: Sequence[float], temperature: Sequence[float],
        top_p: Sequence[float], min_p: Sequence[float], *, threads: int | None = None,
    ) -> list[tuple[int, float, float]]:  # fmt: skip
        """(choice, log probability, probability removed) of each row: what `kernels.masked_sample` draws.

        `logits` float32 [N, C], `mask` bool [N, C] with a choice in every row, the others one number a row; C is at
        most 1,024.
        """
        n, choices = logits.shape
        check_choices(choices)
        if logits.strides[1] != 4:
            logits = np.ascontiguousarray(logits)
        mask = np.ascontiguousarray(mask, bool)
        numbers = np.array((uniform, temperature, top_p, min_p), np.float64)
        choice, results = np.empty(n, np.int64), np.empty((2, n))
        library.bytegen_sample(
            self.model, pointer(logits), ctypes.c_int64(logits.strides[0] // 4), ctypes.c_int64(n),
            ctypes.c_int64(choices), pointer(mask), pointer(numbers), pointer(choice), pointer(results),
            ctypes.c_int(threads or default_threads()),
        )  # fmt: skip
        return list(zip(choice.tolist(), *results.tolist(), strict=True))
