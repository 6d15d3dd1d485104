"""glibc's dynamic loader as a judge: `ld.so --verify` and `ld.so --list`, which run nothing of the file.

``--verify`` maps the file as a program and looks at its dynamic section; its exit status is 0 for a program that
names an interpreter and 2 for one that names none (glibc elf/rtld.c). ``--list`` maps the libraries that the file
needs too and checks their versions; initialisers do not run and relocations are not applied. Status 0 says that all
was found. Where it fails for the sole reason that a library is not installed here, the file itself may still be
good: the loader is asked again as `ldd` asks it, with LD_TRACE_LOADED_OBJECTS set, which lists what is missing and
goes on. A loader that dies by a signal or an assertion has refused the file.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from bytegen.formats.elf.target import TARGETS

_VERIFIED = (0, 2)
_MEMORY_BYTES = 1 << 40  # address space: what a file asks for is mapped, not touched
_CPU_SECONDS = 5
_MISSING = re.compile(r"^\s*(\S.*) => not found$", re.MULTILINE)
_NO_LIBRARY = re.compile(r"error while loading shared libraries: (/\S+): invalid ELF header")
_ABSENT = "cannot open shared object file: No such file or directory"


@dataclass(frozen=True)
class LoaderResult:
    """What the loader made of a file.

    ``accepted``: it took the file. ``outcome`` is "loads", its first words, or the signal it died by.
    ``missing``: libraries that the file needs and this machine has not.
    """

    accepted: bool
    outcome: str
    missing: tuple[str, ...] = field(default=())


@cache
def loader_of(format: str) -> str | None:
    """Path of glibc's loader for a format's machine; None where it cannot run here."""
    target = TARGETS.get(format)
    if target is None or not sys.platform.startswith("linux"):
        return None
    path = os.fsdecode(target.interpreters[0])
    if not os.access(path, os.X_OK):
        return None
    try:
        done = subprocess.run([path, "--help"], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if b"--verify" in done.stdout else None


def _limits() -> None:
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def _ask(
    command: Sequence[str], timeout: float, environment: dict[str, str]
) -> subprocess.CompletedProcess[bytes] | None:
    try:
        return subprocess.run(
            command, capture_output=True, timeout=timeout, env=environment, preexec_fn=_limits, cwd="/"
        )
    except subprocess.TimeoutExpired:
        return None


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why the loader refused a file, in one line."""
    if done.returncode < 0:
        return f"died by signal {-done.returncode}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit {done.returncode}"


def loader_verifies(path: str | os.PathLike[str], format: str, timeout: float = 20.0) -> LoaderResult | None:
    """Whether ``ld.so --verify`` takes the file at ``path``; None without a loader for the format here."""
    loader = loader_of(format)
    if loader is None:
        return None
    done = _ask([loader, "--verify", os.path.abspath(path)], timeout, {"LC_ALL": "C"})
    if done is None:
        return LoaderResult(False, f"no answer within {timeout:g} s")
    if done.returncode in _VERIFIED:
        return LoaderResult(True, "loads")
    return LoaderResult(False, _words(done))


def _is_script(path: str) -> bool:
    """Whether it is one of GNU ld's scripts, which stand beside libraries under their names."""
    try:
        with open(path, "rb") as file:
            return b"GNU ld script" in file.read(256)
    except OSError:
        return False


def loader_lists(path: str | os.PathLike[str], format: str, timeout: float = 20.0) -> LoaderResult | None:
    """Whether ``ld.so --list`` takes the file at ``path`` and what it needs; None without a loader here.

    A file whose only fault is that it needs libraries which are not installed is accepted, and they are listed; so is
    one that needs what here is a linker's script (libc.so).
    """
    loader = loader_of(format)
    if loader is None:
        return None
    path = os.path.abspath(path)
    done = _ask([loader, "--list", path], timeout, {"LC_ALL": "C"})
    if done is None:
        return LoaderResult(False, f"no answer within {timeout:g} s")
    if done.returncode == 0:
        return LoaderResult(True, "loads")
    words = _words(done)
    other = _NO_LIBRARY.search(words)
    if other is not None and _is_script(other[1]):
        return LoaderResult(True, "loads", (other[1],))
    if _ABSENT not in words:
        return LoaderResult(False, words)
    traced = _ask([loader, path], timeout, {"LC_ALL": "C", "LD_TRACE_LOADED_OBJECTS": "1"})
    if traced is None or traced.returncode != 0:
        return LoaderResult(False, words if traced is None else _words(traced))
    missing = tuple(_MISSING.findall(traced.stdout.decode(errors="replace")))
    return LoaderResult(bool(missing), "loads" if missing else words, missing)
