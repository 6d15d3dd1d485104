"""The pyelftools judge: content with sound files, and says what is wrong with others."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from sectioned import Part, note, relocation, sectioned_elf, symbol

from bytegen.formats.elf.target import I386, TARGETS, X86_64, Target
from bytegen.formats.oracles import elftools_judge as module
from bytegen.formats.oracles.elftools_judge import elftools_judge
from bytegen.formats.oracles.rawtables import RawRelocation, RawSymbol

by_target = pytest.mark.parametrize("target", list(TARGETS.values()), ids=lambda target: target.name)


def full(target: Target) -> bytes:
    """A file with symbols, relocations and notes."""
    return sectioned_elf(
        target,
        Part(
            b".symtab",
            2,
            bytes(target.sym_size) + symbol(target, 1, 0x12, 1, 5),
            2,
            1,
            entsize=target.sym_size,
        ),
        Part(b".strtab", 3, b"\0name\0"),
        Part(b".rela", 4, relocation(target, 0, 1), 1, entsize=target.rela_size),
        Part(b".rel", 9, relocation(target, 0, 1, rela=False), 1, entsize=target.rel_size),
        Part(b".note", 7, note(b"GNU\0", 3, bytes(20)), align=4),
    )


@by_target
def test_a_sound_file_has_no_complaint(target: Target) -> None:
    assert elftools_judge(full(target)) == []


@by_target
def test_what_it_reads_is_compared_with_the_bytes(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    data = full(target)
    monkeypatch.setattr(module, "symbols_of", lambda *_: [RawSymbol(b"other", 0, 0, 0, 0, 0)])
    assert any("symbols" in line for line in elftools_judge(data))
    monkeypatch.setattr(module, "relocations_of", lambda *_: [RawRelocation(1, 2, 3, 4)])
    assert any("relocation 0" in line for line in elftools_judge(data))


def test_links_to_the_wrong_section_are_complaints() -> None:
    data = sectioned_elf(X86_64, Part(b".symtab", 2, bytes(24), 1, 1, entsize=24))
    assert any("expected SHT_STRTAB" in line for line in elftools_judge(data))


def test_a_note_that_runs_over_its_end_is_a_complaint() -> None:
    data = sectioned_elf(I386, Part(b".note", 7, struct.pack("<III", 4, 400, 3) + b"GNU\0", align=4))
    assert any("notes end" in line for line in elftools_judge(data))


def test_packed_relocations_without_an_address_are_a_complaint() -> None:
    data = sectioned_elf(X86_64, Part(b".relr", 19, (3).to_bytes(8, "little"), entsize=8))
    assert any("RELR" in line for line in elftools_judge(data))


@pytest.mark.parametrize("length", [0, 3, 20, 63, 100])
def test_truncated_files_give_a_complaint_and_no_exception(length: int) -> None:
    assert elftools_judge(full(X86_64)[:length]) != []


def test_programs_of_this_system_have_no_complaint() -> None:
    found = [path for path in map(Path, ("/bin/true", "/bin/ls", "/usr/bin/env")) if path.exists()]
    if not found:
        pytest.skip("none of the programs looked for is here")
    for path in found:
        data = path.read_bytes()
        if data[:4] == b"\x7fELF":
            assert elftools_judge(data) == [], path
