"""`bytegen corpus scan`: what it collects, how it measures a file, and the account it gives."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bytegen import formats
from bytegen.errors import UserError
from bytegen.formats.core import drive
from bytegen.train.corpus.cli import corpus
from bytegen.train.corpus.scan import measure as measuring
from bytegen.train.corpus.scan.collect import Found, collect
from bytegen.train.corpus.scan.measure import ANY_IMPORTS, Row, account, measure, measure_all

ELF = "elf64-x86_64"


def program(seed: int, format: str = ELF) -> bytes:
    return formats.sample(format, seed, 900)


def tarball(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("./usr/bin/link")
        link.type, link.linkname = tarfile.SYMTYPE, "tool"
        archive.addfile(link)
    return out.getvalue()


def debian(members: dict[str, bytes]) -> bytes:
    """A Debian package: an ar archive of a version, a control and a data archive."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tarball({"./control": b"Package: tool\nVersion: 1\n"}),
        "data.tar.xz": tarball(members, "w:xz"),
    }
    packed = b"!<arch>\n"
    for name, data in parts.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        packed += data + b"\n" * (len(data) % 2)
    return packed


def wheel(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs: a file, a copy of it and links, and one in each kind of package."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "one").write_bytes(program(0))
    (root / "bin" / "same").write_bytes(program(0))
    os.symlink("one", root / "bin" / "link")
    os.symlink("missing", root / "bin" / "broken")
    os.symlink(root, root / "bin" / "circle")
    (root / "bin" / "script").write_bytes(b"#!/bin/sh\n")
    (root / "bin" / "empty").write_bytes(b"")
    (root / "tool.deb").write_bytes(debian({"./usr/bin/tool": program(1), "./usr/share/doc": b"words"}))
    pe = formats.sample("pe32-i386", 2, 2_000)
    (root / "tool.whl").write_bytes(wheel({"tool/_tool.pyd": pe, "tool/x.py": b"pass", "e": b""}))
    (root / "tool.tar.gz").write_bytes(tarball({"tool-1/bin/tool": program(3)}))
    (root / "tool.zip").write_bytes(wheel({"bin/tool": program(4), "bin/same": program(1)}))
    (root / "bad.deb").write_bytes(b"!<arch>\nnothing")
    (root / "bad.zip").write_bytes(b"PK\x03\x04")
    (root / "bad.tar").write_bytes(b"\x7fELF")
    return root


def test_collect_opens_packages_and_gives_each_content_once(folder: Path) -> None:
    found = list(collect([folder, folder / "bin"]))
    paths = [Path(one.path).relative_to(folder).as_posix() for one in found]
    assert paths == [
        "tool.deb!/usr/bin/tool",
        "tool.tar.gz!/tool-1/bin/tool",
        "tool.whl!/tool/_tool.pyd",
        "tool.zip!/bin/tool",
        "bin/one",
    ]
    assert [one.data for one in found[:2]] == [program(1), program(3)]
    assert [one.data for one in found[3:]] == [program(4), program(0)]


def test_a_single_file_may_be_given(folder: Path) -> None:
    assert [one.data for one in collect([folder / "tool.deb"])] == [program(1)]


def test_a_package_that_is_cut_short_gives_what_it_can(folder: Path) -> None:
    whole = (folder / "tool.deb").read_bytes()
    for length in range(0, len(whole), 97):
        (folder / "tool.deb").write_bytes(whole[:length])
        assert len(list(collect([folder / "tool.deb"]))) <= 1


def test_measure_tells_what_replays_and_where_it_stops() -> None:
    good = program(5)
    row = measure(Found("good", good), judge=False)
    assert row.format == ELF
    assert row.refused["parse"] is None
    assert row.refused["load"] is None
    bad = bytearray(good)
    bad[20] = 9  # e_version
    row = measure(Found("bad", bytes(bad)), judge=False)
    assert row.refused["parse"] == "offset 0x14: ehdr.e_version: 1: the current version"
    assert row.rules["parse"] == "ehdr.e_version: #: the current version"
    assert set(row.seconds) == set(row.refused) == {"parse", "load", "code"}


def test_a_pe_file_is_held_to_load_a_second_time_whatever_it_imports() -> None:
    known = formats.sample("pe32-i386", 2, 2_000)
    row = measure(Found("known", known), judge=False)
    assert set(row.refused) == {"parse", "load", ANY_IMPORTS, "code"}
    assert row.refused[ANY_IMPORTS] is None
    c = formats.constraint("pe32plus-x86_64", max_bytes=3_000, imports="any")
    for i in range(300):  # most have no imports; names drawn are no DLL's
        fork = c.fork()
        drive.draw(fork, random.Random(i), "uniform")
        if formats.replay(formats.constraint("pe32plus-x86_64"), fork.data) is not None:
            break
    row = measure(Found("own", fork.data), judge=False)
    assert row.refused["load"] is not None
    assert row.refused[ANY_IMPORTS] is None
    row.judged = {"parse": [], "load": ["wine: no DLL own.dll"], ANY_IMPORTS: []}
    total = account([row])[0]["pe32plus-x86_64"]
    assert (total.accepted["load"], total.accepted[ANY_IMPORTS]) == (0, 1)
    assert total.replays_accepted[ANY_IMPORTS] == 1


def test_measure_passes_over_what_is_in_no_format_of_ours() -> None:
    object_file = bytearray(program(0))
    object_file[16] = 1
    big_endian = bytearray(program(0))
    big_endian[5] = 2
    for data, words in ((object_file, "relocatable object"), (big_endian, "big-endian"), (b"MZ", "MZ file")):
        row = measure(Found("file", bytes(data)))
        assert row.format is None
        assert words in row.what
        assert not row.refused


def test_a_file_that_ends_early_is_refused_not_a_crash() -> None:
    data = program(0)
    for length in range(20, 120, 9):
        row = measure(Found("short", data[:length]), judge=False)
        assert row.refused["parse"] is not None


def test_a_fault_of_the_engine_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*asked: object) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr("bytegen.train.corpus.scan.measure.replay_whole", fails)
    row = measure(Found("file", program(0)), judge=False)
    assert row.rules["parse"] == "the engine fails: IndexError"


def _dies(found: Found, *, judge: bool = True) -> Row:
    if found.path == "deadly":
        os._exit(1)
    return measure(found, judge=judge)


def test_a_file_that_kills_its_process_does_not_end_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "measure", _dies)
    files = [Found("first", program(0)), Found("deadly", program(1)), Found("last", program(3))]
    rows = list(measure_all(files, 1, judge=False))
    assert [row.path for row in rows] == ["first", "deadly", "last"]
    assert [row.format for row in rows] == [ELF, None, ELF]
    assert "kills" in rows[1].what


def test_the_account_marks_refusals_that_no_judge_shares() -> None:
    rows = [
        Row("a", 10, ELF, "", {"parse": None, "load": None}, {}, {"parse": [], "load": []}),
        Row("b", 10, ELF, "", {"parse": "offset", "load": "offset"}, {"parse": "r", "load": "r"},
            {"parse": ["lief: no"], "load": []}),
        Row("c", 10, ELF, "", {"parse": None, "load": "offset"}, {"load": "r"}, {"parse": [], "load": []}),
        Row("d", 10, ELF, "", {"parse": None, "load": None}, {}, {"parse": [], "load": ["kernel: EINVAL"]}),
        Row("e", 10, None, "script"),
    ]  # fmt: skip
    accounts, others = account(rows)
    total = accounts[ELF]
    assert (total.files, total.bytes) == (4, 40)
    assert total.replays == {"parse": 3, "load": 2}
    assert total.accepted == {"parse": 3, "load": 2}
    assert total.replays_accepted == {"parse": 3, "load": 1}
    assert total.rules == {
        ("parse", False, "r"): ["b"], ("load", False, "r"): ["b"], ("load", True, "r"): ["c"],
    }  # fmt: skip
    assert set(total.words.values()) == {"lief: no"}
    assert total.unsound == ["d: load: kernel: EINVAL"]
    assert others == {"script": 1}


def scan(*arguments: str | Path) -> Result:
    return CliRunner().invoke(corpus, ["scan", *map(str, arguments)])


def test_the_command_prints_rates_and_writes_rows(folder: Path, tmp_path: Path) -> None:
    bad = bytearray(program(0))
    bad[20] = 9
    (folder / "bin" / "bad").write_bytes(bytes(bad))
    rows, totals = tmp_path / "rows.jsonl", tmp_path / "totals.jsonl"
    done = scan(folder, "--jobs", "1", "--no-judges", "--rows", rows, "--json", totals)
    assert done.exit_code == 0, done.output
    assert "4/5 (80.0%)" in done.output
    assert "ehdr.e_version: #: the current version" in done.output
    assert "first: " in done.output
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(written) == 6
    totals_by_format = {row["format"]: row for row in map(json.loads, totals.read_text().splitlines())}
    assert totals_by_format[ELF]["files"] == 5
    assert totals_by_format[ELF]["replays"]["parse"] == 4


def test_most_stops_early(folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert scan(folder, "--jobs", "1", "--no-judges", "--most", "2", "--rows", rows).exit_code == 0
    assert len(rows.read_text().splitlines()) == 2


def test_a_scan_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    whole, rows = tmp_path / "whole.jsonl", tmp_path / "rows.jsonl"
    options = ("--jobs", "1", "--no-judges", "--rows")
    assert scan(folder, *options, whole).exit_code == 0
    assert scan(folder, *options, rows, "--most", "2").exit_code == 0
    kept = rows.read_text()
    rows.write_text(kept + '{"path": "cut sho')
    assert scan(folder, *options, rows, "--resume").exit_code == 0
    assert rows.read_text().startswith(kept)
    assert _paths(rows) == _paths(whole)


def _paths(rows: Path) -> list[tuple[str, dict[str, str | None]]]:
    found = map(json.loads, rows.read_text().splitlines())
    return [(row["path"], row["refused"]) for row in found]


def test_rows_are_on_disk_while_the_scan_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"

    def interrupted(*arguments: object, **options: object) -> Iterator[Row]:
        yield measure(Found("first", program(0)), judge=False)
        assert _paths(rows)[0][0] == "first"
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measure_all", interrupted)
    done = scan(folder, "--rows", rows)
    assert done.exit_code == 0, done.output
    assert "1/1 (100.0%)" in done.output
    assert len(_paths(rows)) == 1


def test_no_file_is_begun_when_the_time_is_over() -> None:
    files = [Found("first", program(0)), Found("last", program(3))]
    assert list(measure_all(files, 1, judge=False, seconds=0)) == []


def test_mistakes_of_a_user(tmp_path: Path) -> None:
    assert scan().exit_code == 2
    assert scan(tmp_path, "--jobs", "0").exit_code == 2
    for path, words in ((tmp_path / "missing", "no such file or folder"), (tmp_path, "no ELF or PE file in")):
        done = scan(path)
        assert isinstance(done.exception, UserError)
        assert words in str(done.exception)
        assert "\n" not in str(done.exception)
    (tmp_path / "file").write_bytes(program(0))
    (tmp_path / "notes").write_text("words\n")
    for options, words in (
        (["--resume"], "name it with --rows"),
        (["--resume", "--rows", tmp_path / "notes"], "line 1 is no row of a scan"),
        (["--rows", tmp_path / "missing" / "rows"], "cannot be written"),
    ):
        done = scan(tmp_path / "file", *options)
        assert isinstance(done.exception, UserError)
        assert words in str(done.exception)
    assert (tmp_path / "notes").read_text() == "words\n"
