"""ELF: random files inside the masks pass every judge; compilers' files replay without a refusal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from handmade import minimal_elf
from oracles import exec_judge, lief_judge, readelf_judge

from bytegen import formats
from bytegen.formats.oracles.compilers import AARCH64, I386, X86_64, Recipe, compiled_programs
from bytegen.formats.oracles.rawelf import read_raw_elf

FORMAT = "elf64-x86_64"
FORMATS = (X86_64, I386, AARCH64)
on_linux = sys.platform.startswith("linux") and os.uname().machine == "x86_64"
# These linker modes leave the program headers outside every segment: the kernel takes such a file, LIEF's
# check_layout does not, and the format holds to both.
OUTSIDE = {"gcc-free-omagic", "gcc-free-nmagic"}
# A segment of zero-filled memory alone may have an offset beyond the file's end, of which check_layout warns.
BEYOND = {"gcc-aarch64-free"}


def judge(data: bytes, path: Path, level: str) -> list[str]:
    complaints = lief_judge(data)
    path.write_bytes(data)
    path.chmod(0o755)
    if shutil.which("readelf"):
        complaints += readelf_judge(path)
    if level == "load" and on_linux:
        refused = exec_judge(path)
        complaints += [f"kernel: {refused}"] if refused else []
    return complaints


@pytest.mark.parametrize("level", ["parse", "load"])
@pytest.mark.parametrize("pick", ["uniform", "lowest", "highest"])
def test_random_files_pass_every_judge(level: str, pick: str, tmp_path: Path) -> None:
    count = 80 if pick == "uniform" else 15
    for seed in range(count):
        data = formats.sample(FORMAT, seed, 6_000, level, pick)  # type: ignore[arg-type]
        assert judge(data, tmp_path / "file", level) == [], (seed, len(data))


@pytest.mark.full
@pytest.mark.parametrize("level", ["parse", "load"])
def test_ten_thousand_random_files_pass_every_judge(level: str, tmp_path: Path) -> None:
    for seed in range(5_000):
        pick = ("uniform", "uniform", "uniform", "lowest", "highest")[seed % 5]
        data = formats.sample(FORMAT, 10_000 + seed, 143_360, level, pick)  # type: ignore[arg-type]
        assert judge(data, tmp_path / "file", level) == [], (seed, len(data))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Recipe, bytes]]:
    """The quick recipes for the three machines, by name."""
    folder = tmp_path_factory.mktemp("programs")
    made = (made for format in FORMATS for made in compiled_programs(folder, format=format, quick=True))
    found = {recipe.name: (recipe, data) for recipe, data in made}
    if not found:
        pytest.skip("no compiler here: gcc, musl-gcc and ziglang are all missing")
    return found


@pytest.fixture(scope="module")
def programs(compiled: dict[str, tuple[Recipe, bytes]]) -> dict[str, bytes]:
    return {name: data for name, (recipe, data) in compiled.items() if recipe.format == FORMAT}


@pytest.mark.parametrize("level", ["parse", "load"])
def test_compiled_programs_replay(compiled: dict[str, tuple[Recipe, bytes]], level: str) -> None:
    for name, (recipe, data) in compiled.items():
        c = formats.constraint(recipe.format, max_bytes=max(len(data), 143_360), level=level)
        exact = formats.constraint(recipe.format, max_bytes=len(data), level=level)
        refused, again = formats.replay(c, data), formats.replay(exact, data)
        if name in OUTSIDE or (name in BEYOND and lief_judge(data)):
            for refusal in (refused, again):
                assert refusal is not None or name in BEYOND, name
            assert any("not wrapped" in line or "beyond file size" in line for line in lief_judge(data)), name
        else:
            assert refused is None, (name, refused)
            assert again is None, (name, again)


def test_compiled_programs_replay_at_code(compiled: dict[str, tuple[Recipe, bytes]]) -> None:
    """Those do not whose executable segment holds the headers and tables too, and those that no level takes."""
    replayed = 0
    for name, (recipe, data) in compiled.items():
        if name in OUTSIDE | BEYOND or len(data) > 300_000:
            continue
        constraint = formats.constraint(recipe.format, max_bytes=len(data), level="code")
        refused = formats.replay(constraint, data)
        loads = [phdr for phdr in read_raw_elf(data).phdrs if phdr["p_type"] == 1 and phdr["p_flags"] & 1]
        replayed += refused is None
        assert refused is None or loads[0]["p_offset"] == 0, (name, refused)
    assert replayed


def test_byte_by_byte_replay_of_a_compiled_program(programs: dict[str, bytes]) -> None:
    name, data = min(programs.items(), key=lambda item: len(item[1]))
    c = formats.constraint(FORMAT)
    for byte in data:
        assert c.mask()[byte], (name, c.refusal())
        c.advance(byte)
    assert c.mask()[formats.END]
    assert formats.forced_bytes(FORMAT, data).sum() > 100


def test_small_programs_without_sections_replay() -> None:
    for size in (9, 100, 200, 400, 4000):
        data = minimal_elf(bytes(range(256)) * 20)[: 120 + size]
        data = minimal_elf(data[120:])
        assert formats.replay(formats.constraint(FORMAT), data) is None
        assert formats.replay(formats.constraint(FORMAT, max_bytes=len(data)), data) is None


def test_a_truncated_program_is_refused_at_its_end_or_before() -> None:
    data = minimal_elf()
    for length in range(len(data)):
        c = formats.constraint(FORMAT)
        refused = formats.replay(c, data[:length])
        assert refused is not None
        assert refused.offset == length


def test_tables_may_lie_anywhere_and_their_contents_too() -> None:
    """Some files have section headers before, some after, the contents they describe."""
    before = after = promised = 0
    for seed in range(60):
        data = formats.sample(FORMAT, seed, 9_000)
        c = formats.constraint(FORMAT, max_bytes=9_000)
        assert formats.replay(c, data) is None
        paths = [field.path for field in c.fields()]
        promised += any(".sym[" in path or ".rela[" in path or ".note[" in path for path in paths)
        tables = [path.split("[")[0] for path in paths if path.startswith(("shdr[1]", "phdr[0]"))]
        if "shdr" in tables:
            before += tables.index("shdr") < tables.index("phdr")
            after += tables.index("shdr") > tables.index("phdr")
    assert before
    assert after
    assert promised
