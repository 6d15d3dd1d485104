"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bytegen.errors import UserError


def usual_mode(*, executable: bool = False) -> int:
    """Return the permissions that a new file gets here; temporary files begin with the owner's alone."""
    umask = os.umask(0)
    os.umask(umask)
    return (0o777 if executable else 0o666) & ~umask


def write_atomically(path: str | Path, data: bytes, *, executable: bool = False) -> None:
    """Write `data` to a temporary name beside `path` and move it into place; UserError when that fails."""
    path = Path(path)
    scratch = None
    try:
        descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(scratch, usual_mode(executable=executable))
        os.replace(scratch, path)
    except OSError as error:
        if scratch is not None and os.path.exists(scratch):
            os.unlink(scratch)
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def read_file(path: str | Path) -> bytes:
    """Return the bytes of `path`; UserError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
