"""Templates against full compiles, and the files' layout."""

import random
import stat
import struct
import subprocess
import sys
from pathlib import Path

import lief
import pytest

from bytegen.errors import UserError
from bytegen.train.corpus import compile as compiling
from bytegen.train.corpus.compile import MOST_BYTES, assemble, full_compile, template
from bytegen.train.corpus.program import Program, all_programs, program_named

each_program = pytest.mark.parametrize("program", all_programs(), ids=lambda program: program.name)


@each_program
def test_template_and_block_equal_a_full_compile(program: Program, tmp_path: Path) -> None:
    rng = random.Random(program.name)
    compiled = template(program, tmp_path)
    params = program.draw(rng)
    assert assemble(compiled, program, params) == full_compile(program, params)
    assert template(program, tmp_path) == compiled


@each_program
def test_files_are_small_and_laid_out_as_promised(program: Program) -> None:
    rng = random.Random(program.name)
    compiled = template(program)
    data = assemble(compiled, program, program.draw(rng))
    assert len(data) == compiled.size <= MOST_BYTES
    entry, phoff, shoff = struct.unpack_from("<QQQ", data, 24)
    phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", data, 54)
    assert (entry, phoff, shoff) == (0x400078, 64, 0)
    assert (phentsize, phnum, shentsize, shnum, shstrndx) == (56, 1, 64, 0, 0)
    kind, flags, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, 64)
    assert (kind, flags, offset, vaddr, filesz, memsz) == (1, 5, 0, 0x400000, len(data), len(data))
    parsed = lief.ELF.parse(list(data))
    assert isinstance(parsed, lief.ELF.Binary)
    assert parsed.entrypoint == 0x400078
    assert lief.ELF.check_layout(parsed)[0]


def test_the_cache_is_used_and_told_apart_by_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_named("count_up")
    template(program, tmp_path)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(compiling, "_compile", lambda *_: pytest.fail("compiled again"))
    template(program, tmp_path)
    monkeypatch.setattr(compiling, "_compile", lambda *_: bytes(64))
    other = Program(**{**vars(program), "source": program.source + "\n/* another */"})
    template(other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert kept.is_file()


def test_a_program_that_does_not_compile_says_why(tmp_path: Path) -> None:
    program = program_named("count_up")
    broken = Program(**{**vars(program), "name": "broken", "source": "MAIN { nonsense(); }"})
    with pytest.raises(UserError, match=r"broken: cc failed[\s\S]*nonsense"):
        template(broken, tmp_path)
    writable = Program(
        **{**vars(program), "name": "writable", "source": "static volatile int n; MAIN { quit(n++); }"}
    )
    with pytest.raises(UserError, match=r"writable: ld\.lld failed[\s\S]*no writable data"):
        template(writable, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_compiler_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise compiling.PackageNotFoundError(name)

    monkeypatch.setattr(compiling, "version", missing)
    compiling.compiler_version.cache_clear()
    try:
        with pytest.raises(UserError, match=r"ziglang.*pip install"):
            template(program_named("count_up"), tmp_path)
    finally:
        compiling.compiler_version.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="runs Linux executables")
@each_program
def test_the_real_kernel_shows_the_oracles_behaviour(program: Program, tmp_path: Path) -> None:
    """Judges program and oracle without the sandbox: these files come from our own sources."""
    rng = random.Random(f"native {program.name}")
    compiled = template(program)
    for number in range(1 if program.kind == "animations" else 3):
        params = program.draw(rng)
        while (program.oracle(params, b"").slept_ns or 0) > 600_000_000:
            params = program.draw(rng)
        (stdin,) = program.stdins(rng, params, 1)
        path = tmp_path / f"{program.name}-{number}"
        path.write_bytes(assemble(compiled, program, params))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        expected = program.oracle(params, stdin)
        done = subprocess.run([path], input=stdin, capture_output=True, timeout=20)
        assert (done.stdout, done.returncode) == (expected.stdout, expected.exit_code), (params, stdin)
