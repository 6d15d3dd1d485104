"""Executable files in folders and in the packages there: Debian's (.deb), wheels and zips, tar archives.

Links are not followed, a file met twice (by content) is given once, and what is neither ELF nor PE by its
first bytes is passed over.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 256 << 20  # larger files are passed over
_MAGICS = (b"\x7fELF", b"MZ")
_ZIPS = (".whl", ".zip", ".egg", ".jar", ".nupkg")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


class Found(NamedTuple):
    """A file: where it is ("package.deb!/usr/bin/tool" inside a package) and its bytes."""

    path: str
    data: bytes


def collect(folders: Iterable[Path]) -> Iterator[Found]:
    """Yields the executable files of the folders (or single files), each content once.

    A package that cannot be opened is passed over like any other file that is no executable.
    """
    seen: set[bytes] = set()
    for folder in folders:
        for path in _walk(folder):
            for found in _open(path):
                digest = hashlib.sha256(found.data).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield found


def _walk(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _open(path: Path) -> Iterator[Found]:
    name = path.name.lower()
    try:
        if name.endswith(".deb"):
            yield from _debian(path)
        elif name.endswith(_ZIPS):
            yield from _zip(path)
        elif name.endswith(_TARS):
            with tarfile.open(path) as archive:
                yield from _tar(str(path), archive)
        elif path.stat().st_size <= MOST_BYTES:
            with open(path, "rb") as file:
                if file.read(4).startswith(_MAGICS):
                    file.seek(0)
                    yield Found(str(path), file.read())
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return


def _debian(path: Path) -> Iterator[Found]:
    from debian.arfile import ArError
    from debian.debfile import DebError, DebFile

    try:
        with DebFile(str(path)) as package:
            yield from _tar(str(path), package.data.tgz())
    except (ArError, DebError):
        return


def _tar(outer: str, archive: tarfile.TarFile) -> Iterator[Found]:
    for member in archive:
        if not member.isfile() or not 4 <= member.size <= MOST_BYTES:
            continue
        file = archive.extractfile(member)
        if file is not None and (head := file.read(4)).startswith(_MAGICS):
            yield Found(f"{outer}!/{member.name.lstrip('./')}", head + file.read())


def _zip(path: Path) -> Iterator[Found]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or not 4 <= member.file_size <= MOST_BYTES:
                continue
            with archive.open(member) as file:
                head = file.read(4)
                if head.startswith(_MAGICS):
                    yield Found(f"{path}!/{member.filename}", head + file.read())
