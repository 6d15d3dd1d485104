"""What a model thinks of a file, byte by byte: log probabilities, bits a byte, and what a constraint took."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bytegen import formats, tokenizer
from bytegen.cache import Cache
from bytegen.errors import UserError
from bytegen.model import ByteLM

_CHUNK = 256


@torch.no_grad()
def log_probs(lm: ByteLM, data: bytes, *, format: str, prompt: str = "") -> Iterator[np.ndarray]:
    """Natural log probabilities of the choice at each byte of `data` and at its end, in parts [k, 257].

    The model reads the prompt and the file as it does when generating; choice 256 is the end of the file, and
    the other special ids are left out and the rest renormalised. Raises UserError when it does not fit the
    context.
    """
    tag = tokenizer.format_tag(format)
    head = tokenizer.encode_prompt(prompt, tag) if prompt else [tokenizer.BEGIN, tokenizer.END_OF_PROMPT, tag]
    ids = [*head, *data]
    if len(ids) > lm.config.max_positions:
        raise UserError(
            f"{len(ids)} positions for the prompt and the file; the model's context is {lm.config.max_positions}"
        )
    dtype = lm.embed.weight.dtype
    cache = Cache(lm.config, batch=1, max_length=len(ids), chunk=_CHUNK, dtype=dtype, device=lm.device)
    skip = len(head) - 1
    for start in range(0, len(ids), _CHUNK):
        tokens = torch.tensor([ids[start : start + _CHUNK]], device=lm.device)
        hidden = lm.hidden(tokens, cache=cache)[0]
        cache.advance(tokens.shape[1])
        hidden = hidden[max(0, skip - start) :]
        if len(hidden):
            logits = lm.logits(hidden)[:, : tokenizer.N_CHOICES].double()
            yield torch.log_softmax(logits, dim=-1).cpu().numpy()


def bits_per_byte(lm: ByteLM, data: bytes, *, format: str, prompt: str = "") -> np.ndarray:
    """float64 [len(data) + 1]: -log2 of the probability of each byte and of the end, without a constraint."""
    choices = np.array([*data, tokenizer.END_OF_FILE])
    bits = np.zeros(len(choices))
    place = 0
    for part in log_probs(lm, data, format=format, prompt=prompt):
        rows = np.arange(len(part))
        bits[place : place + len(part)] = -part[rows, choices[place : place + len(part)]] / np.log(2)
        place += len(part)
    return bits


def account(
    lm: ByteLM,
    data: bytes,
    *,
    format: str,
    prompt: str = "",
    level: str = "load",
    max_bytes: int | None = None,
    static: bool = True,
    min_bytes: int = 0,
) -> formats.Account:
    """What the constraint takes from the model along a file: see `formats.Account`.

    Raises `formats.FormatError` for a file that does not replay at that level.
    """
    limit = max(143_360, len(data)) if max_bytes is None else max_bytes
    constraint = formats.constraint(format, max_bytes=limit, level=level, static=static, min_bytes=min_bytes)
    return formats.account(constraint, data, log_probs(lm, data, format=format, prompt=prompt))
