"""Builds a corpus: draws programs, parameters and phrasings, and keeps what the sandbox confirms."""

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from bytegen.errors import UserError
from bytegen.files import usual_mode
from bytegen.train.corpus.check import Observation, observe_all, require
from bytegen.train.corpus.compile import FLAGS, FORMAT, Template, assemble, template
from bytegen.train.corpus.program import (
    Behaviour,
    Params,
    Program,
    all_programs,
    split_of,
)
from bytegen.train.corpus.shards import MANIFEST, SPLITS, Example, Provenance, Sample, shard_name, write_shard

LICENCE = "Apache-2.0"
CHUNK = 32
"""Samples in one unit of work of an executor."""
WINDOW = 64
"""Units of work handed out ahead of the one being waited for."""
TRIES = 200
"""Draws in a row that give nothing new before a program counts as exhausted."""


@dataclass(frozen=True)
class _Draft:
    """A sample before its run: `behaviours` are the oracle's, one for each stdin."""

    program: Program
    params: Params
    prompt: str
    data: bytes
    stdins: tuple[bytes, ...]
    behaviours: tuple[Behaviour, ...]


def build(
    out: Path | str,
    *,
    samples: int,
    seed: int = 0,
    programs: Sequence[Program] | None = None,
    split: str | None = None,
    executor: Executor | None = None,
    jobs: int | None = None,
    shard_rows: int = 8192,
    inputs_per_sample: int = 2,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes a corpus of `samples` distinct (prompt, executable) into the folder `out`; returns its manifest.

    Kinds get equal shares, and so do the programs of a kind, until one has no new sample to give.
    The same seed gives the same bytes whatever the executor (default: a process pool of `jobs`
    workers, all cores when None). `split` keeps only that split. `progress(done, samples)` is called
    as samples are confirmed. The folder appears when all of it is written.

    Raises UserError when `out` is not an empty or new folder, when the programs have fewer than
    `samples` distinct ones, and OracleMismatch when a program does not do what its oracle says.
    """
    if samples < 1:
        raise UserError(f"a corpus needs at least one sample, not {samples}")
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; there are: {', '.join(SPLITS)}")
    target = Path(out)
    _require_free(target)
    chosen = tuple(all_programs() if programs is None else programs)
    if not chosen:
        raise UserError("no programs to draw from")
    compiled = {program.name: template(program, cache) for program in chosen}
    drafts = islice(_drafts(chosen, compiled, seed, split, inputs_per_sample), samples)
    folder = _work_folder(target)
    try:
        with ExitStack() as stack:
            pool = executor or stack.enter_context(ProcessPoolExecutor(jobs or os.cpu_count()))
            writer = _Writer(folder, shard_rows)
            for draft in _confirmed(pool, drafts):
                writer.add(_sample(draft, compiled[draft.program.name]))
                if progress is not None:
                    progress(writer.total, samples)
            writer.close()
        if writer.total < samples:
            raise UserError(
                f"these programs have only {writer.total} distinct samples, {samples} were asked for"
            )
        manifest = _manifest(writer, chosen, compiled, samples, seed, split, inputs_per_sample)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        os.chmod(folder, usual_mode(executable=True))
        os.replace(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest


def _require_free(target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()):
            raise UserError(f"{target}: the folder is not empty; name a new one")
    elif target.exists():
        raise UserError(f"{target}: this is a file; name a new folder")


def _work_folder(target: Path) -> Path:
    """A new folder beside `target`, to be moved into its place when all of it is written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target}: cannot write here: {error.strerror}") from None


def _weights(programs: Sequence[Program]) -> list[float]:
    """Equal shares for kinds, and within a kind for its programs."""
    in_kind = Counter(program.kind for program in programs)
    return [1 / in_kind[program.kind] for program in programs]


def _drafts(
    programs: Sequence[Program],
    compiled: dict[str, Template],
    seed: int,
    split: str | None,
    inputs: int,
) -> Iterator[_Draft]:
    """Distinct drafts without end, or until every program is exhausted. Decided by `seed` alone."""
    rng = random.Random(seed)
    behaviour_of: dict[str, tuple[str, Params]] = {}
    alive = list(programs)
    weights = _weights(alive)
    while alive:
        program = rng.choices(alive, weights)[0]
        drawn = _draw_new(program, rng, split, behaviour_of)
        if drawn is None:
            alive.remove(program)
            weights = _weights(alive)
            continue
        params, prompt = drawn
        stdins = program.stdins(rng, params, inputs)
        behaviours = tuple(program.oracle(params, stdin) for stdin in stdins)
        data = assemble(compiled[program.name], program, params)
        yield _Draft(program, params, prompt, data, stdins, behaviours)


def _draw_new(
    program: Program,
    rng: random.Random,
    split: str | None,
    behaviour_of: dict[str, tuple[str, Params]],
) -> tuple[Params, str] | None:
    """Parameters and a prompt that are new, or None when TRIES draws in `split` gave none.

    Raises UserError when two behaviours share a prompt: no model could tell them apart.
    """
    tried = 0
    draws = 0
    while tried < TRIES and draws < 100 * TRIES:
        draws += 1
        params = program.draw(rng)
        if split is not None and split_of(program.name, params) != split:
            continue
        tried += 1
        prompt = rng.choice(program.phrasings).format(*params)
        behaviour = (program.name, params)
        known = behaviour_of.setdefault(prompt, behaviour)
        if known is behaviour:
            return params, prompt
        if known != behaviour:
            raise UserError(f"the prompt {prompt!r} means both {known} and {behaviour}")
    return None


def _confirmed(pool: Executor, drafts: Iterator[_Draft]) -> Iterator[_Draft]:
    """The drafts, in order, after the sandbox has shown the oracle's behaviour for every stdin."""
    waiting: deque[tuple[list[_Draft], Future[list[Observation]]]] = deque()
    while True:
        while len(waiting) < WINDOW and (chunk := list(islice(drafts, CHUNK))):
            runs = [(draft.data, stdin) for draft in chunk for stdin in draft.stdins]
            waiting.append((chunk, pool.submit(observe_all, runs)))
        if not waiting:
            return
        chunk, future = waiting.popleft()
        try:
            seen = iter(future.result())
            for draft in chunk:
                for stdin, expected in zip(draft.stdins, draft.behaviours, strict=True):
                    require(draft.program, draft.params, stdin, expected, next(seen))
        except BaseException:
            for _, other in waiting:
                other.cancel()
            raise
        yield from chunk


def _sample(draft: _Draft, compiled: Template) -> Sample:
    program = draft.program
    return Sample(
        prompt=draft.prompt,
        data=draft.data,
        format=FORMAT,
        kind=program.kind,
        program=program.name,
        params=draft.params,
        split=split_of(program.name, draft.params),
        examples=tuple(
            Example(stdin, shown.stdout, shown.exit_code, shown.slept_ns)
            for stdin, shown in zip(draft.stdins, draft.behaviours, strict=True)
        ),
        provenance=Provenance(_generator(), compiled.compiler, " ".join(FLAGS), compiled.source_sha256),
        licence=LICENCE,
    )


@lru_cache(maxsize=1)
def _generator() -> str:
    try:
        return f"bytegen {version('bytegen')}"
    except PackageNotFoundError:
        return "bytegen (not installed)"


class _Writer:
    """Gathers samples by split and writes a shard whenever one is full."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.rows = rows
        self.total = 0
        self.shards: list[dict[str, Any]] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._open: dict[str, list[Sample]] = {split: [] for split in SPLITS}
        self._written: Counter[str] = Counter()

    def add(self, sample: Sample) -> None:
        """Takes one sample."""
        self.total += 1
        self.counts[sample.kind, sample.program, sample.split] += 1
        rows = self._open[sample.split]
        rows.append(sample)
        if len(rows) == self.rows:
            self._write(sample.split)

    def close(self) -> None:
        """Writes what is left."""
        for split in SPLITS:
            if self._open[split]:
                self._write(split)

    def _write(self, split: str) -> None:
        rows = self._open[split]
        path = self.folder / shard_name(split, self._written[split])
        write_shard(path, rows)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.shards.append({"file": path.name, "rows": len(rows), "sha256": digest})
        self._written[split] += 1
        self._open[split] = []


def _manifest(
    writer: _Writer,
    programs: Sequence[Program],
    compiled: dict[str, Template],
    samples: int,
    seed: int,
    split: str | None,
    inputs: int,
) -> dict[str, Any]:
    counts = {
        program.name: {name: writer.counts[program.kind, program.name, name] for name in SPLITS}
        for program in programs
    }
    kinds = list(dict.fromkeys(program.kind for program in programs))
    return {
        "settings": {"samples": samples, "seed": seed, "split": split, "inputs_per_sample": inputs},
        "format": FORMAT,
        "generator": _generator(),
        "compiler": next(iter(compiled.values())).compiler,
        "flags": list(FLAGS),
        "licence": LICENCE,
        "splits": {name: sum(row[name] for row in counts.values()) for name in SPLITS},
        "kinds": {
            kind: {name: sum(counts[p.name][name] for p in programs if p.kind == kind) for name in SPLITS}
            for kind in kinds
        },
        "programs": {
            program.name: {
                "kind": program.kind,
                "bytes": compiled[program.name].size,
                "source_sha256": compiled[program.name].source_sha256,
                **counts[program.name],
            }
            for program in programs
        },
        "shards": writer.shards,
    }
