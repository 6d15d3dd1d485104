"""Program headers of GNU properties that no longer lead to the note, as patchelf 0.14 leaves them."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from steered import steered

from bytegen import formats
from bytegen.formats.oracles import panel

_PT_LOAD, _PT_GNU_PROPERTY = 1, 0x6474E553


def _with_stale_header(data: bytes) -> bytes:
    """The file with its header of properties at the program headers themselves."""
    (phoff,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    places = [phoff + 56 * i for i in range(count)]
    types = {at: struct.unpack_from("<I", data, at)[0] for at in places}
    first = next(at for at in places if types[at] == _PT_LOAD)
    offset, address = struct.unpack_from("<QQ", data, first + 8)
    stale = bytearray(data)
    for at in places:
        if types[at] == _PT_GNU_PROPERTY:
            struct.pack_into("<QQQ", stale, at + 8, phoff, address + phoff - offset, address + phoff - offset)
    return bytes(stale)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("options", [["-no-pie"], ["-pie", "-fPIE"], ["-static"]])
def test_on_x86_any_mapped_bytes_will_do(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "program"
    (tmp_path / "main.c").write_text("int main(void) { return 0; }")
    done = subprocess.run(
        ["gcc", "-m64", "-O1", *options, "-o", path, tmp_path / "main.c"], capture_output=True
    )
    if done.returncode or struct.pack("<I", _PT_GNU_PROPERTY) not in path.read_bytes()[:1024]:
        pytest.skip("gcc makes no such program here, or none with properties")
    data = _with_stale_header(path.read_bytes())
    path.write_bytes(data)
    assert panel.complaints(path, "elf64-x86_64", "load") == []
    for level in ("load", "parse"):
        assert (
            formats.replay(formats.constraint("elf64-x86_64", max_bytes=len(data), level=level), data) is None
        )


@pytest.mark.parametrize(("format", "size", "head"), [("elf32-i386", 32, 0x34), ("elf64-x86_64", 28, 0x40)])
def test_a_note_of_another_kind_is_no_note_of_properties(format: str, size: int, head: int) -> None:
    """A header of properties at a note that is promised already, of a size that no properties have."""
    wanted = {
        "e_type": 2, "e_phoff": head, "e_shoff": 0, "e_phnum": 7, "e_entry": 0,
        "p_offset": 0x400, "p_vaddr": 0x9000400, "p_filesz": size, "phdr[0].p_type": 4,
        "phdr[1].p_type": 1, "phdr[1].p_offset": 0x300, "phdr[1].p_vaddr": 0x8048300, "phdr[1].p_filesz": 0x300,
        "phdr[1].p_memsz": 0x300, "phdr[1].p_flags": 4, "phdr[1].p_align": 0x1000, "phdr[2].p_type": 0x6474E553,
    }  # fmt: skip
    met = 0
    for seed in range(20):
        data = steered(formats.constraint(format, max_bytes=4096, level="load"), random.Random(seed), wanted)
        assert formats.replay(formats.constraint(format, max_bytes=4096, level="load"), data) is None
        met += data[head + (2 * 32 if size == 32 else 2 * 56) :].startswith(
            (0x6474E553).to_bytes(4, "little")
        )
    assert met
