"""Batches decoded in groups, each by an engine in a thread of its own.

The C decoder computes without Python's lock, so one group's bytes are drawn and checked while another's are computed.
All that is Python happens under one lock: constraints share memory with their forks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from bytegen.decoding.engine import Engine, OnBytes, Timing
from bytegen.decoding.runners import LanguageModel, groups
from bytegen.decoding.sequence import Sequence

T = TypeVar("T")


@dataclass(frozen=True)
class _Failed:
    error: BaseException


_LEFT = object()  # a thread has nothing more to do


def decode(
    lm: LanguageModel, sequences: Iterator[Sequence], finish: Callable[[Sequence], T], *, batch_size: int,
    backend: str = "auto", timing: Timing | None = None, on_bytes: OnBytes | None = None, **options: Any,
) -> Iterator[T]:  # fmt: skip
    """Yield what `finish` makes of each sequence as it ends, at most `batch_size` of them at a time.

    `finish` and `on_bytes` are called by one thread at a time, not always the same one; an error of theirs is raised
    here. Which sequences are beside each other changes the time and nothing else. `options` are those of `Engine`.
    """
    count = groups(lm, backend, batch_size)
    timing = Timing() if timing is None else timing
    timing.groups = count
    lock = Lock() if count > 1 else None
    engines = [
        Engine(
            lm, batch_size=(batch_size + i) // count, backend=backend, lock=lock,
            threads=None if lock is None else 1, **options,
        )
        for i in range(count)
    ]  # fmt: skip
    for engine in engines:
        engine.timing, engine.on_bytes = timing, on_bytes
    if lock is None:
        yield from map(finish, engines[0].run(sequences, on_bytes=on_bytes))
    else:
        yield from _in_threads(engines, sequences, finish, lock)


def _in_threads(
    engines: list[Engine], sequences: Iterator[Sequence], finish: Callable[[Sequence], T], lock: Lock
) -> Iterator[T]:
    found: SimpleQueue[Any] = SimpleQueue()
    stopped = Event()

    def work(engine: Engine) -> None:
        try:
            with lock:
                while not stopped.is_set() and engine.fill(sequences):
                    for sequence in engine.turn():
                        found.put(finish(sequence))
        except BaseException as error:
            found.put(_Failed(error))
        finally:
            found.put(_LEFT)

    threads = [Thread(target=work, args=(engine,), daemon=True) for engine in engines]
    for thread in threads:
        thread.start()
    at_work = len(threads)
    try:
        while at_work:
            one = found.get()
            if one is _LEFT:
                at_work -= 1
            elif isinstance(one, _Failed):
                raise one.error
            else:
                yield one
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
