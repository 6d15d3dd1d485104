"""`bytegen run`: output, exit codes, and one line for everything that goes wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_programs import EXIT, can_run_native, code, program

ECHO = program(
    code("4881ec00010000 31ff 4889e6 ba00010000 31c0 0f05 89c2 bf01000000 b801000000 0f05 89c7") + EXIT
)


def bytegen_run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from bytegen.cli.main import main; main()", "run", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


@pytest.fixture
def save(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(data: bytes, name: str = "prog") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_program_reads_stdin_and_its_exit_code_is_ours(save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = save(ECHO)
    done = bytegen_run(path, stdin=b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"hello", b"")
    (tmp_path / "input").write_bytes(b"from a file")
    done = bytegen_run(path, "--stdin-file", tmp_path / "input")
    assert (done.returncode, done.stdout) == (11, b"from a file")


def test_fault_and_limit_are_one_line_and_a_shells_exit_code(save) -> None:  # type: ignore[no-untyped-def]
    done = bytegen_run(save(program(code("0f0b"))))
    assert done.returncode == 128 + 4
    assert done.stderr == b"prog: SIGILL: invalid instruction at 0x400078: ud2 [0f 0b]\n"
    done = bytegen_run(save(program(code("ebfe"))), "--max-instructions", "1000")
    assert done.returncode == 124
    assert done.stderr == b"prog: stopped by the limit on instructions\n"


@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF", ECHO[:100]])
def test_file_that_is_no_program_is_one_line_and_2(save, data: bytes) -> None:  # type: ignore[no-untyped-def]
    done = bytegen_run(save(data))
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"prog: " in done.stderr


def test_json_holds_the_whole_result(save) -> None:  # type: ignore[no-untyped-def]
    done = bytegen_run(save(ECHO), "--json", stdin=b"ab\xff")
    result = json.loads(done.stdout)
    assert done.returncode == result["exit_code"] == 3
    assert result["stdout"] == "ab\\xff"
    assert [call["name"] for call in result["syscalls"]] == ["read", "write", "exit"]
    assert result["instructions"] == 13


def test_native_runs_in_bubblewrap_or_says_what_to_install(save) -> None:  # type: ignore[no-untyped-def]
    done = bytegen_run(save(ECHO), "--native", stdin=b"hey")  # it echoes, and exits with the number of bytes
    if can_run_native() and shutil.which("bwrap") and done.returncode != 2:
        assert (done.returncode, done.stdout) == (3, b"hey")
    else:
        assert done.returncode == 2
        assert b"bubblewrap" in done.stderr or b"--native" in done.stderr
        assert done.stderr.count(b"\n") == 1
