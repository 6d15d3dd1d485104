"""`bytegen check`: exit codes, one line a file, JSON, and clear words for files that are none."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bytegen.cli.main import cli

CODE = bytes.fromhex("31ffb83c0000000f05")


def run(arguments: list[str]) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    size = 0x78 + len(CODE)
    ehdr = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    phdr = struct.pack("<II6Q", 1, 5, 0, 0x400000, 0x400000, size, size, 4096)
    path = tmp_path / "good"
    path.write_bytes(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + ehdr + phdr + CODE)
    return path


@pytest.fixture
def cut(good: Path) -> Path:
    path = good.with_name("cut")
    path.write_bytes(good.read_bytes()[:100])
    return path


def test_files_that_pass_give_a_line_each_and_exit_code_0(good: Path) -> None:
    result = run([str(good), str(good)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ok") and str(good) in line for line in lines)


def test_a_file_that_fails_gives_its_problems_and_exit_code_1(good: Path, cut: Path) -> None:
    result = run([str(cut), str(good)])
    assert result.exit_code == 1
    first, *rest = result.output.splitlines()
    assert first.startswith("not ok")
    assert rest[0].startswith("  rules: byte ")
    assert rest[-1].startswith("ok"), "the files after it are checked too"


def test_a_file_that_is_no_executable_is_named_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("Dear Sir")
    result = run([str(path)])
    assert result.exit_code == 1
    assert "44 65 61 72 20 53 69 72" in result.output
    assert "elf64-x86_64" in result.output


def test_json_is_one_object_a_line(good: Path, cut: Path) -> None:
    result = run(["--json", str(good), str(cut)])
    assert result.exit_code == 1
    first, second = map(json.loads, result.output.splitlines())
    assert (first["file"], first["ok"], first["problems"]) == (str(good), True, [])
    assert second["ok"] is False
    assert {"judge", "message", "offset", "field"} == set(second["problems"][0])


def test_level_and_format_are_passed_on(good: Path) -> None:
    result = run(["--json", "--format", "elf64-x86_64", "--level", "parse", str(good)])
    assert json.loads(result.output)["level"] == "parse"


@pytest.mark.parametrize(
    ("options", "listed"), [(["--level", "flies"], "load"), (["--format", "elf128"], "elf64-x86_64")]
)
def test_unknown_names_are_bad_usage_and_those_there_are_get_listed(
    good: Path, options: list[str], listed: str
) -> None:
    result = run([*options, str(good)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert listed in line


def test_no_files_is_bad_usage() -> None:
    assert run([]).exit_code == 2


def test_missing_files_folders_and_pipes_are_bad_usage_said_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        result = run([str(path)])
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert words in line
        assert str(path) in line


def test_names_of_files_cannot_command_the_terminal(good: Path) -> None:
    hostile = good.with_name("a\x1b[2Jb")
    hostile.write_bytes(good.read_bytes())
    result = run([str(hostile)])
    assert result.exit_code == 0
    assert "\x1b" not in result.output


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program for Windows, and the DLL that comes along with it."""
    pytest.importorskip("ziglang")
    folder = tmp_path_factory.mktemp("pair")
    (folder / "own.c").write_text(
        "__declspec(dllexport) int first(void) { return 3; }\n"
        "int DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }\n"
    )
    (folder / "program.c").write_text(
        "__declspec(dllimport) int first(void);\nint mainCRTStartup(void) { return first(); }\n"
    )
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu", "-nostdlib", "-s"]
    program = ["-Wl,--entry=mainCRTStartup", "program.c", "own.lib", "-o", "program.exe"]
    for options in (["-shared", "own.c", "-o", "own.dll"], program):
        subprocess.run([*compiler, *options], cwd=folder, check=True, capture_output=True)
    return folder / "program.exe", folder / "own.dll"


def test_a_dll_that_comes_along_is_named_by_its_file(pair: tuple[Path, Path]) -> None:
    program, library = map(str, pair)
    assert run([program]).exit_code == 1
    assert "imports[" in run(["--imports", "known", program]).output
    for options in (["--imports", "any"], ["--imports", library]):
        result = run([*options, program])
        assert result.exit_code == 0, result.output
    assert run(["--level", "parse", program]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--imports", "any", "--imports", "known"], "stands alone"),
        (["--imports", "nobody.dll"], "nobody.dll: No such file"),
        (["--imports", __file__], "no PE file"),
    ],
)
def test_what_imports_cannot_be_is_said_in_one_line(good: Path, options: list[str], words: str) -> None:
    result = run([*options, str(good)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert words in line
