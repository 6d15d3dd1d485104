"""What may come in a dynamic section is asked once while only plain entries come: the masks are as if always asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats.elf.dynamic import section

ELF = [name for name in formats.available() if name.startswith("elf")]


def masks(name: str, level: formats.Level, data: bytes, limit: int) -> list[bytes]:
    """The masks before every byte of the dynamic section."""
    constraint = formats.constraint(name, max_bytes=limit, level=level)
    whole = formats.constraint(name, max_bytes=limit, level=level)
    whole.advance_many(data)
    found = []
    for field in whole.fields():
        if not field.path.startswith("dynamic["):
            constraint.advance_many(data[field.start : field.end])
            continue
        for byte in data[field.start : field.end]:
            found.append(constraint.mask().tobytes())
            constraint.advance(byte)
    return found


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ELF), st.sampled_from(["parse", "load"]), st.integers(0, 1 << 32))
def test_masks_do_not_depend_on_what_is_remembered(name: str, level: Any, seed: int) -> None:
    data = formats.sample(name, seed, 4_000, level, "lively")
    remembered = masks(name, level, data, len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(section, "_possible", section._can_stand)
        assert masks(name, level, data, len(data)) == remembered
