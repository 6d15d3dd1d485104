"""Training batches: whole examples, packed into rows of fixed length with document limits.

An example is `BEGIN prompt END_OF_PROMPT tag file END_OF_FILE`. Nothing is cropped: what does not fit a
batch opens the next. Every draw follows from (seed, epoch, index), so a cursor is all the state there is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bytegen import formats, tokenizer
from bytegen.errors import UserError
from bytegen.train.corpus.shards import read_table


@dataclass(frozen=True)
class Example:
    """A described program: what the corpus holds of it, as far as training needs it."""

    prompt: str
    data: bytes
    format: str
    kind: str
    parameters: bytes
    """The parameters as they stand in the file, each closed by NUL; empty when not known."""


@dataclass
class Batch:
    """Packed examples: ids and targets [1, T], loss weights [1, T], document limits, counts."""

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    on_parameters: Tensor  # bool [1, T]: the target is a byte of the parameters
    cu_seqlens: Tensor  # padded with empty documents to a fixed size
    documents: int
    file_bytes: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(
            self.tokens.to(device),
            self.targets.to(device),
            self.weights.to(device),
            self.on_parameters.to(device),
            self.cu_seqlens.to(device),
            self.documents,
            self.file_bytes,
        )


def load_examples(folder: str | Path, split: str, *, kinds: list[str] | None = None) -> list[Example]:
    """Read the shards of `folder` that belong to `split`; UserError when there are none."""
    columns = ["prompt", "data", "format", "kind", "params"]
    out = [
        Example(
            row["prompt"],
            row["data"],
            row["format"],
            row["kind"],
            b"".join(p.encode() + b"\0" for p in row["params"]),
        )
        for row in read_table(folder, split, columns).to_pylist()
        if kinds is None or row["kind"] in kinds
    ]
    if not out:
        raise UserError(
            f"{folder} holds no example of split {split!r}" + (f" and kinds {kinds}" if kinds else "")
        )
    return out


class Encoder:
    """Turns examples into ids and loss weights.

    A byte weighs nothing where the constraint at `level` leaves one choice, `parameter_weight` where it is
    a parameter of the prompt, else one; the prompt and the tags weigh nothing.
    """

    def __init__(self, *, level: str, parameter_weight: float = 1.0) -> None:
        self.level, self.parameter_weight = level, parameter_weight
        self._forced: dict[tuple[str, bytes, int], np.ndarray] = {}

    def forced(self, example: Example) -> np.ndarray:
        """Return which bytes (and the end) of the file the constraint forces: bool [n + 1]."""
        # Files of one program differ only in bytes that no rule reads, so the answer is kept by what precedes them.
        start = example.data.rfind(example.parameters) if example.parameters else len(example.data)
        key = (example.format, example.data[:start], len(example.data))
        if key not in self._forced:
            self._forced[key] = self._find_forced(example)
        return self._forced[key]

    def _find_forced(self, example: Example) -> np.ndarray:
        # What generation forces: it keeps to static programs, unless it is asked for others.
        try:
            return formats.forced_bytes(example.format, example.data, level=self.level, static=True)
        except formats.FormatError:
            return formats.forced_bytes(example.format, example.data, level=self.level)

    def file(self, example: Example) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Return (ids, weights, on_parameters); weights[i] is that of predicting ids[i] from what precedes."""
        head = tokenizer.encode_prompt(example.prompt, tokenizer.format_tag(example.format))
        ids = [*head, *example.data, tokenizer.END_OF_FILE]
        weights = np.zeros(len(ids), np.float32)
        weights[len(head) :] = np.where(self.forced(example), 0.0, 1.0)
        on = np.zeros(len(ids), bool)
        start = example.data.rfind(example.parameters) if example.parameters else -1
        if start >= 0:
            on[len(head) + start : len(head) + start + len(example.parameters)] = True
            weights[on] *= self.parameter_weight
        return ids, weights, on

    def short(self, example: Example) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Return the curriculum's short form under a tag of its own: which program, and its parameters.

        The program is told by the file's length and a hash of what precedes the parameters (two bytes each):
        in a whole file that choice hangs on a byte or two of the header among hundreds that follow from it.
        """
        head = tokenizer.encode_prompt(example.prompt, tokenizer.PARAMETERS)
        skeleton = example.data[: example.data.rfind(example.parameters)]
        which = (len(example.data) & 0xFFFF).to_bytes(2, "little") + hashlib.sha256(skeleton).digest()[:2]
        ids = [*head, *which, *example.parameters, tokenizer.END_OF_FILE]
        judged = np.arange(len(ids)) >= len(head)
        on = np.arange(len(ids)) >= len(head) + len(which)
        return ids, judged.astype(np.float32), on


def most_documents(length: int) -> int:
    """Return how many documents a batch may hold; its limits are padded to one size, so that shapes stay fixed."""
    return length // 16


def pack(documents: list[tuple[list[int], np.ndarray, np.ndarray]], length: int) -> Batch:
    """Lay `documents` end to end in one row of `length` ids; what is left is padding of no weight."""
    ids = np.full(length + 1, tokenizer.PADDING, np.int64)
    targets = np.full(length, tokenizer.PADDING, np.int64)
    weights = np.zeros(length, np.float32)
    on_parameters = np.zeros(length, bool)
    bounds, at, file_bytes = [0], 0, 0
    for tokens, weight, on in documents:
        n = len(tokens) - 1  # the last id is only ever a target
        ids[at : at + n] = tokens[:-1]
        targets[at : at + n] = tokens[1:]
        weights[at : at + n] = weight[1:]
        on_parameters[at : at + n] = on[1:]
        file_bytes += n - tokens.index(tokenizer.END_OF_PROMPT) - 2
        at += n
        bounds.append(at)
    bounds += [length] * (most_documents(length) + 2 - len(bounds))
    return Batch(
        torch.from_numpy(ids[:length])[None], torch.from_numpy(targets)[None], torch.from_numpy(weights)[None],
        torch.from_numpy(on_parameters)[None], torch.tensor(bounds), len(documents), file_bytes,
    )  # fmt: skip


@dataclass
class Cursor:
    """Where the stream of examples stands: the example of `epoch` at `index` comes next."""

    epoch: int = 0
    index: int = 0


class Stream:
    """An endless, shuffled stream of packed batches over `examples`."""

    def __init__(
        self,
        examples: list[Example],
        encoder: Encoder,
        *,
        length: int,
        seed: int,
        cursor: Cursor | None = None,
    ):
        self.examples, self.encoder, self.length, self.seed = examples, encoder, length, seed
        self.cursor = cursor or Cursor()
        self._order = self._shuffled(self.cursor.epoch)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.examples))

    def next_batch(self, short_share: float = 0.0) -> Batch:
        """Return the next batch; each example comes in short form with probability `short_share`."""
        documents: list[tuple[list[int], np.ndarray, np.ndarray]] = []
        room = self.length
        while True:
            if self.cursor.index == len(self.examples):
                self.cursor = Cursor(self.cursor.epoch + 1, 0)
                self._order = self._shuffled(self.cursor.epoch)
            example = self.examples[self._order[self.cursor.index]]
            draw = np.random.default_rng((self.seed, self.cursor.epoch, self.cursor.index, 1)).random()
            short = draw < short_share and bool(example.parameters)
            document = self.encoder.short(example) if short else self.encoder.file(example)
            if len(document[0]) - 1 > self.length:
                raise UserError(
                    f"an example of {len(document[0])} ids does not fit tokens_per_batch = {self.length}; raise it"
                )
            if len(document[0]) - 1 > room or len(documents) == most_documents(self.length):
                return pack(documents, self.length)
            documents.append(document)
            room -= len(document[0]) - 1
            self.cursor.index += 1


def batches(examples: list[Example], encoder: Encoder, length: int) -> Iterator[Batch]:
    """Yield every example once, in order, as whole files packed into batches (for evaluation)."""
    documents: list[tuple[list[int], np.ndarray, np.ndarray]] = []
    room = length
    for example in examples:
        document = encoder.file(example)
        n = len(document[0]) - 1
        if n > length:
            raise UserError(f"an example of {n + 1} ids does not fit tokens_per_batch = {length}; raise it")
        if n > room or len(documents) == most_documents(length):
            yield pack(documents, length)
            documents, room = [], length
        documents.append(document)
        room -= n
    if documents:
        yield pack(documents, length)
