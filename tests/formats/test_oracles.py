"""The judges accept what is sound and reject what is not: a judge that never says no would prove nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import BASE, CODE_OFFSET, creates_file, minimal_elf, patched
from oracles import exec_judge, lief_judge, readelf_judge, static_programs

from bytegen.formats.errors import FormatError
from bytegen.formats.oracles.disassembly import sweep_code
from bytegen.formats.oracles.kernel import kernel_accepts
from bytegen.formats.oracles.rawelf import read_raw_elf

linux = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and os.uname().machine == "x86_64"),
    reason="asks an x86-64 Linux kernel",
)
with_readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    wanted = ("gcc-static", "gcc-free", "gcc-free-stripped", "musl-gcc-static", "zig-cc-free")
    found = dict(static_programs(tmp_path_factory.mktemp("programs"), names=wanted))
    if not found:
        pytest.skip("no compiler here: gcc, musl-gcc and ziglang are all missing")
    return found


def test_lief_has_nothing_against_real_programs_and_the_smallest_one(programs: dict[str, bytes]) -> None:
    assert lief_judge(minimal_elf()) == []
    for name, data in programs.items():
        assert lief_judge(data) == [], name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"p_filesz": 100_000}, "beyond file size"),
        ({"p_memsz": 8}, "check_layout"),
        ({"p_align": 3}, "check_layout"),
        ({"e_phoff": 1 << 40}, "LIEF logged"),
        ({"e_shnum": 3, "e_shoff": 1 << 40, "e_shentsize": 64}, "read-back: ehdr.e_shnum"),
        ({"p_type": 0x7000_0001}, "LIEF logged"),
        ({"e_phnum": 0}, "check_layout"),
    ],
)
def test_lief_complains_of_a_broken_field(fields: dict[str, int], words: str) -> None:
    complaints = lief_judge(patched(minimal_elf(), **fields))
    assert any(words in complaint for complaint in complaints), complaints


def test_lief_judges_four_bytes_of_magic_as_broken() -> None:
    assert lief_judge(b"\x7fELF")
    assert lief_judge(b"")
    assert lief_judge(b"hello")


def test_lief_writes_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert lief_judge(patched(minimal_elf(), e_phoff=1 << 40))
    assert capfd.readouterr() == ("", "")


@with_readelf
def test_readelf_has_nothing_against_real_programs(programs: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in {**programs, "smallest": minimal_elf()}.items():
        (tmp_path / name).write_bytes(data)
        assert readelf_judge(tmp_path / name) == [], name


@with_readelf
@pytest.mark.parametrize(
    "fields",
    [{"e_phoff": 1 << 40}, {"e_shnum": 3, "e_shoff": 64, "e_shentsize": 9}, {"p_filesz": 100_000}],
)
def test_readelf_complains_of_a_broken_field(fields: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(patched(minimal_elf(), **fields))
    assert readelf_judge(tmp_path / "broken")


@with_readelf
def test_readelf_complaints_in_place_of_values_are_found(tmp_path: Path) -> None:
    # 0x0000000a is in no range that the gABI assigns; 0x6000_0001 is kept for operating systems.
    (tmp_path / "unassigned").write_bytes(patched(minimal_elf(), p_type=10))
    (tmp_path / "system").write_bytes(patched(minimal_elf(), p_type=0x6000_0001))
    assert readelf_judge(tmp_path / "unassigned")
    assert readelf_judge(tmp_path / "system") == []


@linux
def test_kernel_starts_real_programs_at_their_entry(programs: dict[str, bytes]) -> None:
    for name, data in {**programs, "smallest": minimal_elf()}.items():
        result = kernel_accepts(data)
        assert result.accepted, (name, result)
        assert result.entry in (None, read_raw_elf(data).ehdr["e_entry"])
        assert exec_judge(data) is None


@linux
@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"e_type": 1}, "ENOEXEC"),
        ({"e_machine": 8}, "ENOEXEC"),
        ({"e_phentsize": 32}, "ENOEXEC"),
        ({"e_phnum": 0}, "ENOEXEC"),
        ({"e_phoff": 1 << 20}, "ENOEXEC"),
        ({"p_memsz": 8}, "SIG"),
        ({"p_vaddr": 1 << 50}, "SIG"),
        ({"p_offset": 8}, "SIG"),
        ({"e_entry": 1 << 60}, "SIG"),
        ({"e_entry": BASE + 0x10_0000}, "not executable"),
        ({"p_flags": 4}, "not executable"),
    ],
)
def test_kernel_refuses_what_cannot_be_loaded(fields: dict[str, int], outcome: str) -> None:
    said = exec_judge(patched(minimal_elf(), **fields))
    assert said is not None
    assert outcome in said


@linux
def test_kernel_judge_takes_paths_and_text_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(minimal_elf())
    (tmp_path / "text").write_bytes(b"hello\n")
    assert kernel_accepts(tmp_path / "good").accepted
    assert kernel_accepts(str(tmp_path / "text")).outcome == "ENOEXEC"
    with pytest.raises(FileNotFoundError):
        kernel_accepts(tmp_path / "missing")


@linux
def test_kernel_judge_never_runs_the_program(tmp_path: Path) -> None:
    made, asked = tmp_path / "made-by-running", tmp_path / "made-by-asking"
    program = tmp_path / "program"
    program.write_bytes(creates_file(str(made)))
    program.chmod(0o700)
    subprocess.run([program], check=True, timeout=10)
    assert made.exists(), "the program does create its file when it is run"
    for _ in range(20):
        assert kernel_accepts(creates_file(str(asked))).accepted
    assert not asked.exists()


@linux
def test_kernel_judge_leaves_no_process_and_no_file_open() -> None:
    def children() -> str:
        return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))

    exec_judge(minimal_elf())
    before, before_children = os.listdir("/proc/self/fd"), children()
    for _ in range(50):
        exec_judge(minimal_elf())
        exec_judge(b"no program")
    assert os.listdir("/proc/self/fd") == before
    assert children() == before_children


def test_kernel_judge_says_where_it_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(FormatError, match="Linux only, this is darwin"):
        kernel_accepts(minimal_elf())


def test_sweep_counts_what_decodes_and_names_the_first_byte_that_does_not() -> None:
    good = sweep_code(minimal_elf())
    assert (good["decoded_share"], good["instructions"], good["first_undecodable"]) == (1.0, 3, None)
    nop, undefined = b"\x90", b"\x06"  # push es does not exist in 64-bit mode
    half = sweep_code(minimal_elf(nop * 4 + undefined * 4))
    assert (half["decoded"], half["swept"]) == (4, 8)
    assert half["first_undecodable"] == BASE + CODE_OFFSET + 4


def test_sweep_is_bounded_and_stays_inside_the_file() -> None:
    long = minimal_elf(b"\x90" * 1_000)
    assert sweep_code(long, sweep_bytes=100)["swept"] == 100
    assert sweep_code(patched(long, p_filesz=1 << 40))["swept"] == 1_000
    assert "swept" not in sweep_code(patched(long, e_entry=1))


@pytest.mark.slow
def test_every_recipe_of_a_compiler_here_gives_an_elf_file(tmp_path: Path) -> None:
    made = dict(static_programs(tmp_path, quick=True))
    if not made:
        pytest.skip("no compiler here: gcc, musl-gcc and ziglang are all missing")
    assert all(data[:4] == b"\x7fELF" for data in made.values())
    assert len(set(made.values())) > len(made) // 2
