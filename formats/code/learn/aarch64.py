"""Learns the AArch64 table: the label of all 2**32 words, as an automaton over their four bytes.

The low ten bits of most words are two register numbers that change nothing: 30 probes a block of 1,024 words find
the blocks where they do not, the others are asked word by word, as are all system words. A check on random words
then asks for what no probe could show.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bytegen.formats.code.learn.probe import build
from bytegen.formats.errors import FormatError

_VARIED = 255
# Asked word by word: exceptions, system, branches to registers; and SETF8, which takes one register number only.
_SYSTEM_TOPS = (0xD4, 0xD5, 0xD6, 0xD7)
_SETF = 0x3A00
_BLOCKS = 1 << 22


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class WordProbe:
    """capstone's answers about AArch64 words: label + 1, or 0 for no instruction."""

    def __init__(self, folder: Path) -> None:
        self.library = build("aarch64.c", folder)
        for name in ("labels", "scan", "fill"):
            getattr(self.library, name).restype = None
        if self.library.open_probe():
            raise FormatError("capstone does not open AArch64")

    def labels(self, words: np.ndarray) -> np.ndarray:
        """uint8[n] of the words' answers."""
        words = np.ascontiguousarray(words, np.uint32)
        out = np.empty(len(words), np.uint8)
        self.library.labels(len(words), _pointer(words), _pointer(out))
        return out

    def scan(self, first: int, count: int) -> np.ndarray:
        """uint8[count]: the answer that a block's probes share, or 255."""
        out = np.empty(count, np.uint8)
        self.library.scan(ctypes.c_uint32(first), ctypes.c_uint32(count), _pointer(out))
        return out

    def fill(self, blocks: np.ndarray) -> np.ndarray:
        """uint8[n, 1024]: the answers to every word of the blocks."""
        blocks = np.ascontiguousarray(blocks, np.uint32)
        out = np.empty((len(blocks), 1024), np.uint8)
        self.library.fill(len(blocks), _pointer(blocks), _pointer(out))
        return out


def learn_aarch64(
    seed: int, check_words: int, say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, int]:
    """(next uint16[states, 256], roles uint8[states, 256], accept); `check_words` random words are asked again."""
    with tempfile.TemporaryDirectory() as folder:
        probe = WordProbe(Path(folder))
        pattern, patterns = _patterns(probe, say)
        _check(probe, pattern, patterns, seed, check_words, say)
    following, accept = _automaton(pattern, patterns, say)
    roles = np.where(following != 0, 2, 0).astype(np.uint8)  # every byte is part of the opcode
    return following, roles, accept


def _patterns(probe: WordProbe, say: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
    """(pattern number of every block int32[2**22], the patterns uint8[n, 1024])."""
    codes = np.concatenate([probe.scan(first, 1 << 16) for first in range(0, _BLOCKS, 1 << 16)])
    numbers = np.arange(_BLOCKS)
    varied = np.flatnonzero(
        (codes == _VARIED) | np.isin(numbers >> 14, _SYSTEM_TOPS) | (numbers >> 6 == _SETF)
    )
    say(f"{len(varied)} of {_BLOCKS} blocks are asked word by word")
    known: dict[bytes, int] = {}
    rows: list[np.ndarray] = []
    for label in range(16):
        rows.append(np.full(1024, label, np.uint8))
        known[rows[-1].tobytes()] = label
    pattern = codes.astype(np.int32)
    for at in range(0, len(varied), 4096):
        chunk = varied[at : at + 4096]
        for block, row in zip(chunk.tolist(), probe.fill(chunk), strict=True):
            key = row.tobytes()
            if key not in known:
                known[key] = len(rows)
                rows.append(row.copy())
            pattern[block] = known[key]
    say(f"{len(rows)} patterns")
    return pattern, np.array(rows)


def _check(
    probe: WordProbe,
    pattern: np.ndarray,
    patterns: np.ndarray,
    seed: int,
    count: int,
    say: Callable[[str], None],
) -> None:
    """Asks random words, half of them among the valid; raises FormatError on a word the patterns get wrong."""
    rng = np.random.default_rng(seed)
    alive = np.flatnonzero(pattern != 0)
    for _ in range(0, count, 1 << 20):
        words = rng.integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
        words[::2] = (rng.choice(alive, 1 << 19) << 10).astype(np.uint32) | (words[::2] & np.uint32(1023))
        wrong = np.flatnonzero(patterns[pattern[words >> 10], words & 1023] != probe.labels(words))
        if len(wrong):
            raise FormatError(f"word {words[wrong[0]]:08x} differs from its block's probes")
    say(f"{count} words checked")


def _automaton(
    pattern: np.ndarray, patterns: np.ndarray, say: Callable[[str], None]
) -> tuple[np.ndarray, int]:
    """The least automaton over the bytes in memory order: each level's states are its distinct rows."""
    columns, column_of = np.unique(patterns.T, axis=0, return_inverse=True)
    column_of = column_of.reshape(-1)
    blocks = pattern.reshape(256, 256, 64).transpose(2, 1, 0)  # [upper six bits of byte 1][byte 2][byte 3]
    blocks, block_of = np.unique(blocks.reshape(-1, 256).astype(np.int16), axis=0, return_inverse=True)
    block_of = block_of.reshape(64, 256)
    weights = np.random.default_rng(0).integers(1, 1 << 63, (16, 256), dtype=np.uint64)
    places = np.arange(256)
    leaves: dict[bytes, int] = {}
    leaf_of = np.zeros((len(columns), 64, 256), np.int64)
    for c, column in enumerate(columns):
        # A linear hash of each row, byte 3 by byte 3, tells rows apart without writing them all out.
        hashes = weights[column][blocks, places].sum(axis=1, dtype=np.uint64)
        keys, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        rows = column[blocks[first]]
        numbers = [leaves.setdefault(row.tobytes(), len(leaves)) for row in rows]
        leaf_of[c] = np.array(numbers)[inverse.reshape(-1)][block_of]
        assert len(keys) == len(numbers)
    seconds, second_of = np.unique(leaf_of.reshape(-1, 256), axis=0, return_inverse=True)
    second_of = second_of.reshape(len(columns), 64)
    low = np.arange(256)
    first_rows = np.array([second_of[column_of[(low & 3) << 8 | b0], low >> 2] for b0 in range(256)])
    firsts, first_of = np.unique(first_rows, axis=0, return_inverse=True)
    say(f"{len(firsts)} states after one byte, {len(seconds)} after two, {len(leaves)} after three")
    leaf_rows = np.frombuffer(b"".join(leaves), np.uint8).reshape(-1, 256)
    dead = {i for i, row in enumerate(leaf_rows) if not row.any()}
    base = 2 + len(firsts) + len(seconds)
    accept = base + len(leaf_rows)
    following = np.zeros((accept, 256), np.int64)
    following[1] = 2 + first_of.reshape(-1)
    following[2 : 2 + len(firsts)] = 2 + len(firsts) + firsts
    following[2 + len(firsts) : base] = np.where(np.isin(seconds, list(dead)), 0, base + seconds)
    following[base:] = np.where(leaf_rows == 0, 0, accept + leaf_rows.astype(np.int64) - 1)
    return following.astype(np.uint16), accept
