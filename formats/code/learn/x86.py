"""Learns one x86 table: the loop of questions and counterexamples, roles, minimisation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bytegen.formats.code.learn.classes import classes
from bytegen.formats.code.learn.minimise import minimise
from bytegen.formats.code.learn.probe import SWEEP_ROOM, Probe
from bytegen.formats.code.learn.tree import DEAD, Learner

_TAIL = bytes.fromhex("112233445566778899aabb")
# Suffixes that tell most states apart at once: every place of an instruction with usual bytes after it.
_FIRST = [
    bytes.fromhex(h) + _TAIL
    for h in """
    . 00 05 04 25 0425 44 84 c0 c1 c8 d0 d8 e0 e8 f0 f8 ff 90 c3 e8 e9 eb 0f05 0f10c0 0f1000 0f5805 0f84 0fae38 0fc7c8
    0f3800c0 0f38f0c0 0f38f000 0f3a0fc0 8b05 8b0425 89c0 8900 a1 b8 6b00 69c0 c700 c7f8 f600 f700 80c0 8000 ff10 ff20
    ff18 d9c0 d900 c5f877 c5f858c0 c4e27918c0 62f17c4858c0 62f17c1858c0 c4e27992 6690 f390 f290 f00100 4801c0 4c01c0
    2e90 6790 48b8 20c0 22c0 8ec0 8ed8 cd29 cd80 1058c0 7858c0 fcc0 7c4858c0 7c0858c0 fd48580080 58c0 580080 7cc0c0
    """.replace(".", "").split()
] + [_TAIL]

# Strings that random questions hardly ever hit: 67 before instructions whose other prefixes decide what they are.
# Comparing the tables of two runs found them.
_RARE = [
    bytes.fromhex(h)
    for h in ["f3670faef0", "26f3670faef0", "67c4c37bf0040000", "67c4c37bf0c000", "67660faef8"]
]


def learn_x86(
    bits: int, seed: int, quiet_strings: int, say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, int]:
    """(next uint16[states, 256], roles uint8[states, 256], accept).

    Stops after `quiet_strings` strings in a row without a difference between table and probe.
    """
    with tempfile.TemporaryDirectory() as folder:
        probe = Probe(bits, classes(bits), Path(folder))
        learner = Learner(probe, _FIRST, say)
        learner.close()
        for string in _RARE:
            while learner.learn_from(string):
                learner.close()
        say(f"{len(learner.access)} states from the first suffixes")
        _refine(learner, probe, seed, quiet_strings, say)
        following, roles, accept, _ = _tables(learner, probe)
    return minimise(following, roles, accept)


class _Sweeps:
    """Sweeps over access string x byte x suffix: thin at first, then of what is new, in the end of everything."""

    def __init__(self, learner: Learner, probe: Probe) -> None:
        self.learner, self.probe = learner, probe
        self.step = 1024  # one combination in so many
        self.covered = (0, 0)  # states and suffixes whose combinations were all swept
        self.finished = False

    def run(self, following: np.ndarray, roles: np.ndarray, accept: int, seed: int) -> list[bytes]:
        """Strings on which the table and the probe differ; none and `finished` when all were asked at once."""
        known = self.learner.access[1:]
        suffixes = [b"", *self.learner.first, *(node.suffix for node in self.learner.nodes)]
        table = (following, roles, self.learner.start, accept)
        states, tails = self.covered
        found = self.probe.sweep(self.step, seed % self.step, *table, known[states:], suffixes)
        if states:
            found += self.probe.sweep(1, 0, *table, known[:states], suffixes[tails:])
        if self.step > 1:
            self.step = max(1, self.step // 4) if len(found) < 16 else self.step
        elif not found:
            self.finished = states == 0
            self.covered = (0, 0)
        elif len(found) < SWEEP_ROOM:
            self.covered = len(known), len(suffixes)
        return found


def _refine(
    learner: Learner, probe: Probe, seed: int, quiet_strings: int, say: Callable[[str], None]
) -> None:
    """Learns from strings on which table and probe differ, until neither drawing nor sweeping finds any more."""
    count, quiet, begun = 20_000, 0, time.monotonic()
    sweeps = _Sweeps(learner, probe)
    while quiet < quiet_strings or not sweeps.finished:
        seed += 1
        following, roles, accept, doubtful = _tables(learner, probe)
        drawn = probe.differences(count, seed, following, roles, learner.start, accept, learner.access[1:])
        swept = []
        if len(drawn) < 16 and not sweeps.finished:
            swept = sweeps.run(following, roles, accept, seed)
        split = 0
        for string in drawn + swept + doubtful:
            while learner.learn_from(string[:15]):
                split += 1
                learner.close()
        if (drawn or swept or doubtful) and not split:
            raise RuntimeError(
                f"no state to split for {(drawn + swept)[0].hex()}: its roles depend on later bytes"
            )
        quiet = 0 if split else quiet + count
        sweeps.finished = sweeps.finished and not split
        say(
            f"{time.monotonic() - begun:6.1f} s: {len(learner.access)} states; {len(drawn)} differences in {count} "
            f"strings, {len(swept)} in the sweep (1 of {sweeps.step}); {split} splits"
        )
        if len(drawn) < 16:
            count = min(count * 2, 5_000_000)


def _tables(learner: Learner, probe: Probe) -> tuple[np.ndarray, np.ndarray, int, list[bytes]]:
    """The learner's automaton: next uint16[states, 256] with ends from `accept` on, and roles uint8 alike.

    Last come up to 64 strings that the automaton takes and the probe does not.
    """
    states = len(learner.access)
    raw = learner.next[:states]
    accept = (states + 255) // 256 * 256
    following = np.where(raw < 0, accept + ~raw, raw).astype(np.uint16)
    completion = _completions(following, accept)
    live = following != DEAD
    live[DEAD] = False
    where = np.argwhere(live)
    strings = []
    for q, b in where.tolist():
        target = int(following[q, b])
        strings.append(learner.access[q] + bytes([b]) + (completion[target] if target < accept else b""))
    at = np.fromiter((len(learner.access[q]) for q in where[:, 0].tolist()), np.uint8, len(where))
    roles = np.zeros((states, 256), np.uint8)
    found = probe.roles(strings, at)
    roles[where[:, 0], where[:, 1]] = found
    doubtful = [strings[i] for i in np.flatnonzero(found == 0).tolist() if len(strings[i]) <= 15]
    return following, roles, accept, doubtful[:64]


def _completions(following: np.ndarray, accept: int) -> list[bytes]:
    """For every state the shortest string that ends an instruction; empty where there is none."""
    states = len(following)
    done: list[bytes | None] = [None] * states
    frontier = np.zeros(accept + 256, dtype=bool)
    frontier[accept:] = True
    reached = frontier.copy()
    while True:
        hits = reached[following]
        fresh = [q for q in range(states) if done[q] is None and q != DEAD and hits[q].any()]
        if not fresh:
            return [c or b"" for c in done]
        made = {}
        for q in fresh:
            b = int(hits[q].argmax())
            target = int(following[q, b])
            made[q] = bytes([b]) + (b"" if target >= accept else done[target] or b"")
        for q, string in made.items():
            done[q] = string
            reached[q] = True
