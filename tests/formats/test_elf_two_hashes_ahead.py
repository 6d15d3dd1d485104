"""Files whose dynamic section comes before both its hash tables, which must agree on the number of symbols."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relinked import MACHINES, dynamic_of, needs_gcc, relinked
from steered import steered

from bytegen import formats
from bytegen.formats.oracles import panel
from bytegen.formats.oracles.rawelf import read_raw_elf

_DYN = (".dynamic", ".dynstr", ".room")
# The second table may come before its symbols or behind them, and so may the first.
_ORDERS = {
    "gnu, sysv, symbols": (*_DYN, ".gnu.hash", ".hash", ".dynsym"),
    "sysv, gnu, symbols": (*_DYN, ".hash", ".gnu.hash", ".dynsym"),
    "symbols, gnu, sysv": (*_DYN, ".dynsym", ".gnu.hash", ".hash"),
    "gnu, symbols, sysv": (*_DYN, ".gnu.hash", ".dynsym", ".hash"),
    "sysv behind": (".hash", *_DYN, ".gnu.hash", ".dynsym"),
    "gnu behind": (".gnu.hash", *_DYN, ".hash", ".dynsym"),
    "symbols behind": (".dynsym", *_DYN, ".hash", ".gnu.hash"),
}
_GNU_FIRST = ("gnu, sysv, symbols", "symbols, gnu, sysv", "gnu, symbols, sysv", "gnu behind")
_BOTH = ("-Wl,--hash-style=both", "-rdynamic")
_HASH, _GNU_HASH = 4, 0x6FFFFEF5
# DT_STRTAB, DT_STRSZ, DT_SYMTAB, DT_SYMENT, DT_RELA, DT_REL, DT_JMPREL, DT_VERSYM, DT_NULL
_TAGS = (_HASH, _GNU_HASH) * 4 + (5, 10, 6, 11, 7, 17, 23, 0x6FFFFFF0, 0)
_TABLES = (3, 5, 11, 0x6FFFFFF6, 0x6FFFFFFF)  # types of sections

Linked = Callable[[str, str], bytes]


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    """The program of a machine with its sections in one of the orders."""

    @cache
    def program(target: str, order: str) -> bytes:
        return relinked(tmp_path_factory.mktemp("linked"), target, _BOTH, _ORDERS[order])

    return program


@needs_gcc
@pytest.mark.parametrize("order", _ORDERS)
@pytest.mark.parametrize("target", MACHINES)
def test_programs_replay(linked: Linked, target: str, order: str) -> None:
    data = linked(target, order)
    # At level code a symbol that the hash tables promise ahead names no function that is still to be written.
    for level in ("parse", "load", "code") if order.startswith("symbols") else ("parse", "load"):
        assert formats.replay(formats.constraint(target, max_bytes=len(data), level=level), data) is None


def _tables(data: bytes) -> dict[int, int]:
    """Type and offset of the sections that are hash tables."""
    return {s["sh_type"]: s["sh_offset"] for s in read_raw_elf(data).shdrs if s["sh_type"] in (5, 0x6FFFFFF6)}


@needs_gcc
@pytest.mark.parametrize("by", [-1, 1, 2])
@pytest.mark.parametrize("order", _GNU_FIRST)
@pytest.mark.parametrize("target", MACHINES)
def test_the_second_table_has_as_many_symbols_as_the_first(
    linked: Linked, target: str, order: str, by: int
) -> None:
    data = bytearray(linked(target, order))
    place = _tables(bytes(data))[5] + 4
    count = struct.unpack_from("<I", data, place)[0]
    struct.pack_into("<I", data, place, count + by)
    refusal = formats.replay(formats.constraint(target, max_bytes=len(data), level="parse"), bytes(data))
    assert refusal is not None
    assert (refusal.field, refusal.offset) == ("hash.nchain", place)


def _two_are_ahead(data: bytes) -> bool:
    """Whether both hash tables that the dynamic section names lie behind it."""
    start, size = dynamic_of(data)
    entries = dict(struct.iter_unpack("<QQ" if data[4] == 2 else "<II", data[start : start + size]))
    loads = [header for header in read_raw_elf(data).phdrs if header["p_type"] == 1]

    def ahead(address: int) -> bool:
        return any(
            start <= address - load["p_vaddr"] + load["p_offset"] < load["p_offset"] + load["p_filesz"]
            for load in loads
        )

    return all(tag in entries and ahead(entries[tag]) for tag in (_HASH, _GNU_HASH))


def _drawn(real: bytes, target: str, level: str, seed: int) -> bytes:
    """A file with the real one's headers, in half of them with its section headers moved up among the tables.

    Not at level code, which has them behind the code where the program's entry is.
    """
    rng = random.Random(seed)
    start, size = dynamic_of(real)
    head = bytearray(real[:start])
    if level != "code" and rng.random() < 0.5:
        word = 8 if target.startswith("elf64") else 4
        shoff = start + size + 8 * rng.randrange(8, 250)
        head[24 + 2 * word : 24 + 3 * word] = shoff.to_bytes(word, "little")
    c = formats.constraint(target, max_bytes=len(real) + 64, level=level)
    assert c.advance_many(bytes(head)) == start
    wanted = {
        "d_tag": lambda rng: rng.choice(_TAGS),
        "sh_type": lambda rng: rng.choice(_TABLES) if rng.random() < 0.6 else -1,
        "nbucket": 2,
        "nchain": lambda rng: rng.choice((-1, 1, 4, 9)),
        "nbuckets": 1,
        "symoffset": 1,
        "bloom_size": 1,
    }
    return steered(c, rng, wanted)


@needs_gcc
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(MACHINES)), st.sampled_from(list(_ORDERS)), st.sampled_from(("load", "code")),
    st.integers(0, 1 << 30),
)  # fmt: skip
def test_files_drawn_from_their_dynamic_section_on_pass_every_judge(
    linked: Linked, tmp_path_factory: pytest.TempPathFactory, target: str, order: str, level: str, seed: int
) -> None:
    real = linked(target, order)
    data = _drawn(real, target, level, seed)
    path = tmp_path_factory.mktemp("drawn") / "file"
    path.write_bytes(data)
    path.chmod(0o755)
    assert panel.complaints(path, target, level) == []
    assert formats.replay(formats.constraint(target, max_bytes=len(real) + 64, level=level), data) is None


@needs_gcc
def test_what_is_drawn_has_two_tables_ahead(linked: Linked) -> None:
    target = next(iter(MACHINES))
    real = linked(target, "symbols behind")
    assert sum(_two_are_ahead(_drawn(real, target, "load", seed)) for seed in range(20)) >= 5
