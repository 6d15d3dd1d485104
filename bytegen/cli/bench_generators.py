"""What people would write bytes with instead: transformers and llama.cpp, on the same weights and as many bytes.

The packaged model's convolution has no counterpart there, so both run its shape without one, with random weights. Ours
goes through the whole engine, but under a constraint that allows everything: no byte is forced, none is guessed ahead.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bytegen.cli import bench_llama

PROMPT_BYTES = 64
NEW_BYTES = 192
TEMPERATURE = 1.0
TURNS = 4
"""Files written one after another in each place of a batch: begun together, they are soon at positions of their own."""


class Anything:
    """A constraint that allows every byte up to a length, and then only the end."""

    def __init__(self, length: int) -> None:
        self.length, self.data, self.done = length, bytearray(), False
        self._any, self._end = np.ones(257, dtype=bool), np.zeros(257, dtype=bool)
        self._any[256], self._end[256] = False, True

    def mask(self) -> np.ndarray:
        """bool [257]."""
        return self._end if len(self.data) >= self.length else self._any

    def forced(self) -> bytes:
        """Nothing."""
        return b""

    def advance(self, choice: int) -> None:
        """Take a byte, or 256 for the end."""
        if choice == 256:
            self.done = True
        else:
            self.data.append(choice)

    def advance_many(self, data: bytes) -> int:
        """Take bytes."""
        self.data += data
        return len(data)

    def rollback(self, count: int) -> None:
        """Give bytes back."""
        if count:
            del self.data[-count:]


def subjects(
    lm: Any, batches: Sequence[int], precision: str = "fp32", *, peers: bool = True
) -> dict[str, Callable[[], float]]:
    """What is measured against each other, by name; peers only where they are installed.

    `precision` is that of bytegen; what others make of the same weights stays in their own.
    """
    from bytegen.quantised import reduce_precision

    reduced = same_shape(lm)
    reduce_precision(reduced, precision)
    found: dict[str, Callable[[], float]] = {
        f"bytegen, {batch} side by side": partial(ours, reduced, batch) for batch in batches
    }
    if not peers:
        return found
    shape = same_shape(lm)
    found["bytegen through torch, 1 side by side"] = partial(ours, shape, 1, "torch")
    if importlib.util.find_spec("transformers") is not None:
        found["transformers, 1 side by side"] = partial(Transformers(shape), 1)
    if without_llama(shape) is None:
        found |= llama_subjects(shape)
    return found


def without_llama(lm: Any) -> str | None:
    """Why llama.cpp is not among the subjects; None if it is."""
    return bench_llama.missing(lm, PROMPT_BYTES + NEW_BYTES)


def llama_subjects(shape: Any) -> dict[str, Callable[[], float]]:
    """llama.cpp with weights in float16 and in float32, each on the number of threads that suits it best."""
    from bytegen import cpu

    ids = [7 * i % 256 for i in range(PROMPT_BYTES)]
    found: dict[str, Callable[[], float]] = {}
    for half in (True, False):
        tried = {}
        for threads in sorted({1, cpu.threads()}):
            model = bench_llama.LlamaCpp(
                shape, half=half, threads=threads, positions=PROMPT_BYTES + NEW_BYTES + 8
            )
            model.check(shape, ids)
            tried[threads] = max(model(ids, NEW_BYTES // 4, TEMPERATURE) for _ in range(2)), model
        best = max(tried, key=lambda threads: tried[threads][0])
        name = f"llama.cpp, weights in float{16 if half else 32}, {best} of its threads, 1 side by side"
        found[name] = partial(tried[best][1], ids, NEW_BYTES, TEMPERATURE)
    return found


def same_shape(lm: Any) -> Any:
    """A model of `lm`'s shape that transformers has too: random weights in float16's numbers, held in float32."""
    import torch

    from bytegen.model import ByteLM

    torch.manual_seed(0)
    made = ByteLM(dataclasses.replace(lm.config, conv_taps=0, mtp_heads=0)).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(p.half().float())
    return made


def ours(lm: Any, batch: int, backend: str = "auto") -> float:
    """Bytes a second of the engine."""
    from bytegen import decoding

    def sequence(index: int) -> decoding.Sequence:
        ids = [(7 * i + index) % 256 for i in range(PROMPT_BYTES)]
        free: Any = Anything(NEW_BYTES)
        return decoding.Sequence(index, ids, free, decoding.Sampling(temperature=TEMPERATURE), seed=index)

    began = time.perf_counter()
    written = decoding.decode(
        lm, (sequence(i) for i in range(TURNS * batch)), lambda s: len(s.constraint.data), batch_size=batch,
        max_length=PROMPT_BYTES + NEW_BYTES, chunk=PROMPT_BYTES, drafts=False, backend=backend,
    )  # fmt: skip
    return sum(written) / (time.perf_counter() - began)


class Transformers:
    """The same weights as a transformers checkpoint."""

    def __init__(self, lm: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from bytegen.convert import export
        from bytegen.weights import save_model

        with tempfile.TemporaryDirectory(prefix="bytegen-bench-") as folder:
            save_model(lm, Path(folder) / "model")
            export(Path(folder) / "model", Path(folder) / "checkpoint")
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                Path(folder) / "checkpoint", dtype=torch.float32
            ).eval()

    def __call__(self, batch: int) -> float:
        """Bytes a second of `generate`, sampling the same way."""
        import torch

        ids = torch.tensor([[(7 * i + index) % 256 for i in range(PROMPT_BYTES)] for index in range(batch)])
        began = time.perf_counter()
        with torch.no_grad():
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0,
                max_new_tokens=NEW_BYTES, min_new_tokens=NEW_BYTES, pad_token_id=0, eos_token_id=256,
            )  # fmt: skip
        return out[:, PROMPT_BYTES:].numel() / (time.perf_counter() - began)
