"""PE headers and sections: exact sets against exhaustive search, random files against judges, compilers' files."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats.core.pieces import Piece
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.pe import spec
from bytegen.formats.pe.layout import Layout, Range, up, with_need
from bytegen.formats.pe.sets import Decimal, NotBeginning, Slot

FORMATS = ("pe32plus-x86_64", "pe32-i386", "pe32plus-aarch64")
PLUS, SMALL = FORMATS[:2]

# Sections against exhaustive search


def possible(layout: Layout) -> bool:
    """Whether some choice of section ends holds every need: the rules, tried one by one."""

    def search(low: int, start: int, slots: int, needs: tuple[Range, ...]) -> bool:
        if not slots:
            return low == layout.top and not needs
        for end in range(low + layout.page, layout.top + 1, layout.page):
            mine = [need for need in needs if need[0] < end]
            if any(need[1] > end or need[0] < low for need in mine):
                continue
            kept = max((need[1] - low for need in mine), default=0)
            if kept and start + kept > layout.limit:
                continue
            after = up(start + kept, layout.block) if kept else start
            if search(end, after, slots - 1, tuple(need for need in needs if need[0] >= end)):
                return True
        return False

    return search(layout.low, layout.start, layout.slots, layout.needs)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    page, block = draw(st.sampled_from([(8, 4), (8, 8), (8, 2), (16, 4)]))
    low, pages = page * draw(st.integers(1, 2)), draw(st.integers(1, 6))
    top, start = low + page * pages, block * draw(st.integers(1, 4))
    slots, limit = draw(st.integers(1, pages)), start + draw(st.integers(0, page * pages))
    layout = Layout(page, block, start, low, top, slots, limit, ())
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(low, top - 1))
        need = (begin, min(top, begin + draw(st.integers(1, page + 3))))
        if layout.fits(*need):
            layout = layout.replaced(needs=with_need(layout.needs, need))
    return layout


@settings(max_examples=150, deadline=None)
@given(layouts(), st.integers(0, 120), st.integers(1, 24))
def test_a_need_fits_where_some_sections_hold_it(layout: Layout, start: int, size: int) -> None:
    assert layout.feasible()
    assert possible(layout)
    start = layout.low + start % (layout.top - layout.low)
    more = layout.replaced(needs=with_need(layout.needs, (start, start + size)))
    assert layout.fits(start, start + size) == possible(more)


@settings(max_examples=150, deadline=None)
@given(layouts(), st.sampled_from([1, 3, 8]), st.sampled_from([1, 2]))
def test_places_are_exactly_where_a_need_fits(layout: Layout, size: int, align: int) -> None:
    around = range(layout.low - layout.page, layout.top + layout.page)
    slots = layout.places(size, align)
    found = {x for x in around if any(slot.contains(x) for slot in slots)}
    assert found == {x for x in around if x % align == 0 and layout.fits(x, x + size)}


@settings(max_examples=100, deadline=None)
@given(layouts())
def test_virtual_sizes_leave_the_later_sections_possible(layout: Layout) -> None:
    spans, wanted = layout.virtual_sizes(), set()
    for size in range(1, layout.top - layout.low + 1):
        rest, kept = layout.after(size), layout.need(size)
        if kept > size or (kept and layout.start + kept > layout.limit):
            continue
        if any(start < rest.low < end for start, end in layout.needs):
            continue
        rest.start = up(layout.start + kept, layout.block) if kept else layout.start
        if possible(rest):
            wanted.add(size)
    assert {x for x in range(layout.top) if any(span.contains(x) for span in spans)} == wanted


# The sets that only PE files need, against their definition


def agrees(piece: Piece, size: int, members: set[int]) -> None:
    """A piece of ``size`` bytes has exactly these members: every question it answers, for every prefix."""
    import numpy as np

    for k in range(size):
        unit = 1 << 8 * k
        for prefix in {x % unit for x in members} | {0, unit - 1}:
            out = np.zeros(257, dtype=bool)
            piece.mark(k, prefix, out)
            want = {(x >> 8 * k) & 255 for x in members if x % unit == prefix}
            assert {int(byte) for byte in out.nonzero()[0]} == want
            assert piece.has(k, prefix) == bool(want)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3000), st.integers(0, 3000), st.sampled_from([16, 64, 512]), st.data(), st.integers(0, 4)
)
def test_slots_are_what_they_say(lo: int, hi: int, period: int, data: st.DataObject, shift: int) -> None:
    first = data.draw(st.integers(0, period - 1))
    last, align = data.draw(st.integers(0, period - 1)), 1 << shift
    slot = Slot(lo, hi, period, first, last, align)
    members = {x for x in range(lo, hi + 1) if first <= x % period <= last and x % align == 0}
    assert {x for x in range(4096) if slot.contains(x)} == members
    assert slot.bounds() == ((min(members), max(members)) if members else None)
    agrees(slot, 2, members)


@pytest.mark.parametrize("patterns", [(b"R",), (b"ab",), (b"b", b"Ri"), (b"R", b"Ri")])
def test_integers_that_do_not_begin_with_a_pattern(patterns: tuple[bytes, ...]) -> None:
    members = {x for x in range(1 << 16) if not x.to_bytes(2, "little").startswith(patterns)}
    agrees(NotBeginning(2, *patterns), 2, members)


@pytest.mark.parametrize(("lo", "hi"), [(4, 3), (4, 9), (0, 12), (4, 105), (37, 2000)])
def test_decimal_numbers(lo: int, hi: int) -> None:
    piece = Decimal(3, lo, hi)
    members = {int.from_bytes(str(x).encode().ljust(3, b"\0"), "little") for x in range(lo, min(hi, 999) + 1)}
    agrees(piece, 3, members)
    assert all(piece.contains(x) for x in members)


# Whole files


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No directories: headers and sections alone, many more of them in the same time."""
    monkeypatch.setattr(spec, "_directories", {})


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("level", ["parse", "load"])
def test_random_headers_pass_every_judge(format: str, level: str) -> None:
    for seed in range(10):
        pick = ("uniform", "uniform", "uniform", "lowest", "highest")[seed % 5]
        data = formats.sample(format, seed, 12_000, level, pick)  # type: ignore[arg-type]
        assert lief_pe_judge(data) + pefile_judge(data) == [], (seed, pick, len(data))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("format", FORMATS)
def test_the_smallest_file_is_as_small_as_it_says(format: str) -> None:
    least = formats.least_bytes(format)
    with pytest.raises(formats.FormatError, match=f"has {least} bytes"):
        formats.constraint(format, max_bytes=least - 1)
    for pick in ("lowest", "highest", "uniform"):
        data = formats.sample(format, 0, least, "load", pick)  # type: ignore[arg-type]
        assert len(data) == least
        assert lief_pe_judge(data) + pefile_judge(data) == []


def image(
    sections: list[tuple[bytes, int, int]],
    *,
    plus: bool = True,
    stub: bytes = b"",
    entry: int = 0x1000,
    symbols: bytes | None = None,
    count: int = 0,
    **fields: int,
) -> bytes:
    """A PE file made by hand: sections as (name, VirtualSize, size of raw data), and fields that differ."""
    lfanew = 64 + len(stub)
    size = 240 if plus else 224
    headers = up(lfanew + 24 + size + 40 * len(sections), 512)
    table, address, offset = b"", 0x1000, headers
    for i, (name, virtual, raw) in enumerate(sections):
        flags = 0x60000020 if i == 0 else 0xC0000040
        table += struct.pack("<8s6IHHI", name, virtual, address, raw, offset if raw else 0, 0, 0, 0, 0, flags)
        address, offset = address + up(virtual, 0x1000), up(offset + raw, 512)
    where = offset if symbols is not None else 0
    characteristics = fields.get("characteristics", 0x22)
    dos = b"MZ" + bytes(58) + struct.pack("<I", lfanew) + stub
    coff = struct.pack(
        "<4sHHIIIHH", b"PE", 0x8664 if plus else 0x14C, len(sections), 0, where, count, size, characteristics
    )
    base = fields.get("base", 0x140000000 if plus else 0x400000)
    optional = struct.pack("<HBB5I", 0x20B if plus else 0x10B, 2, 40, 0, 0, 0, entry, 0x1000)
    optional += struct.pack("<Q", base) if plus else struct.pack("<II", 0, base)
    optional += struct.pack("<II6HI", 4096, fields.get("block", 512), 6, 0, 0, 0, 6, 0, 0)
    optional += struct.pack(
        "<IIIHH", fields.get("top", address), headers, 0, fields.get("subsystem", 3), 0x140
    )
    optional += struct.pack("<4Q" if plus else "<4I", 1 << 20, 4096, 1 << 20, 4096)
    optional += struct.pack("<II", 0, 16) + bytes(128)
    data = (dos + coff + optional + table).ljust(headers, b"\0")
    for _, _, raw in sections:
        if raw:
            data = data.ljust(up(len(data), 512), b"\0") + b"\x90" * raw
    return data if symbols is None else data.ljust(where, b"\0") + symbols


def refusal(data: bytes, level: str = "load", format: str = PLUS) -> str | None:
    """Where a file leaves the format, with no more room than it needs."""
    found = formats.replay(formats.constraint(format, max_bytes=max(len(data), 513), level=level), data)
    return None if found is None else found.field


TEXT, DATA = (b".text", 5000, 5120), (b".data", 700, 512)


@pytest.mark.parametrize("plus", [True, False])
def test_a_file_made_by_hand_replays_and_is_good(plus: bool) -> None:
    data = image([TEXT, DATA], plus=plus)
    assert lief_pe_judge(data) + pefile_judge(data) == []
    assert refusal(data, format=PLUS if plus else SMALL) is None
    assert refusal(data, format=SMALL if plus else PLUS) == "coff.Machine"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("optional.AddressOfEntryPoint", {"entry": 0x800}),
        ("optional.AddressOfEntryPoint", {"entry": 0}),
        ("section[0].VirtualSize", {"entry": 0x5000, "top": 0x6000}),
        ("optional.ImageBase", {"base": 0x140000001}),
        ("optional.ImageBase", {"base": 0}),
        ("optional.FileAlignment", {"block": 256}),
        ("optional.SizeOfImage", {"top": 0x2000}),
        ("section[1].VirtualSize", {"top": 0x5000}),
        ("optional.Subsystem", {"subsystem": 4}),
        ("coff.Characteristics", {"characteristics": 0x20}),
    ],
)
def test_a_wrong_field_is_named(field: str, changes: dict[str, int]) -> None:
    data = image([TEXT, DATA], **changes)  # type: ignore[arg-type]
    if field == "optional.ImageBase" and not changes["base"]:
        field = "optional.Subsystem"  # 0 is for EFI
    assert refusal(data) == field


def test_an_efi_application_may_have_base_0_and_a_library_no_entry() -> None:
    assert refusal(image([TEXT, DATA], base=0, subsystem=10)) is None
    assert refusal(image([DATA], entry=0, characteristics=0x2022)) is None


def rich(key: bytes, pairs: bytes = bytes(range(16))) -> bytes:
    """A stub with a Rich header: 64 bytes, then the header at 0x80."""
    head = bytes(a ^ b for a, b in zip(b"DanS", key, strict=True)) + 3 * key
    return bytes(64) + head + pairs + b"Rich" + key


def test_rich_headers_are_read_and_false_ones_refused() -> None:
    key = b"\x12\x34\x56\x78"
    for good in (rich(key), rich(key) + bytes(16), rich(key) + b"Rich", rich(bytes(4))):
        data = image([TEXT], stub=good)
        assert refusal(data) is None
        assert lief_pe_judge(data) + pefile_judge(data) == []
    false = (
        b"Rich" + bytes(4),
        bytes(3) + b"Rich" + bytes(9),
        bytes(64) + b"Rich" + bytes(4),
        bytes(60) + b"Rich",
    )
    for bad in (*false, rich(key)[:-4], rich(key)[:-1] + b"\0", rich(key, bytes(4)) + bytes(4)):
        assert refusal(image([TEXT], stub=bad)) in ("dos.stub", "dos.rich.key")


def test_symbols_and_long_section_names() -> None:
    strings = struct.pack("<I", 20) + b"a.long.name.ab\0\0"
    symbol = struct.pack("<8sIhHBB", b"main", 0, 1, 0x20, 2, 0)
    named = struct.pack("<IIIhHBB", 0, 4, 0, -1, 0, 3, 1) + bytes(18)
    sections = [TEXT, (b"/4", 10, 512)]
    data = image(sections, symbols=symbol + named + strings, count=3)
    assert lief_pe_judge(data) + pefile_judge(data) == []
    assert refusal(data) is None
    assert refusal(image(sections)) == "section[1].Name"
    assert refusal(image([TEXT, (b"/x", 10, 512)], symbols=strings)) == "section[1].Name"
    assert refusal(image([TEXT, (b"/19", 10, 512)], symbols=strings)) is None
    assert refusal(image([TEXT, (b"/20", 10, 512)], symbols=strings)) == "section[1].Name"
    assert refusal(image(sections, symbols=symbol[:-1] + b"\1" + strings, count=1)) == (
        "coff.symbol[0].NumberOfAuxSymbols"
    )
    assert refusal(
        image(sections, symbols=struct.pack("<IIIhHBB", 0, 30, 0, 1, 0, 3, 0) + strings, count=1)
    ) == ("coff.symbol[0].Name")
    assert refusal(image([TEXT, DATA], symbols=struct.pack("<I", 30))) == "coff.strings.size"


def test_a_truncated_file_is_refused_at_its_end_or_before() -> None:
    data = image([TEXT, DATA])
    for length in (*range(0, 700, 7), *range(700, len(data), 501)):
        found = formats.replay(formats.constraint(PLUS), data[:length])
        assert found is not None
        assert found.offset == length


def test_byte_by_byte_as_in_whole_fields() -> None:
    data = image([TEXT, (b".bss", 9000, 0), DATA], stub=rich(b"abcd"))
    c = formats.constraint(PLUS, max_bytes=len(data))
    for byte in data:
        assert c.mask()[byte], c.refusal()
        c.advance(byte)
    assert c.mask()[formats.END]


@pytest.mark.parametrize("compiler", ["x86_64-w64-mingw32-gcc", "i686-w64-mingw32-gcc"])
def test_linkers_choices_replay(compiler: str, tmp_path: Path) -> None:
    """Files without a library: alignments, subsystems, symbols, bases; none has a directory but what ld adds."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    source = tmp_path / "free.c"
    source.write_text("int zero[100]; int data[9] = {1}; int entry(void) { return data[zero[3]]; }\n")
    format = PLUS if compiler.startswith("x86") else SMALL
    entry = "-Wl,-eentry" if format == PLUS else "-Wl,-e_entry"
    for name, options in {
        "plain": [],
        "stripped": ["-s"],
        "pages": ["-Wl,--section-alignment,65536"],
        "blocks": ["-Wl,--file-alignment,4096"],
        "efi": ["-Wl,--subsystem,10"],
        "native": ["-Wl,--subsystem,native"],
        "base": ["-Wl,--image-base,0x10000000"],
        "library": ["-shared"],
    }.items():
        program = tmp_path / f"{name}.exe"
        command = [compiler, "-nostdlib", "-O1", entry, *options, "-o", str(program), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        data = program.read_bytes()
        for level in ("parse", "load"):
            assert refusal(data, level, format) is None, (name, level)


def test_random_limits_never_end_in_a_dead_end() -> None:
    rng = random.Random(5)
    for seed in range(40):
        format, level = rng.choice(FORMATS), rng.choice(("parse", "load"))
        limit = rng.randrange(formats.least_bytes(format), 3_000)
        c = formats.constraint(format, max_bytes=limit, level=level)
        data = formats.sample(format, seed, limit, level)
        assert formats.replay(c, data) is None
