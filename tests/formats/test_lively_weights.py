"""Weights for lively files: learnt from files, kept through JSON, and never outside the format."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from bytegen import formats
from bytegen.formats.weights import draw_lively, load_weights
from bytegen.formats.weights.learn import learn
from bytegen.formats.weights.table import Values, family

FORMAT = "elf64-x86_64"


@pytest.mark.parametrize("format", formats.available())
def test_packaged_weights_know_the_headers(format: str) -> None:
    weights = load_weights(format)
    assert weights.format == format
    assert len(weights.fields) > 30
    for values in weights.fields.values():
        assert len(values.values) == len(values.counts) > 0
        assert max(values.values) < 1 << 8 * values.size
    assert abs(sum(weights.content("").bytes) - 1) < 1e-6


@pytest.mark.parametrize("format", formats.available())
def test_lively_files_replay_and_repeat(format: str) -> None:
    for seed in range(4):
        data = formats.sample(format, seed, 6_000, "load", "lively")
        assert data == formats.sample(format, seed, 6_000, "load", "lively")
        assert formats.replay(formats.constraint(format, max_bytes=6_000), data) is None


def test_next_bytes_follow_the_prefix() -> None:
    values = Values(2, (0x0102, 0x0302, 0x0405), (5.0, 1.0, 2.0))
    first = values.next_bytes(0, 0)
    assert first is not None
    assert first[2] == 6.0
    assert first[5] == 2.0
    second = values.next_bytes(1, 2)
    assert second is not None
    assert second[1] == 5.0
    assert second[3] == 1.0
    assert values.next_bytes(1, 9) is None


def test_what_is_learnt_is_what_the_files_hold() -> None:
    files = [formats.sample(FORMAT, seed, 3_000) for seed in range(12)]
    weights, count = learn(FORMAT, [*files, b"no ELF file"])
    assert count == len(files)
    met = {struct_value(data) for data in files}
    assert set(weights.fields["ehdr.e_type"].values) == met
    again = json.loads(weights.to_json({"learnt from": "a test"}))
    assert again["fields"]["ehdr.e_machine"] == [2, [[62, 12000.0]]]


def struct_value(data: bytes) -> int:
    return int.from_bytes(data[16:18], "little")


def test_lively_files_look_more_like_real_ones() -> None:
    """A field that real files fill with one of a few values holds one of them more often than not."""
    known = set(load_weights(FORMAT).fields["phdr[#].p_align"].values)
    shares = []
    for pick in ("uniform", "lively"):
        hits = total = 0
        for seed in range(25):
            data = formats.sample(FORMAT, seed, 4_000, "load", pick)  # type: ignore[arg-type]
            c = formats.constraint(FORMAT, max_bytes=4_000)
            formats.replay(c, data)
            found = [f.value for f in c.fields() if family(f.path) == "phdr[#].p_align"]
            hits += sum(value in known for value in found)
            total += len(found)
        shares.append(hits / total)
    assert shares[1] > shares[0] + 0.2


def test_a_draw_without_packaged_weights_is_still_a_file() -> None:
    weights = load_weights("no such format")
    c = formats.constraint(FORMAT, max_bytes=2_000)
    draw_lively(c, random.Random(0), weights)
    assert c.done
    assert np.isclose(weights.content("x").bytes.sum(), 1)
