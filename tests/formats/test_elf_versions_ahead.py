"""Files whose dynamic section comes before its tables of symbol versions, as patchelf leaves programs that stay put."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relinked import MACHINES, dynamic_of, needs_gcc, relinked

from bytegen import formats
from bytegen.formats.core.constraint import END, Constraint
from bytegen.formats.oracles import panel

_LINKED = {
    "plain": (),
    "exporting": ("-rdynamic",),
    "sysv": ("-Wl,--hash-style=sysv", "-rdynamic"),
    "both": ("-Wl,--hash-style=both", "-rdynamic"),
    "defining": ("-rdynamic", "-Wl,--version-script=add.map"),
}
# Which output sections come first, in this order; the rest of the read-only ones follow.
_ORDERS = {
    "behind its strings": (".hash", ".gnu.hash", ".dynsym", ".dynstr", ".dynamic"),
    "first": (".dynamic", ".dynstr", ".dynsym", ".hash", ".gnu.hash"),
    "indices last": (
        ".hash", ".gnu.hash", ".dynsym", ".dynstr", ".dynamic", ".gnu.version_r", ".gnu.version_d", ".gnu.version",
    ),
    "needs, indices, definitions": (
        ".dynamic", ".dynstr", ".gnu.version_r", ".gnu.version", ".gnu.version_d", ".dynsym", ".hash", ".gnu.hash",
    ),
    "indices, definitions, symbols": (
        ".dynstr", ".dynamic", ".gnu.version", ".gnu.version_d", ".gnu.version_r", ".dynsym", ".hash", ".gnu.hash",
    ),
}  # fmt: skip
_VERSIONS = {0x6FFFFFF0: 3, 0x6FFFFFFC: 2, 0x6FFFFFFE: 5}  # tags, and how often each is tried
_TAGS = {1: 3, 5: 6, 10: 6, 6: 6, 11: 3, 0x6FFFFEF5: 1, 4: 1, 23: 1, 7: 1, 12: 1, **_VERSIONS}

Linked = Callable[[str, str, str], bytes]


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    """The program of a machine, linked in one of the ways with its sections in one of the orders."""

    @cache
    def program(target: str, how: str, order: str) -> bytes:
        return relinked(tmp_path_factory.mktemp("linked"), target, _LINKED[how], _ORDERS[order])

    return program


@needs_gcc
@pytest.mark.parametrize("order", _ORDERS)
@pytest.mark.parametrize("how", _LINKED)
@pytest.mark.parametrize("target", MACHINES)
def test_programs_with_their_version_tables_ahead_replay(
    linked: Linked, target: str, how: str, order: str
) -> None:
    if how == "plain" and order not in ("behind its strings", "first", "indices last"):
        pytest.skip("no hash table says how many symbols there are, nor does their header come first")
    data = linked(target, how, order)
    for level in ("load", "parse", "code") if order == "first" else ("load",):
        assert formats.replay(formats.constraint(target, max_bytes=len(data), level=level), data) is None


@needs_gcc
@pytest.mark.parametrize("order", ["behind its strings", "first", "indices, definitions, symbols"])
@pytest.mark.parametrize("target", MACHINES)
def test_the_mask_of_every_prefix_of_the_tables_holds_the_byte_that_follows(
    linked: Linked, target: str, order: str
) -> None:
    data = linked(target, "defining", order)
    start = dynamic_of(data)[0]
    c = formats.constraint(target, max_bytes=len(data), level="load")
    c.advance_many(data[:start])
    for i in range(start, start + 0x800):
        assert c.mask()[data[i]], f"offset {i:#x}: {c.field()}"
        c.advance(data[i])


def _drawn(c: Constraint, data: bytes, rng: random.Random) -> tuple[bytes, set[str]]:
    """What follows the prefix in ``c``, and the version tables ahead that it has: tags mostly those of tables, other
    fields real, zero, small, or any."""
    field, start, value, met = "", 0, -1, set[str]()
    end = c.position + rng.choice((8, 12, 20)) * (16 if data[4] == 2 else 8)
    likely, weights = [rng.choice((0, 0.2, 0.5)) for _ in range(3)], list(_TAGS.values())
    while not c.done:
        mask, name = c.mask(), c.field()
        assert mask.any(), f"a dead end at {c.position:#x}: {name}"
        if name != field:
            field, start, value = name, c.position, -1
            met.add(name.partition("[")[0])
            wanted = list(_TAGS)
            if name.endswith(".d_tag"):
                value = rng.choices(wanted, weights)[0] if start < end else 0
            elif rng.random() < likely[0]:
                value = 0
            elif rng.random() < likely[1]:
                value = rng.randrange(8)
            elif rng.random() < likely[2] and start + 8 <= len(data):
                value = int.from_bytes(data[start : start + 8], "little")
        byte = value >> 8 * (c.position - start) & 0xFF if 0 <= c.position - start < 8 else -1
        if value < 0 or byte < 0 or not mask[byte]:
            allowed = mask.nonzero()[0]
            byte = END if mask[END] and rng.random() < 0.2 else int(allowed[rng.randrange(len(allowed))])
        c.advance(byte)
    return c.data, met & {"versym", "verneed", "verdef"}


@needs_gcc
@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(list(MACHINES)), st.sampled_from(list(_ORDERS)), st.sampled_from(("load", "code")),
    st.integers(0, 1 << 30),
)  # fmt: skip
def test_files_drawn_from_their_dynamic_section_on_pass_every_judge(
    linked: Linked, tmp_path_factory: pytest.TempPathFactory, target: str, order: str, level: str, seed: int
) -> None:
    real = linked(target, "defining", order)
    c = formats.constraint(target, max_bytes=len(real) + 64, level=level)
    c.advance_many(real[: dynamic_of(real)[0]])
    data, _ = _drawn(c, real, random.Random(seed))
    path = tmp_path_factory.mktemp("drawn") / "file"
    path.write_bytes(data)
    path.chmod(0o755)
    assert panel.complaints(path, target, level) == []
    assert formats.replay(formats.constraint(target, max_bytes=len(real) + 64, level=level), data) is None
