"""Learns a deterministic automaton from an oracle that answers for whole strings.

A state is a byte prefix. Two prefixes are one state while a tree of suffixes cannot tell them apart; a string on
which the automaton and the oracle differ yields, by bisection, one more suffix and one more state (Rivest and
Schapire, "Inference of finite automata using homing sequences", 1993; Kearns and Vazirani's tree).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bytegen.formats.code.learn.probe import Probe

DEAD = 0
UNKNOWN = -(2**30)  # a transition not asked about yet


@dataclass
class _Node:
    suffix: bytes
    children: dict[int, int] = field(default_factory=dict)  # answer -> node, or ~state for a leaf


class Learner:
    """The automaton so far: access strings, the tree, `next` as int32[states, 256] with ~label for an end."""

    def __init__(self, probe: Probe, suffixes: list[bytes], say: Callable[[str], None]) -> None:
        self.probe, self.say = probe, say
        self.access: list[bytes] = []
        self.nodes: list[_Node] = []
        self.next = np.zeros((0, 256), np.int32)
        self.first = suffixes
        self.roots: dict[bytes, int] = {}  # answers to the first suffixes -> node or ~state
        self.where: list[tuple[dict[Any, int], object]] = []  # the branch that every state is the leaf of
        self.queue: list[int] = []
        dead = self._new_state(b"", self.roots, bytes(8 * len(suffixes)))
        self.next[dead] = dead
        self.start = self._new_state(b"", self.roots, self._signature([b""])[0].tobytes())
        self.queue = [self.start]

    def _new_state(self, access: bytes, branches: dict[Any, int], answer: object) -> int:
        """A state reached by `access`, the leaf where the tree has `answer`; queued for its transitions."""
        state = len(self.access)
        self.access.append(access)
        branches[answer] = ~state
        self.where.append((branches, answer))
        self.queue.append(state)
        if state >= len(self.next):
            grown = np.full((max(256, 2 * len(self.next)), 256), UNKNOWN, np.int32)
            grown[: len(self.next)] = self.next
            self.next = grown
        return state

    def _signature(self, strings: list[bytes]) -> np.ndarray:
        """uint64[strings, suffixes]: the oracle's answer to every string with every first suffix."""
        if not strings:
            return np.zeros((0, len(self.first)), np.uint64)
        out = np.empty((len(strings), len(self.first)), np.uint64)
        for j, suffix in enumerate(self.first):
            out[:, j] = self.probe.after(strings, [suffix] * len(strings))
        return out

    def _sift(self, strings: list[bytes]) -> list[int]:
        """The state of each string (none of them an instruction's end), new states made as needed."""
        result = [DEAD] * len(strings)
        keys = self._signature(strings)
        waiting: list[tuple[int, int]] = []
        for i, row in enumerate(keys):
            key = row.tobytes()
            found = self.roots.get(key)
            if found is None:
                result[i] = self._new_state(strings[i], self.roots, key)
            elif found < 0:
                result[i] = ~found
            else:
                waiting.append((i, found))
        while waiting:
            answers = self.probe.after(
                [strings[i] for i, _ in waiting], [self.nodes[n].suffix for _, n in waiting]
            ).tolist()
            later = []
            for (i, n), answer in zip(waiting, answers, strict=True):
                found = self.nodes[n].children.get(answer)
                if found is None:
                    result[i] = self._new_state(strings[i], self.nodes[n].children, answer)
                elif found < 0:
                    result[i] = ~found
                else:
                    later.append((i, found))
            waiting = later
        return result

    def close(self) -> None:
        """Fills the transitions of every new state, until there are no new states."""
        while self.queue:
            states, self.queue = self.queue[:64], self.queue[64:]
            strings = [self.access[q] + bytes([b]) for q in states for b in range(256)]
            ends = self.probe.ends(strings)
            open_ones = [i for i in range(len(strings)) if ends[i] < 0]
            targets = self._sift([strings[i] for i in open_ones])
            flat = np.where(ends >= 0, ~ends, 0).astype(np.int32)
            flat[open_ones] = targets
            for j, q in enumerate(states):
                self.next[q] = flat[256 * j : 256 * j + 256]

    def split(self, state: int, access: bytes, suffix: bytes) -> None:
        """Tells `access` from the state it was taken for, by `suffix`: a new state, and its old callers asked."""
        mine, other = self.probe.after([self.access[state], access], [suffix] * 2).tolist()
        mine = 0 if state == DEAD else mine
        node = _Node(suffix)
        branches, key = self.where[state]
        branches[key] = len(self.nodes)
        self.nodes.append(node)
        node.children[mine] = ~state
        self.where[state] = (node.children, mine)
        callers = np.argwhere(self.next[: len(self.access)] == state)
        callers = callers[callers[:, 0] != DEAD]
        self._new_state(access, node.children, other)
        strings = [self.access[q] + bytes([b]) for q, b in callers.tolist()]
        answers = self.probe.after(strings, [suffix] * len(strings)).tolist()
        for (q, b), string, answer in zip(callers.tolist(), strings, answers, strict=True):
            if answer not in node.children:
                self._new_state(string, node.children, answer)
            self.next[q, b] = ~node.children[answer]

    def learn_from(self, string: bytes) -> bool:
        """Uses one string on which table and oracle differ; False when there is no split in it (any more).

        The answer to the rest of the string must not change when what came before is replaced by the state's
        own access string; where it does change, the state is two.
        """
        state = self.start
        for i, b in enumerate(string):
            target = int(self.next[state, b])
            taken, rest = self.access[state] + bytes([b]), string[i + 1 :]
            if target < 0:
                return False
            known = b"" if target == DEAD else self.access[target]
            mine, other = self.probe.after([known, taken], [rest] * 2).tolist()
            if target == DEAD:
                mine = 0
            if mine != other:
                self.split(target, taken, rest)
                return True
            if target == DEAD:
                return False
            state = target
        return False
