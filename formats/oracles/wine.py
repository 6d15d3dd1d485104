"""Wine as the loader of PE files: it maps them, finds their imports and comes to their entry point.

A small program, compiled when first needed, runs in Wine and answers questions about one file after another: a
start of Wine costs seconds, a question milliseconds. Files are mapped in a process created suspended, or loaded
with DONT_RESOLVE_DLL_REFERENCES; where the loader is let run, its thread begins at a jump to itself and TLS
callbacks are cleared in memory, so that nothing of a file is ever executed. Everything lives in a temporary
folder (WINEPREFIX included) that goes away with the server.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bytegen.formats.errors import FormatError
from bytegen.formats.oracles.rawpe import read_raw_pe

_PROGRAMS = ("wine64", "/usr/lib/wine/wine64", "wine")
_SERVERS = ("wineserver", "/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver")
_START_SECONDS = 180.0
_DLL = 0x2000  # Characteristics: the file is a DLL
_AMD64, _I386 = 0x8664, 0x14C
_EFI = (10, 11, 12, 13)  # subsystems

_TAKEN = " 487"  # ERROR_INVALID_ADDRESS


class Answer(NamedTuple):
    """What Wine makes of a file: whether it takes it, the failed call and error, imports it does not find."""

    accepted: bool
    outcome: str
    missing: tuple[str, ...] = ()


def _found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def _compiler() -> list[str] | None:
    if gcc := shutil.which("x86_64-w64-mingw32-gcc"):
        return [gcc]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu"]
    return None


@cache
def wine_missing() -> str | None:
    """Why Wine cannot be asked on this machine; None where it can."""
    if not sys.platform.startswith("linux"):
        return f"Wine is used on Linux only, this is {sys.platform}"
    if _found(_PROGRAMS) is None:
        return "there is no Wine (Debian's wine64)"
    if _compiler() is None:
        return "there is no compiler for Windows (Debian's gcc-mingw-w64-x86-64, or the package ziglang)"
    return None


class WineServer:
    """A Wine of its own: a temporary prefix, and the helper program that answers questions about files.

    Raises `FormatError` where Wine or a compiler is missing. Close it, or leave that to the interpreter's end.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        if reason := wine_missing():
            raise FormatError(f"Wine cannot be asked: {reason}")
        self.timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self.folder = Path(tempfile.mkdtemp(prefix="bytegen-wine-"))
        atexit.register(self.close)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which programs of this server run: its own prefix, no display, no messages."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WINE") and k != "DISPLAY"}
        prefix = str(self.folder / "prefix")
        return {**kept, "WINEPREFIX": prefix, "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}

    def _helper(self) -> Path:
        path = self.folder / "helper.exe"
        if not path.exists():
            compiler = _compiler()
            assert compiler is not None
            source = Path(__file__).with_name("wine_helper.c")
            done = subprocess.run(
                [*compiler, "-O1", "-o", str(path), str(source)], capture_output=True, timeout=_START_SECONDS
            )
            if done.returncode:
                raise FormatError(f"the Wine helper does not compile: {done.stderr.decode()[-300:].strip()}")
        return path

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        program = _found(_PROGRAMS)
        assert program is not None
        self._child = subprocess.Popen(
            [program, str(self._helper())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.folder,
        )
        if self._line(_START_SECONDS) != "ready":
            self._stop()
            raise FormatError("Wine does not start the helper program")
        return self._child

    def _line(self, seconds: float) -> str | None:
        """A line of the helper's; None when it does not come in time or the helper has ended."""
        child, deadline, line = self._child, time.monotonic() + seconds, b""
        assert child is not None
        assert child.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not ready.select(max(0.0, deadline - time.monotonic())):
                    return None
                part = os.read(child.stdout.fileno(), 4096)
                if not part:
                    return None
                line += part
        return line.decode(errors="replace").strip()

    def ask(self, mode: str, data: bytes, suffix: str = ".exe") -> Answer:
        """One question of the helper's modes ("map", "library", "process", "entry") about a file's bytes."""
        self._asked += 1
        folder = self.folder / f"{self._asked}"
        folder.mkdir()
        path = folder / f"image{suffix}"
        try:
            path.write_bytes(data)
            child = self._start()
            assert child.stdin is not None
            where = "Z:" + str(path).replace("/", "\\")
            try:
                child.stdin.write(f"{mode} {where}\n".encode())
                child.stdin.flush()
                line = self._line(self.timeout)
            except BrokenPipeError:
                line = None
            if line is None:
                ended = child.poll()
                self._stop()
                how = f"ended with {ended}" if ended is not None else f"gave no answer in {self.timeout:g} s"
                return Answer(False, f"{mode}: Wine {how}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        said, *missing = line.split("\t")
        verdict, *words = said.split(" ")
        if verdict == "ok":
            return Answer(True, words[0], tuple(missing))
        if (
            verdict != "no"
        ):  # the helper crashed, and more lines about it come: they are no answer about the next file
            self._stop()
            return Answer(False, f"{mode}: {said}")
        return Answer(False, " ".join(words))

    def run(
        self, program: str | os.PathLike[str], *arguments: str, stdin: bytes = b"", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a program to its end. Only for programs that we compiled ourselves.

        Raises `subprocess.TimeoutExpired` after ``timeout`` seconds.
        """
        self._start()
        wine = _found(_PROGRAMS)
        assert wine is not None
        return subprocess.run(
            [wine, os.fspath(program), *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=self.environment,
        )

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        server = _found(_SERVERS)
        if server is not None:
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [server, "-k"],
                    env=self.environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=10,
                )
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def restart(self) -> None:
        """Ends the helper; the next question starts another."""
        self._stop()

    def close(self) -> None:
        """Ends Wine and removes its folder."""
        self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)


@cache
def shared_server() -> WineServer:
    """This process's one server."""
    return WineServer()


def wine_judge(data: bytes, *, entry: bool = True) -> list[str]:
    """What Wine's loader has against a PE file: empty when it has nothing.

    A program is mapped in a suspended process; with ``entry`` the loader also runs, up to the entry point, which
    finds the imported DLLs (x86-64 only: this asks the DLLs of 64-bit Wine). A DLL is loaded without resolving,
    and its imports are then looked up; a DLL for i386 is mapped as an image. A function that a DLL of Wine
    lacks is no complaint: Wine puts a stub in its place.
    """
    try:
        raw = read_raw_pe(data)
    except ValueError as error:
        return [f"wine: {error}"]
    machine, library = raw.coff["Machine"], bool(raw.coff["Characteristics"] & _DLL)
    if machine not in (_AMD64, _I386):
        return [f"wine: machine {machine:#x} is neither x86-64 nor i386"]
    wide = machine == _AMD64
    modes = ["library" if wide else "map"] if library else ["process", *(["entry"] if entry and wide else [])]
    if not library and entry and not wide:
        modes.append("map")
    if raw.optional["Subsystem"] in _EFI:
        modes = ["map"]  # firmware starts these, and moves them wherever it likes
    server = shared_server()
    for mode in modes:
        answer = server.ask(mode, data, ".dll" if library else ".exe")
        if not answer.accepted and answer.outcome.endswith(_TAKEN):
            # The helper has something at the addresses of an image that cannot be moved: a new one has not.
            server.restart()
            answer = server.ask(mode, data, ".dll" if library else ".exe")
        if not answer.accepted:
            return [f"wine: {mode}: {answer.outcome}"]
        absent = [name for name in answer.missing if "!" not in name]
        if absent and entry:
            return [f"wine: {mode}: no DLL {absent[0]}"]
    return []


def runs_to_end(
    path: str | os.PathLike[str], *arguments: str, stdin: bytes = b"", timeout: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program that we compiled ourselves in the shared Wine, to its end.

    Raises `FormatError` where there is no Wine, `subprocess.TimeoutExpired` when it takes too long.
    """
    return shared_server().run(path, *arguments, stdin=stdin, timeout=timeout)
