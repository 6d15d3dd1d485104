"""Builds the C part against capstone's shared library and asks it about many strings at once."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bytegen.formats.errors import FormatError

STRIDE = 32  # bytes a string is given in the arrays
SWEEP_ROOM = 4096  # most differences that one sweep returns
HERE = Path(__file__).resolve().parent


def compiler() -> list[str]:
    """The C compiler's command: `cc` where there is one, else `python -m ziglang cc`."""
    if found := shutil.which("cc") or shutil.which("gcc"):
        return [found]
    return [sys.executable, "-m", "ziglang", "cc"]


def capstone_library() -> Path:
    """The shared library inside the installed capstone package. Raises FormatError when there is none."""
    import capstone

    folder = Path(capstone.__file__).resolve().parent
    for name in ("libcapstone.so", "libcapstone.so.5", "libcapstone.dylib"):
        if (path := folder / "lib" / name).exists():
            return path
    raise FormatError(f"no libcapstone in {folder / 'lib'}: install capstone from a wheel")


def build(source: str, folder: Path) -> ctypes.CDLL:
    """Compiles a C file of this folder into `folder` and loads it beside capstone's library."""
    library = capstone_library()
    out = folder / f"{Path(source).stem}.so"
    include = library.parent.parent / "include"
    command = [*compiler(), "-O2", "-shared", "-fPIC", f"-I{include}", "-o", str(out), str(HERE / source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise FormatError(f"{' '.join(command[:2])} failed on {source}: {done.stderr.strip()[:400]}")
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(out))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def pack(strings: Sequence[bytes], stride: int = STRIDE) -> tuple[np.ndarray, np.ndarray]:
    """The strings as uint8[n, stride] filled with zeros, and their lengths uint8[n]."""
    joined = b"".join([s.ljust(stride, b"\0") for s in strings])
    lengths = np.fromiter(map(len, strings), np.uint8, len(strings))
    return np.frombuffer(joined, np.uint8), lengths


class Probe:
    """capstone and the rules, asked about byte strings. `classes[id]` labels capstone's instruction ids."""

    def __init__(self, bits: int, classes: np.ndarray, folder: Path) -> None:
        self.library = build("x86.c", folder)
        self.bits = bits
        self.library.answers.restype = None
        self.library.differences.restype = self.library.sweep.restype = ctypes.c_int
        self.classes = np.ascontiguousarray(classes, np.uint8)
        if self.library.open_probe(bits, _pointer(self.classes), len(self.classes)):
            raise FormatError(f"capstone does not open x86 of {bits} bits")

    def _ask(self, strings: Sequence[bytes], known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        data, lengths = pack(strings)
        out = np.empty(len(strings), np.uint64)
        ends = np.empty(len(strings), np.uint8)
        known = np.ascontiguousarray(known, np.uint8)
        self.library.answers(
            len(strings),
            STRIDE,
            _pointer(data),
            _pointer(lengths),
            _pointer(known),
            _pointer(out),
            _pointer(ends),
        )
        return out, ends

    def after(self, prefixes: Sequence[bytes], suffixes: Sequence[bytes]) -> np.ndarray:
        """uint64[n]: what prefix + suffix is, in roles of the suffix's bytes and label; 0 for nothing."""
        known = np.fromiter(map(len, prefixes), np.uint8, len(prefixes))
        return self._ask([p + s for p, s in zip(prefixes, suffixes, strict=True)], known)[0]

    def ends(self, strings: Sequence[bytes]) -> np.ndarray:
        """int32[n]: the label where the string is one whole instruction, else -1."""
        known = np.fromiter(map(len, strings), np.uint8, len(strings))
        out, ends = self._ask(strings, known)
        return np.where(ends == known, (out & np.uint64(255)).astype(np.int32), -1).astype(np.int32)

    def roles(self, strings: Sequence[bytes], at: np.ndarray) -> np.ndarray:
        """uint8[n]: the role of byte `at` of each string, 0 where the string starts with no instruction."""
        out, _ = self._ask(strings, at)
        return np.where(out != 0, (out >> np.uint64(4)) & np.uint64(15), 0).astype(np.uint8)

    def differences(
        self, count: int, seed: int, following: np.ndarray, roles: np.ndarray, start: int, base: int,
        known: Sequence[bytes] = (), room: int = 256,
    ) -> list[bytes]:  # fmt: skip
        """Up to `room` strings of 20 bytes among `count` drawn on which a table and this probe differ."""
        data, lengths = pack([k[:18] for k in known] or [b""], 20)
        out = np.zeros((room, 20), np.uint8)
        found = self.library.differences(
            count, ctypes.c_uint64(seed), _pointer(following), _pointer(roles), start, base, _pointer(data),
            _pointer(lengths), len(known), _pointer(out), room,
        )  # fmt: skip
        return [bytes(row) for row in out[:found]]

    def sweep(
        self, step: int, offset: int, following: np.ndarray, roles: np.ndarray, start: int, base: int,
        known: Sequence[bytes], suffixes: Sequence[bytes],
    ) -> list[bytes]:  # fmt: skip
        """Every `step`-th of known string x byte x suffix: up to SWEEP_ROOM strings on which table and probe differ."""
        data, lengths = pack(known, 20)
        tails, tail_lengths = pack([s[:18] for s in suffixes], 20)
        out = np.zeros((SWEEP_ROOM, 20), np.uint8)
        at = ctypes.c_uint64(offset)
        found = self.library.sweep(
            ctypes.byref(at), ctypes.c_uint64(step), _pointer(following), _pointer(roles), start, base,
            _pointer(data), _pointer(lengths), len(known), _pointer(tails), _pointer(tail_lengths), len(suffixes),
            _pointer(out), SWEEP_ROOM,
        )  # fmt: skip
        return [bytes(row) for row in out[:found]]
