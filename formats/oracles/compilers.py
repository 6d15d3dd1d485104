"""Programs and libraries made by the compilers at hand: real files to measure completeness and speed with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
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
_SPIN = """static int spins;
int turn(int by) { return spins += by; }
void _start(void) {
    for (;;) turn(3);
}
"""
_LIBRARY = """#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif
static __thread int calls;
static const char *names[] = {"one", "two", "three"};
PUBLIC int counter = 3;
PUBLIC int total(const int *values, int n) {
    int sum = calls++;
    for (int i = 0; i < n; i++) sum += values[i] * counter;
    return sum;
}
PUBLIC char *copy_of(int i) { return strdup(names[i % 3]); }
"""
_WINDOWS = """#include <windows.h>
#include <stdio.h>
int main(void) {
    DWORD written;
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), "hello\\n", 6, &written, 0);
    printf("%lu\\n", (unsigned long)written);
    return 0;
}
"""
_ZIG = """const std = @import("std");
pub fn main() void {
    std.debug.print("hello {d}\\n", .{42});
}
"""
_SOURCES = {
    "hosted.c": _HOSTED,
    "free.c": _FREESTANDING,
    "spin.c": _SPIN,
    "library.c": _LIBRARY,
    "windows.c": _WINDOWS,
    "hello.zig": _ZIG,
}
_FREE = ("-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", "-no-pie")
_MUSL = ("-target", "x86_64-linux-musl")
_GNU = ("-target", "x86_64-linux-gnu")
X86_64, I386, AARCH64 = "elf64-x86_64", "elf32-i386", "elf64-aarch64"
PE64, PE32 = "pe32plus-x86_64", "pe32-i386"


@dataclass(frozen=True)
class Recipe:
    """One way to make a program: the compiler's name, its arguments, and which source it takes."""

    name: str
    compiler: str
    arguments: tuple[str, ...]
    source: str = "hosted.c"
    quick: bool = True
    format: str = X86_64
    static: bool = True


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
    *(
        replace(recipe, static=False)
        for recipe in (
            Recipe("gcc", "gcc", ("-O2",)),
            Recipe("gcc-debug", "gcc", ("-O0", "-g3")),
            Recipe("gcc-nopie", "gcc", ("-O2", "-no-pie")),
            Recipe("gcc-stripped-now", "gcc", ("-O3", "-s", "-Wl,-z,now")),
            Recipe("gcc-sysv-hash", "gcc", ("-Wl,--hash-style=sysv", "-Wl,-z,lazy")),
            Recipe("gcc-both-hashes", "gcc", ("-Wl,--hash-style=both", "-rdynamic")),
            Recipe("gcc-relr", "gcc", ("-Wl,-z,pack-relative-relocs",)),
            Recipe("gcc-rpath", "gcc", ("-Wl,-rpath,$ORIGIN/lib", "-Wl,--disable-new-dtags")),
            Recipe("gcc-noseparate", "gcc", ("-Wl,-z,noseparate-code",)),
            Recipe("gcc-static-pie", "gcc", ("-static-pie",)),
            Recipe("gcc-shared", "gcc", ("-shared", "-fPIC", "-O2"), "library.c"),
            Recipe(
                "gcc-shared-soname", "gcc", ("-shared", "-fPIC", "-Wl,-soname,libtotal.so.1"), "library.c"
            ),
            Recipe("gcc-shared-symbolic", "gcc", ("-shared", "-fPIC", "-Wl,-Bsymbolic", "-g"), "library.c"),
            Recipe("gcc-shared-free", "gcc", (*_FREE[:1], "-shared", "-fPIC"), "free.c"),
            Recipe("g++", "g++", ("-O2",)),
            Recipe("musl-gcc", "musl-gcc", ("-Os",)),
            Recipe(
                "zig-cc-gnu-shared", "zig cc", (*_GNU, "-shared", "-fPIC", "-Os"), "library.c", quick=False
            ),
            Recipe("zig-cc-gnu", "zig cc", (*_GNU, "-Os"), quick=False),
        )
    ),
    *(
        replace(recipe, format=I386)
        for recipe in (
            Recipe("zig-i386-free", "zig cc", ("-target", "x86-linux-musl", *_FREE, "-Os"), "spin.c"),
            Recipe("zig-i386-musl", "zig cc", ("-target", "x86-linux-musl", "-static"), quick=False),
            Recipe(
                "zig-i386-gnu",
                "zig cc",
                (
                    "-target",
                    "x86-linux-gnu",
                ),
                quick=False,
                static=False,
            ),
            Recipe("gcc-i386-free", "gcc", ("-m32", *_FREE, "-Os"), "spin.c"),
            Recipe("gcc-i386", "gcc", ("-m32", "-O2"), static=False),
            Recipe("gcc-i386-static", "gcc", ("-m32", "-static")),
        )
    ),
    *(
        replace(recipe, format=AARCH64)
        for recipe in (
            Recipe("zig-aarch64-free", "zig cc", ("-target", "aarch64-linux-musl", *_FREE, "-Os"), "spin.c"),
            Recipe("zig-aarch64-musl", "zig cc", ("-target", "aarch64-linux-musl", "-static"), quick=False),
            Recipe(
                "zig-aarch64-gnu",
                "zig cc",
                (
                    "-target",
                    "aarch64-linux-gnu",
                ),
                quick=False,
                static=False,
            ),
            Recipe("gcc-aarch64-free", "aarch64-linux-gnu-gcc", (*_FREE, "-Os"), "spin.c"),
            Recipe("gcc-aarch64", "aarch64-linux-gnu-gcc", ("-O2",), static=False),
            Recipe("gcc-aarch64-static", "aarch64-linux-gnu-gcc", ("-static",)),
            Recipe(
                "gcc-aarch64-shared", "aarch64-linux-gnu-gcc", ("-shared", "-fPIC"), "library.c", static=False
            ),
        )
    ),
    *(
        replace(recipe, format=format, static=False, name=f"{recipe.name}-{bits}")
        for format, bits, gcc, target in (
            (PE64, 64, "x86_64-w64-mingw32-gcc", "x86_64-windows-gnu"),
            (PE32, 32, "i686-w64-mingw32-gcc", "x86-windows-gnu"),
        )
        for recipe in (
            Recipe("mingw", gcc, ("-O2",), "windows.c"),
            Recipe("mingw-debug", gcc, ("-O0", "-g"), "windows.c"),
            Recipe("mingw-stripped", gcc, ("-Os", "-s"), "windows.c"),
            Recipe("mingw-gui", gcc, ("-O2", "-mwindows"), "windows.c"),
            Recipe("mingw-dll", gcc, ("-shared", "-O2"), "library.c"),
            Recipe("zig-windows", "zig cc", ("-target", target, "-Os"), "windows.c", quick=False),
            Recipe(
                "zig-windows-dll", "zig cc", ("-target", target, "-shared", "-Os"), "library.c", quick=False
            ),
        )
    ),
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
    for name, text in _SOURCES.items():
        (folder / name).write_text(text)
    output = folder / (recipe.name + ".exe" * recipe.format.startswith("pe"))
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


def compiled_programs(
    folder: Path | str,
    *,
    format: str | None = None,
    quick: bool = False,
    names: Collection[str] | None = None,
) -> Iterator[tuple[Recipe, bytes]]:
    """Yields (recipe, bytes) of each recipe whose compiler is here.

    ``format`` picks those of one format, ``quick`` leaves out the slow ones, ``names`` picks by name.
    Compilers and linkers differ in the options they know: a recipe that this machine's cannot make is passed
    over.
    """
    for recipe in RECIPES:
        if (quick and not recipe.quick) or (names is not None and recipe.name not in names):
            continue
        if format is not None and recipe.format != format:
            continue
        try:
            data = compile_program(recipe, Path(folder))
        except (RuntimeError, subprocess.TimeoutExpired):
            continue
        if data is not None:
            yield recipe, data


def static_programs(
    folder: Path | str, *, quick: bool = False, names: Collection[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) of the static x86-64 programs among `compiled_programs`."""
    for recipe, data in compiled_programs(folder, format=X86_64, quick=quick, names=names):
        if recipe.static:
            yield recipe.name, data
