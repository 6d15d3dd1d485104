"""A constraint as a logits processor of Hugging Face `transformers`, for models whose tokens are bytes.

    processor = ConstraintLogitsProcessor("elf64-x86_64", token_of_byte=3, end_token=1, max_bytes=4096)
    model.generate(**prompt, logits_processor=LogitsProcessorList([processor]), max_new_tokens=4097)

Works on the tensors that it is given, so neither torch nor transformers is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bytegen.formats.core.constraint import END, Constraint
from bytegen.formats.errors import FormatError
from bytegen.formats.registry import constraint


class ConstraintLogitsProcessor:
    """Sets the scores of tokens that a format does not allow to minus infinity.

    ``format`` is a name, or a function that makes a fresh `Constraint`. ``token_of_byte`` says which token
    stands for each byte: the id of byte 0 where the 256 follow each other, or a sequence of 256 ids.
    ``end_token`` is the id that ends the file (the model's end of sequence); after it, it is the only one
    allowed. ``prompt_tokens`` is the length of what precedes the file; by default the length of the first
    input that the processor sees. One processor serves one call of `generate`; `reset` makes it new.

    Rows may be reordered from step to step (beams): a row's state is found by its tokens and forked, never
    replayed from the beginning where one step before is known.

    Raises `FormatError` for a token map that is not 256 different ids, an end token among them, and (when
    called) for a token that no byte has or a byte that the format refused.
    """

    def __init__(
        self,
        format: str | Callable[[], Constraint],
        *,
        token_of_byte: int | Sequence[int] = 0,
        end_token: int,
        max_bytes: int = 143_360,
        level: str = "load",
        prompt_tokens: int | None = None,
        min_bytes: int = 0,
    ) -> None:
        ids = range(token_of_byte, token_of_byte + 256) if isinstance(token_of_byte, int) else token_of_byte
        self.tokens = np.array([*ids, end_token], dtype=np.int64)
        if len(self.tokens) != 257 or len(set(self.tokens.tolist())) != 257 or self.tokens.min() < 0:
            raise FormatError("token_of_byte must be 256 different token ids, and end_token none of them")
        self._byte_of = {int(token): byte for byte, token in enumerate(self.tokens)}
        if isinstance(format, str):
            constraint(format, max_bytes=max_bytes, level=level, min_bytes=min_bytes)  # complain now
            name = format
            self._begin = lambda: constraint(name, max_bytes=max_bytes, level=level, min_bytes=min_bytes)
        else:
            self._begin = format
        self._given = prompt_tokens
        self.reset()

    def reset(self) -> None:
        """Forget every row: the next input begins new files."""
        self._prompt = self._given
        self._states: dict[bytes, Constraint] = {}

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores [B, V] with all but the allowed tokens at minus infinity; input_ids [B, T] of any library."""
        if self._prompt is None:
            self._prompt = int(input_ids.shape[1])
        if int(self.tokens.max()) >= int(scores.shape[1]):
            raise FormatError(
                f"the scores have {scores.shape[1]} tokens; the map goes up to {int(self.tokens.max())}"
            )
        written = np.asarray(input_ids[:, self._prompt :].tolist(), dtype=np.int64)
        written = written.reshape(int(input_ids.shape[0]), -1)
        states: dict[bytes, Constraint] = {}
        allowed = np.zeros((len(written), int(scores.shape[1])), dtype=bool)
        for row, tokens in enumerate(written):
            key = tokens.tobytes()
            if key not in states:
                states[key] = self._state(key, tokens)
            allowed[row, self.tokens] = states[key].mask()
        self._states = states
        # new_tensor makes a tensor of the scores' library on the scores' device, of the scores' dtype.
        barred = scores.new_tensor(~allowed) != 0
        return scores.masked_fill(barred, float("-inf"))

    def _state(self, key: bytes, tokens: np.ndarray) -> Constraint:
        before = self._states.get(key[: -tokens.itemsize]) if len(tokens) else None
        state = self._begin() if before is None else before.fork()
        for token in (tokens[-1:] if before is not None else tokens).tolist():
            byte = self._byte_of.get(token)
            if byte is None and state.done:
                byte = END  # padding after the end
            if byte is None:
                raise FormatError(f"token {token} stands for no byte; generation must begin after the prompt")
            state.advance(byte)
        return state
