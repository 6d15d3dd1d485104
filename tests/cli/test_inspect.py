"""`bytegen inspect`: an account of any file, as a tree, as JSON, as a page that is safe, and as a picture."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.cli.main import cli
from bytegen.formats.annotate import Account, Area, Span, annotate
from bytegen.formats.annotate.account import KINDS
from bytegen.formats.annotate.colours import HEX, rgb
from bytegen.formats.annotate.page import page
from bytegen.formats.annotate.png import PANEL, picture
from bytegen.formats.annotate.reading import Reading, flatten
from bytegen.formats.annotate.tree import build, leaves

CODE = bytes.fromhex("31ffb83c0000000f05")
FORMAT = "elf64-x86_64"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def run(arguments: list[str]) -> Result:
    return CliRunner().invoke(cli, ["inspect", *arguments])


def small_elf(order: str = "<") -> bytes:
    size = 0x78 + len(CODE)
    ehdr = struct.pack(f"{order}HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    phdr = struct.pack(f"{order}II6Q", 1, 5, 0, 0x400000, 0x400000, size, size, 4096)
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01"
    return ident.ljust(16, b"\0") + ehdr + phdr + CODE


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good"
    path.write_bytes(small_elf())
    return path


def inspected(path: Path, *options: str) -> dict:
    result = run([str(path), "--json", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_every_byte_has_a_field_with_path_value_and_rule(good: Path) -> None:
    account = inspected(good)
    spans = account["spans"]
    assert [span["start"] for span in spans] == [0, *(span["end"] for span in spans[:-1])]
    assert spans[-1]["end"] == account["size"] == len(small_elf())
    assert all(span["source"] == "rules" and span["rule"] for span in spans)
    entry = next(span for span in spans if span["path"] == "ehdr.e_entry")
    assert (entry["start"], entry["value"]) == (24, 0x400078)
    assert account["refusal"] is None


def test_code_is_disassembled_and_ends_with_the_file(good: Path) -> None:
    code = inspected(good)["code"]
    assert [line["text"] for line in code] == ["xor edi, edi", "mov eax, 0x3c", "syscall"]
    assert code[-1]["offset"] + code[-1]["size"] == len(small_elf())


def test_forced_bytes_are_those_of_formats_forced_bytes(good: Path) -> None:
    account = inspected(good)
    flags = np.repeat(np.arange(len(account["forced"])) % 2 == 1, account["forced"])
    assert np.array_equal(flags, formats.forced_bytes(FORMAT, small_elf())[:-1])
    for span in account["spans"]:
        assert span["forced"] == flags[span["start"] : span["end"]].sum()


def test_a_refused_file_is_told_as_far_as_it_goes_and_read_on_tolerantly(good: Path) -> None:
    data = bytearray(small_elf())
    struct.pack_into("<Q", data, 64 + 32, 1 << 40)
    good.write_bytes(data)
    account = inspected(good)
    refusal = account["refusal"]
    assert (refusal["field"], bool(refusal["rule"])) == ("phdr[0].p_filesz", True)
    refused = next(span for span in account["spans"] if span["path"] == refusal["field"])
    assert refused["start"] == 96 <= refusal["offset"] < refused["end"] == 104
    assert refused["value"] == 1 << 40
    later = {span["path"]: span for span in account["spans"] if span["start"] >= 104}
    assert later["phdr[0].p_memsz"]["value"] == len(data)
    assert later["phdr[0].p_memsz"]["source"] == "reader"
    tree = run([str(good)]).output
    assert f"refused at byte {refusal['offset']}" in tree.splitlines()[1]


def test_big_endian_files_are_read_though_no_rules_are_kept_for_them(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(small_elf(">"))
    account = inspected(path)
    values = {span["path"]: span["value"] for span in account["spans"]}
    assert (values["ehdr.e_entry"], values["phdr[0].p_memsz"]) == (0x400078, len(small_elf()))
    assert "big-endian" in account["what"]
    assert account["format"] is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"Dear Sir,\n" * 90, "text"),
        (bytes(2000), "zeros"),
        (b"PK\x03\x04" + bytes(9), "ZIP archive"),
    ],
)
def test_files_that_are_no_executable_are_described_too(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    result = run([str(path)])
    assert result.exit_code == 0
    assert words in result.output
    assert run([str(path), "--html", str(path) + ".html", "--png", str(path) + ".png"]).exit_code == 0


@settings(max_examples=40, deadline=None)
@given(
    head=st.sampled_from([b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x02", b"MZ", small_elf()[:100]]),
    tail=st.binary(max_size=300),
)
def test_accounts_cover_any_bytes_without_gap_or_overlap(head: bytes, tail: bytes) -> None:
    data = head + tail
    account = annotate(data)
    for places in (account.areas, account.spans):
        edges = [0, *(place.end for place in places)]
        assert [place.start for place in places] == edges[:-1]
        assert edges[-1] == len(data)
    assert Account.from_lines(account.lines()) == account
    found = [(node.start, node.end) for node in leaves(build(account))]
    assert found == [(span.start, span.end) for span in account.spans], "the tree holds every span once"
    assert picture(account, data, "name").startswith(b"\x89PNG")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=12))
def test_of_areas_that_overlap_the_first_keeps_the_byte(places: list[tuple[int, int]]) -> None:
    reading = Reading(64)
    for number, (start, size) in enumerate(places):
        reading.area(start, size, str(number), "data", address=1000 + start)
    owners: list[str | None] = [None] * 64
    for number, (start, size) in reversed(list(enumerate(places))):
        owners[start : min(64, start + size)] = [str(number)] * (min(64, start + size) - start)
    areas = flatten(reading, bytes(64))
    for area in areas:
        assert set(owners[area.start : area.end]) == {None if area.kind == "padding" else area.name}
        assert area.address in (None, 1000 + area.start)
    assert [area.start for area in areas] == [0, *(area.end for area in areas[:-1])]
    assert areas[-1].end == 64


def test_long_tables_are_collapsed_unless_full_is_asked_for(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    source, path = tmp_path / "many.c", tmp_path / "many"
    source.write_text(
        "".join(f"int name_{i}(void) {{ return {i}; }}\n" for i in range(60)) + "void _start(void) {}\n"
    )
    flags = ["-nostdlib", "-static", "-ffreestanding", "-no-pie"]
    subprocess.run([compiler, *flags, "-o", path, source], check=True)
    short, full = run([str(path)]).output, run([str(path), "--full"]).output
    assert "more (--full shows them)" in short
    assert short.count("sym[") < 20 < 60 < full.count("sym[")
    assert "more (--full shows them)" not in full
    assert all(f"name_{i}" in full for i in range(60))
    assert " .text " in short
    assert " .symtab " in short


class Scripts(HTMLParser):
    """The elements of a page, and what each script holds."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "action")]
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.scripts:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def parsed(text: str) -> Scripts:
    parser = Scripts()
    parser.feed(text)
    return parser


def hostile_account() -> Account:
    account = annotate(small_elf())
    account.areas = [Area(0, account.size, HOSTILE, "code", HOSTILE)]
    account.spans = [Span(0, account.size, HOSTILE, None, HOSTILE, 0, "rules")]
    account.notes = [HOSTILE]
    return account


def test_names_in_a_file_cannot_become_markup() -> None:
    plain, hostile = (
        parsed(page(a, small_elf(), n))
        for a, n in ((annotate(small_elf()), "a"), (hostile_account(), HOSTILE))
    )
    assert plain.tags == hostile.tags, "no element more"
    block = json.loads(hostile.scripts[0][1])
    assert (block["name"], block["areas"][0][1], block["notes"]) == (HOSTILE, HOSTILE, [HOSTILE])


def test_a_page_is_self_contained_and_runs_its_own_script_only(good: Path) -> None:
    out = good.with_name("page.html")
    assert run([str(good), "--html", str(out)]).exit_code == 0
    text = out.read_text()
    found = parsed(text)
    assert not found.links
    assert not re.search(r"https?://", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert "innerHTML" not in found.scripts[1][1]
    block = json.loads(found.scripts[0][1])
    assert base64.b64decode(block["bytes"]) == small_elf()
    assert sum(block["spans"]["size"]) == sum(area[0] for area in block["areas"]) == len(small_elf())


def test_a_page_for_a_file_of_the_longest_length_stays_small() -> None:
    data = small_elf() + bytes(range(256)) * 560
    text = page(annotate(data), data, "long")
    assert len(text) < 4 * len(data) + 100_000
    assert len(parsed(text).tags) < 80, "no element for each byte"


def test_the_picture_has_the_colours_of_the_kinds(good: Path) -> None:
    from PIL import Image

    out = good.with_name("map.png")
    assert run([str(good), "--png", str(out)]).exit_code == 0
    with Image.open(io.BytesIO(out.read_bytes())) as image:
        assert image.width > 2 * PANEL, "kinds and choices side by side"
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert {rgb(HEX["header"]), rgb(HEX["code"])} <= colours


def test_every_kind_has_a_colour() -> None:
    assert set(HEX) == set(KINDS)
    assert len(set(HEX.values())) == len(KINDS)


def test_a_page_works_in_a_browser(good: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed")
    out = good.with_name("page.html")
    run([str(good), "--html", str(out)])
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, f"file://{out}"], capture_output=True, text=True, timeout=120, check=False
    )
    shown = done.stdout
    assert "ehdr.e_ident.magic" in shown.split('id="details"')[1].split("</dl>")[0]
    assert "ehdr.e_type" in shown.split('id="rows"')[1]


def test_missing_files_and_unknown_formats_are_bad_usage(good: Path) -> None:
    for arguments, words in (
        ([str(good) + "x"], "No such file"),
        ([str(good), "--format", "elf128"], FORMAT),
        ([str(good), "--level", "flies"], "load"),
    ):
        result = run(arguments)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert words in line


def test_hostile_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb"
    path.write_bytes(b"\x1b[31mred" * 60)
    assert "\x1b[2J" not in run([str(path)]).output
