"""Compiles a program once; a sample is that template with its parameter block filled in."""

import hashlib
import os
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bytegen.errors import UserError
from bytegen.files import write_atomically
from bytegen.train.corpus.program import Params, Program

FORMAT = "elf64-x86_64"
HEADERS = 120
"""Bytes before the code: the ELF header (64) and one program header (56)."""
BASE = 0x400000
MOST_BYTES = 400
"""A program's file is at most this long: the model pays for every byte."""

_FLAGS = """
    -target x86_64-freestanding -Oz -std=c11 -Wall -Wextra -Werror -fno-pic -fno-pie -mcmodel=small
    -mno-red-zone -mno-sse -mno-mmx -fomit-frame-pointer -fno-stack-protector
    -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-builtin -fno-sanitize=all -fno-ident
    -fno-jump-tables -falign-functions=1
"""
FLAGS = tuple(_FLAGS.split())
"""No red zone: the runtime's helpers are called from inline assembly. No SSE: stores stay small."""


@dataclass(frozen=True)
class Template:
    """A compiled program: all of its file but the parameter block, and where it came from."""

    name: str
    head: bytes
    block: int
    compiler: str
    source_sha256: str

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.head) + self.block


@lru_cache(maxsize=1)
def compiler_version() -> str:
    """The compiler's name and version. Raises UserError when it is not installed."""
    try:
        return f"ziglang {version('ziglang')}"
    except PackageNotFoundError:
        raise UserError(
            "building the corpus needs the C compiler of the package ziglang: pip install 'bytegen[train]'"
        ) from None


def source_of(program: Program) -> str:
    """The whole C source of `program`, but for the runtime header."""
    return f'#include "runtime.h"\n{program.source.strip()}\n'


def source_sha256(program: Program) -> str:
    """Hash of all that decides the machine code: source, block, runtime, linker script and flags."""
    parts = [source_of(program), str(program.block), _runtime("runtime.h"), _runtime("link.ld"), *FLAGS]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def template(program: Program, cache: Path | None = None) -> Template:
    """The compiled `program`, from the cache folder when it is there (default: the user's own cache)."""
    digest = source_sha256(program)
    compiler = compiler_version()
    folder = cache if cache is not None else user_cache()
    key = hashlib.sha256(f"{digest} {compiler}".encode()).hexdigest()[:32]
    kept = folder / f"{program.name}-{key}.bin"
    if kept.is_file():
        body = kept.read_bytes()
    else:
        body = _compile(program, None)
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, body)
    data = _with_headers(body)
    if len(data) > MOST_BYTES:
        raise UserError(f"{program.name}: the file has {len(data)} bytes, at most {MOST_BYTES} are allowed")
    return Template(program.name, data[: len(data) - program.block], program.block, compiler, digest)


def assemble(compiled: Template, program: Program, params: Params) -> bytes:
    """The executable of `program` with `params`. Raises UserError when they do not fit the block."""
    return compiled.head + program.parameter_block(params)


def full_compile(program: Program, params: Params) -> bytes:
    """The same executable, compiled from C with the parameters in the source."""
    return _with_headers(_compile(program, program.parameter_block(params)))


def user_cache() -> Path:
    """The folder compiled templates are kept in: $BYTEGEN_CACHE, else the user's cache folder."""
    chosen = os.environ.get("BYTEGEN_CACHE")
    if chosen:
        return Path(chosen) / "corpus"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bytegen" / "corpus"


def _runtime(name: str) -> str:
    return (resources.files("bytegen.train.corpus") / "runtime" / name).read_text(encoding="utf-8")


def _with_headers(body: bytes) -> bytes:
    """The file: ELF header and the one program header (System V ABI, Elf64_Ehdr and Elf64_Phdr), then `body`.

    The whole file is one readable and executable segment at BASE; there are no section headers.
    """
    size = HEADERS + len(body)
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    return header + segment + body


def _compile(program: Program, block: bytes | None) -> bytes:
    """Code, constants and parameter block of `program` as the linker lays them from BASE + HEADERS on."""
    compiler_version()
    with tempfile.TemporaryDirectory(prefix="bytegen-") as name:
        folder = Path(name)
        for runtime in ("runtime.h", "link.ld"):
            (folder / runtime).write_text(_runtime(runtime), encoding="utf-8")
        (folder / "program.c").write_text(source_of(program), encoding="utf-8")
        defines = [f"-DBLOCK={program.block}"]
        if block is not None:
            defines.append("-DPARAMS=" + ",".join(map(str, block)))
        _zig(program.name, folder, ["cc", *FLAGS, *defines, "-c", "program.c", "-o", "program.o"])
        link = ["ld.lld", "-T", "link.ld", "--gc-sections", "--fatal-warnings", "--oformat", "binary"]
        _zig(program.name, folder, [*link, "program.o", "-o", "program.bin"])
        return (folder / "program.bin").read_bytes()


def _zig(name: str, folder: Path, arguments: Sequence[str]) -> None:
    environment = os.environ | {
        "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
    }
    command = [sys.executable, "-m", "ziglang", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise UserError(f"{name}: {shlex.join(arguments[:1])} failed:\n{done.stderr.strip()}")
