"""Constraints on executable formats: exact, context-sensitive, usable with any byte model or sampler.

    c = constraint("elf64-x86_64", max_bytes=4096)
    c.mask()        # bool[257]: the bytes that may come next, then whether the file may end here
    c.advance(0x7f)

Every byte a mask allows leaves a file of the format, within ``max_bytes``, that can still be finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bytegen.formats.account import Account, account
from bytegen.formats.api import forced_bytes, replay, sample
from bytegen.formats.core.constraint import END, Constraint, Field, Refusal
from bytegen.formats.core.masks import fill_bitmasks
from bytegen.formats.errors import FormatError
from bytegen.formats.libraries import Library, library
from bytegen.formats.particles import ParticleModel, Particles, PrefixModel, smc
from bytegen.formats.registry import available, constraint, least_bytes, levels

if TYPE_CHECKING:
    from bytegen.formats.identify import detect as detect
    from bytegen.formats.oracles.kernel import ExecResult as ExecResult
    from bytegen.formats.oracles.kernel import kernel_accepts as kernel_accepts
    from bytegen.formats.report import Problem as Problem
    from bytegen.formats.report import Report as Report
    from bytegen.formats.validation import validate as validate

__all__ = [
    "END",
    "Account",
    "Constraint",
    "ExecResult",
    "Field",
    "FormatError",
    "Library",
    "ParticleModel",
    "Particles",
    "PrefixModel",
    "Problem",
    "Refusal",
    "Report",
    "account",
    "available",
    "constraint",
    "detect",
    "fill_bitmasks",
    "forced_bytes",
    "kernel_accepts",
    "least_bytes",
    "levels",
    "library",
    "replay",
    "sample",
    "smc",
    "validate",
]

# The judges load LIEF and capstone, which the engine does not need.
_LAZY = {
    "ExecResult": "oracles.kernel",
    "Problem": "report",
    "Report": "report",
    "detect": "identify",
    "kernel_accepts": "oracles.kernel",
    "validate": "validation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
