"""Permissions of PT_LOADs at level load: what loaders write to is writable, what they read is readable."""

from __future__ import annotations

import pytest

from bytegen import formats
from bytegen.formats.oracles.rawelf import read_raw_elf

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_TLS, ET_DYN = 1, 2, 3, 7, 3
READ, WRITE = 4, 2


@pytest.mark.parametrize("format", ["elf64-x86_64", "elf32-i386", "elf64-aarch64"])
def test_permissions_are_those_that_loaders_need(format: str) -> None:
    zeros = dynamic = 0
    for seed in range(60):
        raw = read_raw_elf(formats.sample(format, seed, 3000, "load"))
        loads = [phdr for phdr in raw.phdrs if phdr["p_type"] == PT_LOAD]
        read = raw.ehdr["e_type"] == ET_DYN or any(
            phdr["p_type"] in (PT_DYNAMIC, PT_INTERP) for phdr in raw.phdrs
        )
        for load in loads:
            assert load["p_flags"] & READ or not read
            if load["p_memsz"] > load["p_filesz"]:
                assert load["p_flags"] & WRITE
                zeros += 1
        for phdr in raw.phdrs:
            if phdr["p_type"] == PT_DYNAMIC:
                low = phdr["p_vaddr"]
                holds = [x for x in loads if x["p_vaddr"] <= low < x["p_vaddr"] + x["p_filesz"]]
                assert any(load["p_flags"] & WRITE for load in holds)
                dynamic += 1
            if phdr["p_type"] == PT_TLS:
                assert phdr["p_align"] or not phdr["p_memsz"]
    assert zeros
    assert dynamic
