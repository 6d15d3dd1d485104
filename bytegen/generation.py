"""`generate`: from a prompt to a file that loads, and what is known of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bytegen import formats, sandbox, tokenizer
from bytegen.decoding import Engine, Sampling, Timing, decode
from bytegen.decoding import Sequence as Row
from bytegen.decoding.engine import OnBytes
from bytegen.decoding.runners import LanguageModel
from bytegen.errors import UserError

DEFAULT_FORMAT = "elf64-x86_64"
DEFAULT_LEVEL = "load"


@dataclass(frozen=True, kw_only=True)
class Output:
    """A generated file.

    `logprob` is the natural log of the probability of the choices that were made, under the masked
    distribution; `removed` holds, for each sampled byte, the probability that the constraint took away; `turns`
    counts the steps of the model in which a byte was drawn, fewer than `sampled` where drafts were right.
    """

    prompt: str
    data: bytes
    format: str
    level: str
    seed: int
    logprob: float
    removed: tuple[float, ...]
    sampled: int
    forced: int
    turns: int
    fields: tuple[formats.Field, ...]

    @cached_property
    def report(self) -> formats.Report:
        """What LIEF, capstone and our own rules find in the file, and where."""
        return formats.validate(self.data, format=self.format, level=self.level)

    def run(self, stdin: bytes = b"", **limits: Any) -> sandbox.Result:
        """Run the file in the emulator; `limits` are those of `bytegen.sandbox.run`."""
        return sandbox.run(self.data, stdin=stdin, **limits)


def _rows(
    lm: LanguageModel,
    jobs: Sequence[tuple[str, int]],
    format: str,
    level: str,
    max_bytes: int,
    sampling: Sampling,
    static: bool,
    min_bytes: int,
) -> tuple[Iterator[Row], int]:
    """Return the sequences to decode, made one by one, and the positions that the longest may take."""
    if not lm.config.of_bytes:
        raise UserError(
            f"this model has a vocabulary of {lm.config.vocab_size} ids, not the {tokenizer.VOCAB_SIZE} of bytes and"
            " marks; a checkpoint converted with --keep-vocabulary writes its own tokens, so convert it without"
        )
    start = formats.constraint(format, max_bytes=max_bytes, level=level, static=static, min_bytes=min_bytes)
    tag = tokenizer.format_tag(format)
    prompts = {prompt: tokenizer.encode_prompt(prompt, tag) for prompt, _ in jobs}
    longest = max(len(ids) for ids in prompts.values())
    room = lm.config.max_positions - max_bytes
    if longest > room:
        raise UserError(
            f"a prompt of {longest - 3} bytes and a file of up to {max_bytes} do not fit the model's context of"
            f" {lm.config.max_positions} positions; shorten the prompt to {max(0, room - 3)} bytes or lower max_bytes"
        )
    rows = (Row(i, prompts[prompt], start.fork(), sampling, seed) for i, (prompt, seed) in enumerate(jobs))
    return rows, longest + max_bytes


def generate_many(
    lm: LanguageModel, prompts: Sequence[str], *, format: str = DEFAULT_FORMAT, level: str = DEFAULT_LEVEL,
    max_bytes: int = 4096, seed: int = 0, samples: int = 1, temperature: float | None = None,
    top_p: float = 1.0, min_p: float = 0.0, batch_size: int = 32, on_bytes: OnBytes | None = None,
    on_output: Callable[[int, Output], None] | None = None, timing: Timing | None = None, static: bool = True,
    drafts: bool | Iterable[str] = True, backend: str = "auto", min_bytes: int = 0,
) -> list[Output]:  # fmt: skip
    """Write `samples` files for each prompt, in batches; outputs come prompt by prompt.

    Sample j of a prompt draws with seed `seed` + j, whatever else is in the batch. `on_bytes(row, new)`
    hears of bytes as they are written, `on_output(index, output)` of each finished file; `timing` is
    added to. `static` keeps ELF files to static programs (see `formats.constraint`): the packaged model has
    seen no others, and was not trained on bytes that had one choice there. `drafts` guesses bytes ahead, which
    changes the time and nothing else (see `decoding.engine`); it may name the sources of guesses, some of "file",
    "table" and "heads" (see `decoding.guesses`). `backend` is what computes (see `decoding.runners`).
    Files have `min_bytes` at least: where a model would end one earlier it goes on behind what the headers describe.

    Raises UserError for an empty prompt, a prompt that does not fit the context, sampling parameters out of range,
    or a source of drafts that is none; FormatError for an unknown format or level, or a max_bytes below the least file
    or `min_bytes`.
    """
    if samples < 1 or batch_size < 1:
        raise UserError(f"samples={samples} and batch_size={batch_size} must be at least 1")
    if not prompts:
        raise UserError("there are no prompts; give at least one")
    sampling = _sampling(temperature, top_p, min_p)
    jobs = [(prompt, seed + j) for prompt in prompts for j in range(samples)]
    rows, longest = _rows(lm, jobs, format, level, max_bytes, sampling, static, min_bytes)

    def finish(row: Row) -> tuple[int, Output]:
        prompt, row_seed = jobs[row.index]
        return row.index, Output(
            prompt=prompt, data=bytes(row.constraint.data), format=format, level=level, seed=row_seed,
            logprob=row.logprob, removed=tuple(row.removed), sampled=row.sampled, forced=row.forced,
            turns=row.turns,
            fields=tuple(row.constraint.fields()),
        )  # fmt: skip

    found = decode(
        lm, rows, finish, batch_size=min(batch_size, len(jobs)), max_length=longest, drafts=drafts,
        table=lm.draft_table, backend=backend, timing=timing, on_bytes=on_bytes,
    )  # fmt: skip
    outputs: list[Output | None] = [None] * len(jobs)
    for index, output in found:
        outputs[index] = output
        if on_output is not None:
            on_output(index, output)
    return [o for o in outputs if o is not None]


def generate(lm: LanguageModel, prompt: str, **options: Any) -> Output:
    """Write one file for `prompt`; options are those of `generate_many`."""
    return generate_many(lm, [prompt], samples=1, **options)[0]


def stream(
    lm: LanguageModel, prompt: str, *, format: str = DEFAULT_FORMAT, level: str = DEFAULT_LEVEL, max_bytes: int = 4096,
    seed: int = 0, temperature: float | None = None, top_p: float = 1.0, min_p: float = 0.0, static: bool = True,
    drafts: bool | Iterable[str] = True, backend: str = "auto", min_bytes: int = 0,
) -> Iterator[bytes]:  # fmt: skip
    """Write one file for `prompt` and give its bytes as they come, some at a time; closing the iterator stops.

    The bytes are those of `generate` with the same options, and so are the errors, which come with the first bytes.
    """
    sampling = _sampling(temperature, top_p, min_p)
    rows, longest = _rows(lm, [(prompt, seed)], format, level, max_bytes, sampling, static, min_bytes)
    engine = Engine(
        lm, batch_size=1, max_length=longest, drafts=drafts, table=lm.draft_table, backend=backend
    )
    new: list[bytes] = []
    engine.on_bytes = lambda _, some: new.append(some)
    engine.submit(next(rows))
    while engine.busy:
        engine.turn()
        if new:
            yield b"".join(new)
            new.clear()


def _sampling(temperature: float | None, top_p: float, min_p: float) -> Sampling:
    chosen = Sampling().temperature if temperature is None else temperature
    return Sampling(temperature=chosen, top_p=top_p, min_p=min_p)
