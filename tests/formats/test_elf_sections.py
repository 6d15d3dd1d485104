"""Section headers and what sections hold: exact rules, agreed with readelf, LIEF and pyelftools."""

from __future__ import annotations

import base64
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lief_judge, readelf_judge
from sectioned import BASE, Part, note, relocation, sectioned_elf, symbol

from bytegen import formats
from bytegen.formats.elf import names, tables
from bytegen.formats.elf.contents.records import RELOCATION_TYPES
from bytegen.formats.elf.notes.owners import name_fits
from bytegen.formats.elf.target import AARCH64, I386, TARGETS, X86_64, Target
from bytegen.formats.elf.written import Behind
from bytegen.formats.oracles.elftools_judge import elftools_judge

PROGBITS, SYMTAB, STRTAB, RELA, NOTE, REL, DYNSYM, RELR = 1, 2, 3, 4, 7, 9, 11, 19
EVERY = list(TARGETS.values())
by_target = pytest.mark.parametrize("target", EVERY, ids=lambda target: target.name)


def refused(target: Target, data: bytes, level: str = "parse") -> str | None:
    """The field at which the format refuses a file."""
    found = formats.replay(formats.constraint(target.name, max_bytes=len(data), level=level), data)
    return None if found is None else found.field


def judged(data: bytes, folder: Path) -> list[str]:
    path = folder / "file"
    path.write_bytes(data)
    complaints = lief_judge(data) + elftools_judge(data)
    return complaints + (readelf_judge(path) if shutil.which("readelf") else [])


def symbols(target: Target, *records: bytes, **fields: int) -> tuple[Part, Part]:
    """A symbol table (section 1) and its strings (section 2)."""
    content = bytes(target.sym_size) + b"".join(records)
    kind = fields.pop("kind", SYMTAB)
    info = fields.pop("info", 1)
    return (
        Part(b".symtab", kind, content, 2, info, entsize=target.sym_size, align=target.word),
        Part(b".strtab", STRTAB, b"\0name\0"),
    )


@by_target
def test_a_file_with_symbols_and_relocations_replays_and_passes(target: Target, tmp_path: Path) -> None:
    records = [symbol(target, 1, 0x12, 1, BASE), symbol(target, 0, 0x10), symbol(target, 1, 0xA1, 0xFFF1)]
    table = symbols(target, *records)
    rela = Part(b".rela", RELA, relocation(target, 1, 2) if target is not AARCH64 else relocation(target, 257, 2),
                1, entsize=target.rela_size)  # fmt: skip
    data = sectioned_elf(target, *table, rela)
    assert refused(target, data) is None
    assert judged(data, tmp_path) == []


@by_target
def test_symbols_that_tools_reject_are_refused(target: Target) -> None:
    bad = {
        "type": symbol(target, 0, 0x17),
        "binding": symbol(target, 0, 0x30),
        "visibility": symbol(target, 0, 0x10, other=0x40),
        "section": symbol(target, 0, 0x10, shndx=77),
        "name": symbol(target, 6, 0x10),
    }
    for what, record in bad.items():
        field = refused(target, sectioned_elf(target, *symbols(target, record)))
        assert field is not None, what
        assert field.endswith((".sh_size", ".sh_link")), what
    late = sectioned_elf(target, *symbols(target, symbol(target, 0, 0x10), symbol(target, 0, 0), info=2))
    assert refused(target, late) == "shdr[1].sh_size"
    assert (
        refused(target, sectioned_elf(target, *symbols(target, symbol(target, 0, 0x10), info=2)))
        == "shdr[1].sh_info"
    )


def test_variant_calls_are_a_matter_of_aarch64() -> None:
    variant = symbol(X86_64, 0, 0x12, other=0x80)
    assert refused(AARCH64, sectioned_elf(AARCH64, *symbols(AARCH64, variant))) is None
    assert refused(X86_64, sectioned_elf(X86_64, *symbols(X86_64, variant))) == "shdr[1].sh_size"


@by_target
@pytest.mark.parametrize("rela", [True, False])
def test_every_relocation_type_is_one_that_readelf_knows(target: Target, rela: bool, tmp_path: Path) -> None:
    types = [kind for low, high in RELOCATION_TYPES[target.name] for kind in range(low, high + 1)]
    content = b"".join(relocation(target, kind, rela=rela) for kind in types)
    size = target.rela_size if rela else target.rel_size
    part = Part(b".rel", RELA if rela else REL, content, entsize=size)
    data = sectioned_elf(target, part)
    assert refused(target, data) is None
    assert judged(data, tmp_path) == []
    unknown = part._replace(content=content + relocation(target, max(types) + 1, rela=rela))
    assert refused(target, sectioned_elf(target, unknown)) == "shdr[1].sh_size"


@by_target
def test_a_second_table_of_dynamic_strings_is_refused(target: Target, tmp_path: Path) -> None:
    strings = Part(b".dynstr", STRTAB, b"\0")
    assert refused(target, sectioned_elf(target, strings)) is None
    twice = sectioned_elf(target, strings, strings)
    assert refused(target, twice) is not None
    if shutil.which("readelf"):
        assert judged(twice, tmp_path) != []


def test_what_is_named_stab_holds_whole_records(tmp_path: Path) -> None:
    assert refused(X86_64, sectioned_elf(X86_64, Part(b".stab", PROGBITS, bytes(24)))) is None
    assert refused(X86_64, sectioned_elf(X86_64, Part(b".stab", PROGBITS, bytes(25)))) is not None


def test_compressed_sections_hold_a_stream_of_the_promised_size(tmp_path: Path) -> None:
    stream = zlib.compress(b"text " * 100)
    for target, head in (
        (X86_64, struct.pack("<IIQQ", 1, 0, 500, 1)),
        (I386, struct.pack("<III", 1, 500, 1)),
    ):
        good = sectioned_elf(target, Part(b".debug_str", PROGBITS, head + stream, flags=0x800))
        assert refused(target, good) is None
        assert judged(good, tmp_path) == []
        for content in (
            head + stream[:-1],
            head + stream[:9] + stream[8:],
            head[:4] + b"\1" + head[5:] + stream,
        ):
            broken = sectioned_elf(target, Part(b".debug_str", PROGBITS, content, flags=0x800))
            assert refused(target, broken) is not None


@by_target
def test_known_notes_replay_and_broken_ones_are_refused(target: Target, tmp_path: Path) -> None:
    word = target.word
    probe = bytes(3 * word) + b"provider\0name\0\0"
    good = [
        note(b"GNU\0", 3, bytes(20)),
        note(b"GNU\0", 1, bytes(16)),
        note(b"stapsdt\0", 3, probe),
        note(b"FDO\0", 0xCAFE1A7E, b"{}"),
        note(b"Go\0\0", 4, b"id"),
        note(b"mine\0", 9, b"any"),
    ]
    data = sectioned_elf(target, Part(b".note", NOTE, b"".join(good), align=4))
    assert refused(target, data) is None
    assert judged(data, tmp_path) == []
    for bad in (
        note(b"GNU\0", 1, bytes(12)),
        note(b"stapsdt\0", 3, probe[:-1]),
        note(b"FDO\0", 7, b"{}"),
        note(b"mine", 9, b"any"),
        good[0][:-1],
    ):
        assert refused(target, sectioned_elf(target, Part(b".note", NOTE, bad, align=4))) is not None, bad


def test_build_attributes_are_those_of_annobin(tmp_path: Path) -> None:
    good = [
        note(b"GA$\x013p1113\0", 0x100, struct.pack("<QQ", BASE, BASE + 1)),
        note(b"GA*GOW\0\x45\x02\0", 0x100, b""),
        note(b"GA*\x02\3\0", 0x101, b""),
        note(b"GA+stack_clash\0", 0x100, b""),
        note(b"GA!\x08\0", 0x100, b""),
    ]
    data = sectioned_elf(X86_64, Part(b".gnu.build.attributes", NOTE, b"".join(good), align=4))
    assert refused(X86_64, data) is None
    assert judged(data, tmp_path) == []
    assert not name_fits(b"GA*\x02" + bytes(range(1, 10)) + b"\0", 0x100, 0, X86_64)
    assert not name_fits(b"GA*\x09\0", 0x100, 0, X86_64)
    assert not name_fits(b"GA*\x02\0", 0x100, 5, X86_64)


@by_target
def test_packed_relocations_begin_with_an_address(target: Target) -> None:
    word = target.word
    for first, field in ((BASE, None), (3, "shdr[1].sh_size")):
        content = first.to_bytes(word, "little") + (7).to_bytes(word, "little")
        part = Part(b".relr.dyn", RELR, content, entsize=word, align=word)
        assert refused(target, sectioned_elf(target, part)) == field


TEXTS = st.sampled_from([names.DYNSTR, names.DYNAMIC, names.STAB, b"\0", b".x\0", b"a"])
OFFSETS = st.lists(st.integers(0, 40), max_size=4).map(tuple)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(TEXTS, min_size=1, max_size=9).map(b"".join),
    OFFSETS,
    OFFSETS,
    OFFSETS,
    st.one_of(st.none(), st.integers(1, 30)),
    st.booleans(),
)
def test_places_of_a_written_name_table_are_those_that_fit(
    raw: bytes,
    plain: tuple[int, ...],
    strings: tuple[int, ...],
    ragged: tuple[int, ...],
    dynamic: int | None,
    wanted: bool,
) -> None:
    behind = Behind(raw)
    asks = names.Asked(dynamic, wanted and dynamic is None, plain, strings, ragged)
    good = [x for x in range(len(raw)) if not raw[x] and asks.fits(behind, x)]
    need = max(asks.least, 1)
    assert names.behind_starts(behind, asks, 1).tolist() == [x for x in good if x + need <= raw.rfind(0) + 1]
    longest = names.behind_longest(behind, asks)
    assert longest == max((raw.rfind(0) + 1 - x for x in good), default=0)


def test_functions_begin_where_the_hook_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """At level code the symbols of functions are held to it, and only those."""
    from bytegen.formats.core.ledger import Ledger
    from bytegen.formats.elf.contents.symbols import symbols_behind
    from bytegen.formats.elf.plan import Plan

    def odd(plan: Plan, addresses: np.ndarray, data: bytes | bytearray) -> np.ndarray:
        return addresses % np.uint64(2) == 1

    monkeypatch.setattr(tables.Hooks, "function_starts", staticmethod(odd))
    raw = (
        bytes(24)
        + symbol(X86_64, 0, 0x12, 1, 7)
        + symbol(X86_64, 0, 0x11, 1, 8)
        + symbol(X86_64, 0, 0x12, 1, 8)
    )
    for level, length in (("load", 4), ("code", 3)):
        plan = Plan(X86_64, 1000, level, True, Ledger(1000), 0, shnum=5, segments_read=True)
        assert symbols_behind(plan, Behind(raw), 0).length == length


@pytest.mark.parametrize("level", ["parse", "load"])
@by_target
def test_random_files_pass_every_reader(target: Target, level: str, tmp_path: Path) -> None:
    for seed in range(12):
        data = formats.sample(target.name, 500 + seed, 5_000, level)
        assert judged(data, tmp_path) == [], seed


# Up to the type of section 1, whose name the dynamic section has to take: no other header is free for it.
_LAST_FREE_NAME = (
    "c-pIX^>JflWMqH=W*`LdE;M`<H38BRP$?4z1qK!d4IpL$%Y%uF*9AaK4j}&UvX+Sr#1R0Q!NBkYgn?#&goL4(1u74>4Ju#92$pAJhsrYns"
    "U08;l2-t_fdPVH`uhYnbFu=NJV1FaAT7>-04$Sw<5Rr8=<8j0=x=;y*AI@uC};hg%q0Ds6y2Q6ywVE2;(R?LhS^=3QL`@_d0Y%`&gKzID*"
    "V)Xx@eXE9|paY%Dlwf%wz^)0mv@^(IPU}"
)


def test_the_dynamic_section_needs_no_room_for_another_name() -> None:
    raw = zlib.decompress(base64.b85decode(_LAST_FREE_NAME))
    constraint = formats.constraint("elf32-i386", max_bytes=444, level="code")
    assert constraint.advance_many(raw) == len(raw)
    assert constraint.field() == "shdr[1].sh_type"
    assert constraint.forced().startswith((6).to_bytes(4, "little"))
