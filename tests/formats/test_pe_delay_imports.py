"""Delayed imports of PE files: what is drawn is read back by every judge."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("lief")
pytest.importorskip("pefile")

from steered import steered

from bytegen import formats
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge

OTHERS = ("exports", "imports", "resources", "exceptions", "certificates", "relocs", "debug", "tls", "load_config",
          "iat", "clr")  # fmt: skip


def _drawn(format: str, level: str, seed: int) -> bytes:
    rng = random.Random(seed)
    wanted = {
        "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0, "optional.SectionAlignment": 4096,
        "optional.FileAlignment": 512, "optional.SizeOfImage": 0x2000, "optional.AddressOfEntryPoint": 0x1400,
        "optional.ImageBase": rng.choice((0x10000, 0x400000, 0x140000000)),
        "directory.delay_imports.address": rng.choice((0x1000, 0x1100)), "directory.delay_imports.size": 0x80,
        "section[0].VirtualSize": 0x800, "section[0].SizeOfRawData": rng.choice((0x200, 0x400, 0x800)),
        **{f"directory.{name}.address": 0 for name in OTHERS},
        "delay_imports[0].Attributes": 1, "delay_imports[1].Attributes": rng.randrange(2),
    }  # fmt: skip
    return steered(formats.constraint(format, max_bytes=4000, level=level), rng, wanted)


@pytest.mark.parametrize("format", ["pe32plus-x86_64", "pe32-i386", "pe32plus-aarch64"])
def test_drawn_delayed_imports_pass_the_judges(format: str) -> None:
    found = 0
    for seed in range(12):
        level = ("parse", "load")[seed % 2]
        data = _drawn(format, level, seed)
        raw = rawpe.read_raw_pe(data)
        assert lief_pe_judge(data) + pefile_judge(data) == [], seed
        c = formats.constraint(format, max_bytes=143_360, level=level)
        assert formats.replay(c, data) is None, seed
        for delayed in rawpe.read_delay_imports(raw):
            found += 1
            assert delayed.thunks
            assert len(rawpe.read_thunks(raw, delayed.fields[3])) == len(delayed.thunks), seed
    assert found > 6
