"""Program headers of GNU properties that no longer lead to the note, as patchelf 0.14 leaves them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

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
