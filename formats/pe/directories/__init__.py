"""The contents of data directories: one module a directory registers its size rules and its grammar."""

from __future__ import annotations

from bytegen.formats.pe.constants import CNT_INITIALIZED_DATA, MEM_READ
from bytegen.formats.pe.directories import (
    bound_imports,
    certificates,
    clr,
    debug,
    delay_imports,
    exceptions,
    exports,
    imported_names,
    imports,
    load_config,
    relocs,
    resources,
    thunks,
    tls,
    unwind,
)
from bytegen.formats.pe.spec import Directory, directory
from bytegen.formats.pe.target import Target

__all__ = ["certificates", "clr", "imported_names", "thunks", "unwind"]


def _tls_size(target: Target, size: int = 0) -> int:
    return 4 * target.word + 8


directory(Directory("exports", lambda target: exports.SIZE, lambda target, size: exports.SIZE))
directory(Directory("imports", lambda target: imports.SIZE, lambda target, size: imports.SIZE))
directory(Directory("resources", lambda target: resources.LEAST, lambda target, size: resources.HEAD))
directory(Directory("exceptions", exceptions.record_size, step=exceptions.record_size))
directory(Directory("certificates", lambda target: certificates.HEAD, step=8, align=8))
directory(Directory("relocs", lambda target: relocs.HEAD, step=4))
directory(Directory("debug", lambda target: debug.SIZE, step=debug.SIZE))
directory(Directory("tls", _tls_size, _tls_size, flags=MEM_READ | CNT_INITIALIZED_DATA, when=tls.possible))
directory(Directory("load_config", load_config.least, step=4))
directory(
    Directory(
        "bound_imports", lambda target: bound_imports.LEAST, when=bound_imports.possible, in_headers=True
    )
)
directory(Directory("iat", lambda target: target.word, lambda target, size: 0))
directory(
    Directory("delay_imports", lambda target: delay_imports.SIZE, lambda target, size: delay_imports.SIZE)
)
directory(Directory("clr", lambda target: clr.SIZE, lambda target, size: clr.SIZE))
