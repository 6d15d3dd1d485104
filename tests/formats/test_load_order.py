"""PT_LOADs out of order: refused, as glibc's loader refuses or misreads shared objects that have them so."""

from __future__ import annotations

import shutil
import struct
import subprocess
from itertools import permutations
from pathlib import Path

import pytest

from bytegen import formats
from bytegen.formats.oracles.dynamic_loader import loader_lists, loader_of

_CODE = "int counter = 3; int many[5000]; int add(int a) { many[a & 7] += counter; return many[a & 7]; }"
_TARGET = "elf64-x86_64"

needs_tools = pytest.mark.skipif(
    shutil.which("gcc") is None or loader_of(_TARGET) is None, reason="no gcc, or no glibc for x86-64"
)


def _orders(data: bytes) -> dict[tuple[int, ...], bytes]:
    """The file with its PT_LOADs in every order."""
    place, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    headers = [data[place + 56 * i : place + 56 * (i + 1)] for i in range(count)]
    loads = [i for i in range(count) if headers[i][:4] == b"\1\0\0\0"]
    found = {}
    for order in permutations(range(len(loads))):
        moved = bytearray(data)
        for i, j in zip(loads, order, strict=True):
            moved[place + 56 * i : place + 56 * (i + 1)] = headers[loads[j]]
        found[order] = bytes(moved)
    return found


@needs_tools
def test_shared_objects_with_segments_out_of_order_are_refused(tmp_path: Path) -> None:
    (tmp_path / "add.c").write_text(_CODE)
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", "add.so", "add.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode or (tmp_path / "add.so").read_bytes()[4] != 2:
        pytest.skip(f"gcc makes no shared object for x86-64 here: {done.stderr[-200:]}")
    orders = _orders((tmp_path / "add.so").read_bytes())
    assert len(orders) >= 6
    misread = 0
    for order, data in orders.items():
        path = tmp_path / "moved.so"
        path.write_bytes(data)
        for level in ("parse", "load"):
            refusal = formats.replay(formats.constraint(_TARGET, max_bytes=len(data), level=level), data)
            assert (refusal is None) == (order == tuple(sorted(order)))
        said = loader_lists(path, _TARGET)
        assert said is not None
        misread += not said.accepted
    assert misread >= len(orders) // 2
