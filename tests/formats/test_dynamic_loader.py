"""The dynamic loader as a judge: what it takes, what it refuses, and that nothing of a file runs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from bytegen.formats.oracles.dynamic_loader import loader_lists, loader_of, loader_verifies

FORMAT = "elf64-x86_64"
pytestmark = pytest.mark.skipif(loader_of(FORMAT) is None, reason="no glibc loader for x86-64 here")
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ = 0, 1, 5, 10


def program(entries: list[tuple[int, int]], strings: bytes) -> bytes:
    """A position-independent program of one segment; DT_STRTAB's value is filled in."""
    headers = 2
    start = 64 + 56 * headers
    place = start + 16 * len(entries)
    total = place + len(strings)
    entries = [(tag, place if tag == DT_STRTAB else value) for tag, value in entries]
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 64, 64, 0, 0, 64, 56, headers, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, 0, 0, total, total, 4096)
    size = 16 * len(entries)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, start, start, start, size, size, 8)
    return head + load + dynamic + b"".join(struct.pack("<QQ", *entry) for entry in entries) + strings


def needing(name: bytes) -> bytes:
    strings = b"\0" + name + b"\0"
    return program([(DT_NEEDED, 1), (DT_STRTAB, 0), (DT_STRSZ, len(strings)), (DT_NULL, 0)], strings)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "program"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def test_a_program_that_needs_the_c_library_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, needing(b"libc.so.6"))
    verified, listed = loader_verifies(path, FORMAT), loader_lists(path, FORMAT)
    assert verified is not None
    assert verified.accepted
    assert listed is not None
    assert listed.accepted
    assert not listed.missing


def test_a_library_that_is_not_installed_is_named_and_no_fault_of_the_file(tmp_path: Path) -> None:
    listed = loader_lists(write(tmp_path, needing(b"libnowhere.so.9")), FORMAT)
    assert listed is not None
    assert listed.accepted
    assert listed.missing == ("libnowhere.so.9",)


@pytest.mark.parametrize("name", [b".", b"/", b"/etc/passwd"])
def test_a_needed_file_that_is_no_library_is_refused(tmp_path: Path, name: bytes) -> None:
    listed = loader_lists(write(tmp_path, needing(name)), FORMAT)
    assert listed is not None
    assert not listed.accepted
    assert name.decode() in listed.outcome


def test_a_dynamic_section_without_strings_kills_the_loader_and_is_refused(tmp_path: Path) -> None:
    listed = loader_lists(write(tmp_path, program([(DT_NULL, 0)], b"")), FORMAT)
    assert listed is not None
    assert not listed.accepted
    assert "signal" in listed.outcome


@pytest.mark.parametrize("data", [b"", b"no program\n", b"\x7fELF"])
def test_what_is_no_program_is_refused(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    verified, listed = loader_verifies(path, FORMAT), loader_lists(path, FORMAT)
    assert verified is not None
    assert not verified.accepted
    assert listed is not None
    assert not listed.accepted


def test_a_format_that_no_loader_reads_gives_no_answer(tmp_path: Path) -> None:
    assert loader_verifies(write(tmp_path, b""), "pe32-i386") is None


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_constructors_do_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = tmp_path / "trace.c"
    source.write_text(
        "#include <stdio.h>\n"
        f'__attribute__((constructor)) static void run(void) {{ fclose(fopen("{trace}", "w")); }}\n'
        "int main(void) { return 0; }\n"
    )
    made = tmp_path / "made"
    subprocess.run(["gcc", "-o", made, source], check=True)
    for ask in (loader_verifies, loader_lists):
        found = ask(made, FORMAT)
        assert found is not None
        assert found.accepted
    assert not trace.exists()
    subprocess.run([made], check=True)
    assert trace.exists()
