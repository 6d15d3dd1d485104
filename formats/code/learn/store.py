"""Writes a learnt table with its provenance."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from bytegen.formats.code.automaton import table_hash
from bytegen.formats.code.learn.probes import probe_hash
from bytegen.formats.code.learn.rules import rules_of


def write_table(
    path: Path, machine: str, following: np.ndarray, roles: np.ndarray, accept: int, options: dict[str, int]
) -> dict[str, object]:
    """Writes next, roles and facts to an .npz file, the same bytes for the same table; returns the facts."""
    from importlib.metadata import version

    import capstone

    facts: dict[str, object] = {
        "machine": machine,
        "accept": accept,
        "states": len(following),
        "source": "capstone (BSD licence), asked byte string by byte string",
        "capstone_package": version("capstone"),
        "capstone_calls_itself": capstone.__version__,
        "capstone_probes_sha256": probe_hash(machine),
        "command": f"python -m bytegen.formats.code.learn {machine} -o {machine}.npz",
        "options": options,
        "left_out": rules_of(machine),
        "table_sha256": table_hash(following, roles),
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, next=following.astype("<u2"), roles=roles.astype(np.uint8), facts=np.array(json.dumps(facts))
    )
    path.write_bytes(buffer.getvalue())
    return facts
