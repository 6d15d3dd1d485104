"""Compares a finished x86 table with capstone as it is, and counts what is left out by rule."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from bytegen.formats.code.automaton import START, Automaton
from bytegen.formats.code.learn.classes import classes
from bytegen.formats.code.learn.probe import Probe
from bytegen.formats.code.learn.rules import RULES


class _Tally(ctypes.Structure):
    _fields_ = [
        ("asked", ctypes.c_uint64),
        ("accepted", ctypes.c_uint64),
        ("broken", ctypes.c_uint64),
        ("by_rule", ctypes.c_uint64 * len(RULES)),
        ("first_broken", ctypes.c_uint8 * 320),
    ]


class Comparer:
    """One table (with its privileged instructions) beside capstone's answers."""

    def __init__(self, bits: int, automaton: Automaton, folder: Path) -> None:
        self.probe = Probe(bits, classes(bits), folder)
        self.machine = automaton.name
        self._following = np.ascontiguousarray(automaton.following, np.uint16)
        self._roles = np.frombuffer(automaton.roles, np.uint8)
        self._table = (
            ctypes.c_void_p(self._following.ctypes.data),
            ctypes.c_void_p(self._roles.ctypes.data),
            START,
            automaton.accept,
        )
        self.probe.library.agree_on_strings.restype = None
        self.probe.library.agree_on_text.restype = ctypes.c_uint64

    def strings(self, count: int, seed: int, plain: bool) -> dict[str, object]:
        """Compares on `count` drawn strings: random bytes where `plain`, else prefixes, maps and truncations."""
        tally = _Tally()
        self.probe.library.agree_on_strings(
            ctypes.c_uint64(count), ctypes.c_uint64(seed), int(plain), *self._table, ctypes.byref(tally)
        )
        return self._row("random strings" if plain else "structured strings", tally)

    def text(self, sections: list[bytes]) -> dict[str, object]:
        """Compares instruction by instruction through code sections."""
        tally = _Tally()
        shared = 0
        for section in sections:
            shared += self.probe.library.agree_on_text(
                section, ctypes.c_uint64(len(section)), *self._table, ctypes.byref(tally)
            )
        return {
            **self._row("text", tally),
            "bytes": sum(map(len, sections)),
            "bytes_in_instructions_of_both": shared,
        }

    def _row(self, what: str, tally: _Tally) -> dict[str, object]:
        raw = bytes(tally.first_broken)
        return {
            "machine": self.machine,
            "what": what,
            "asked": tally.asked,
            "accepted": tally.accepted,
            "disagreements": tally.broken,
            "first": [raw[20 * i : 20 * i + 20].hex() for i in range(min(tally.broken, 16))],
            "rules": {name: count for name, count in zip(RULES, tally.by_rule, strict=True) if count},
        }
