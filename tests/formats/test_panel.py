"""The panel of judges: content with files of the formats, and each judge able to refuse."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bytegen import formats
from bytegen.formats.oracles import panel
from bytegen.formats.oracles.kernel import runs_here
from bytegen.formats.oracles.qemu import qemu_accepts, qemu_command

FORMATS = formats.available()


def written(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_judges_take_random_files_of_every_level(format: str, tmp_path: Path) -> None:
    for level in formats.levels(format):
        for seed, pick in enumerate(("uniform", "lively", "lowest", "highest")):
            data = formats.sample(format, seed, 5_000, level, pick)  # type: ignore[arg-type]
            path = written(tmp_path, data, "file.exe" if format.startswith("pe") else "file")
            assert panel.complaints(path, format, level) == [], (level, seed, pick)


@pytest.mark.parametrize("format", [name for name in FORMATS if name.startswith("elf")])
def test_every_elf_judge_can_refuse(format: str, tmp_path: Path) -> None:
    bits = 32 if format.startswith("elf32") else 64
    data = next(
        data
        for data in (formats.sample(format, seed, 3_000, "load", "lively") for seed in range(400))
        if any(data[24 : 24 + bits // 8]) and struct.unpack_from("<H", data, 60 if bits == 64 else 48)[0] > 2
    )
    good = bytearray(data)
    for judge in panel.judges(format, "load"):
        if judge.absent is not None or judge.name == "ld.so":
            continue
        bad = bytearray(good)
        if judge.level == "load":
            bad[18] ^= 0x41  # another machine
        elif judge.name == "pyelftools":
            bad[58 if bits == 64 else 46] = 7  # no size of a section header
        else:
            at = 40 if bits == 64 else 32
            bad[at : at + bits // 8] = (len(bad) - 8).to_bytes(bits // 8, "little")
        assert judge.ask(written(tmp_path, bytes(bad))) != [], judge.name


@pytest.mark.parametrize("format", [name for name in FORMATS if name.startswith("pe")])
def test_every_pe_judge_can_refuse(format: str, tmp_path: Path) -> None:
    data = bytearray(formats.sample(format, 1, 5_000, "load", "uniform"))
    header = struct.unpack_from("<I", data, 60)[0]
    data[header + 24 + 56 : header + 24 + 60] = (7).to_bytes(4, "little")  # SizeOfImage
    for judge in panel.judges(format, "load"):
        if judge.absent is None and judge.name != "pefile":
            assert judge.ask(written(tmp_path, bytes(data), "file.exe")) != [], judge.name
    data[header] = 0
    pefile = next(judge for judge in panel.judges(format, "parse") if judge.name == "pefile")
    if pefile.absent is None:
        assert pefile.ask(written(tmp_path, bytes(data), "file.exe")) != []


def test_levels_below_load_ask_no_loader() -> None:
    for format in FORMATS:
        assert {judge.level for judge in panel.judges(format, "parse")} == {"parse"}
        assert len(panel.judges(format, "load")) > len(panel.judges(format, "parse"))


def test_the_kernel_here_starts_no_pe_file() -> None:
    assert not runs_here("pe32-i386")
    assert not runs_here("no such format")


@pytest.mark.parametrize("format", ["elf64-aarch64", "elf32-i386"])
def test_qemu_maps_a_file_and_refuses_a_broken_one(format: str) -> None:
    if qemu_command(format) is None:
        pytest.skip("QEMU's user-mode emulators are not installed")
    data = next(
        data for data in (formats.sample(format, seed, 2_000) for seed in range(60)) if data[16] == 2
    )  # ET_EXEC: needs no interpreter
    assert qemu_accepts(data, format).accepted
    broken = bytearray(data)
    broken[18] ^= 0x41
    assert not qemu_accepts(bytes(broken), format).accepted
