"""Static programs made by the compilers at hand: real files to measure completeness and speed with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_HOSTED = """#include <stdio.h>
#include <stdlib.h>
static __thread int calls;
static int table[5] = {5, 3, 9, 1, 7};
int zeros[300];
__attribute__((constructor)) static void start(void) { calls = 1; }
static int order(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(int argc, char **argv) {
    (void)argv;
    qsort(table, 5, sizeof table[0], order);
    for (int i = 0; i < 5; i++) printf("%d %d\\n", table[i] + argc, calls += zeros[i]);
    return 0;
}
"""
_FREESTANDING = """static char text[] = "hello\\n";
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
void _start(void) {
    call(1, 1, (long)text, sizeof text - 1);
    call(60, 0, 0, 0);
    for (;;) {}
}
"""
_ZIG = """const std = @import("std");
pub fn main() void {
    std.debug.print("hello {d}\\n", .{42});
}
"""
_FREE = ("-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", "-no-pie")
_MUSL = ("-target", "x86_64-linux-musl")


@dataclass(frozen=True)
class Recipe:
    """One way to make a program: the compiler's name, its arguments, and which source it takes."""

    name: str
    compiler: str
    arguments: tuple[str, ...]
    source: str = "hosted.c"
    quick: bool = True


RECIPES = (
    Recipe("gcc-static", "gcc", ("-static",)),
    Recipe("gcc-static-stripped", "gcc", ("-static", "-s", "-O2")),
    Recipe("gcc-static-debug", "gcc", ("-static", "-g3", "-O0")),
    Recipe("gcc-static-nobuildid", "gcc", ("-static", "-Os", "-Wl,--build-id=none", "-Wl,-z,norelro")),
    Recipe("gcc-static-noseparate", "gcc", ("-static", "-Wl,-z,noseparate-code")),
    Recipe("gcc-static-gcsections", "gcc", ("-static", "-Wl,--gc-sections", "-ffunction-sections")),
    Recipe("gcc-free", "gcc", (*_FREE, "-Os"), "free.c"),
    Recipe("gcc-free-debug", "gcc", (*_FREE, "-g"), "free.c"),
    Recipe("gcc-free-stripped", "gcc", (*_FREE, "-Os", "-s", "-Wl,--build-id=none"), "free.c"),
    Recipe("gcc-free-noseparate", "gcc", (*_FREE, "-Os", "-Wl,-z,noseparate-code"), "free.c"),
    Recipe("gcc-free-omagic", "gcc", (*_FREE, "-Os", "-Wl,-N"), "free.c"),
    Recipe("gcc-free-nmagic", "gcc", (*_FREE, "-Os", "-Wl,-n"), "free.c"),
    Recipe("gcc-free-execstack", "gcc", (*_FREE, "-Wl,-z,execstack"), "free.c"),
    Recipe("gcc-free-maxpage", "gcc", (*_FREE, "-Wl,-z,max-page-size=0x200000"), "free.c"),
    Recipe("musl-gcc-static", "musl-gcc", ("-static",)),
    Recipe("musl-gcc-static-stripped", "musl-gcc", ("-static", "-Os", "-s")),
    Recipe("zig-cc-free", "zig cc", (*_MUSL, *_FREE[:4], "-Os"), "free.c"),
    Recipe("zig-cc-free-stripped", "zig cc", (*_MUSL, *_FREE[:4], "-Oz", "-s"), "free.c"),
    Recipe("zig-cc-musl", "zig cc", (*_MUSL, "-static"), quick=False),
    Recipe("zig-cc-musl-small", "zig cc", (*_MUSL, "-static", "-Os", "-s"), quick=False),
    Recipe("zig-exe-small", "zig build-exe", ("-O", "ReleaseSmall", "-fstrip"), "hello.zig", quick=False),
    Recipe("zig-exe-debug", "zig build-exe", ("-O", "Debug"), "hello.zig", quick=False),
)


@cache
def compiler_command(compiler: str) -> tuple[str, ...] | None:
    """The command line that starts `compiler` ("gcc", "zig cc", ...); None if it is missing."""
    name, *verb = compiler.split()
    if name == "zig" and find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", *verb)
    found = shutil.which(name)
    return (found, *verb) if found else None


def compile_program(recipe: Recipe, folder: Path, timeout: float = 300.0) -> bytes | None:
    """Compiles one recipe in `folder` (caches included) and returns the file; None without its compiler.

    Raises RuntimeError with the compiler's first words when it fails.
    """
    command = compiler_command(recipe.compiler)
    if command is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("hosted.c", _HOSTED), ("free.c", _FREESTANDING), ("hello.zig", _ZIG)):
        (folder / name).write_text(text)
    output = folder / recipe.name
    if recipe.compiler == "zig build-exe":
        end = ["-target", "x86_64-linux-musl", f"-femit-bin={output}", recipe.source]
    else:
        end = ["-o", str(output), recipe.source]
    zig_folder = str(folder / "zig-cache")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig_folder, "ZIG_LOCAL_CACHE_DIR": zig_folder}
    done = subprocess.run(
        [*command, *recipe.arguments, *end], cwd=folder, env=environment, capture_output=True, timeout=timeout
    )
    if done.returncode != 0:
        raise RuntimeError(f"{recipe.name}: {done.stderr.decode(errors='replace').strip()[:300]}")
    return output.read_bytes()


def static_programs(
    folder: Path | str, *, quick: bool = False, names: Collection[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) of each recipe whose compiler is here; `quick` leaves out the slow ones.

    `names` picks recipes by name. Linkers differ in the options they know: a recipe that this machine's
    linker cannot make is passed over.
    """
    for recipe in RECIPES:
        if (quick and not recipe.quick) or (names is not None and recipe.name not in names):
            continue
        try:
            data = compile_program(recipe, Path(folder))
        except (RuntimeError, subprocess.TimeoutExpired):
            continue
        if data is not None:
            yield recipe.name, data
