"""Attention forward measured in a process of its own, so that a hang or a crash of it costs its own row only.

A kernel that waits for itself never gives its process back, and a fault of one poisons the context of all: neither can
be caught where it happens. The parent starts `python -m bytegen.kernel_bench.apart REQUEST SECONDS`, and ends it at a
limit.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

from bytegen.kernel_bench.estimate import Sizes

LIMIT = 40.0
"""Seconds that a process gets: start, inputs, compilation, the measurement."""

_MARK = "measured: "


@dataclasses.dataclass(frozen=True)
class Request:
    """What to measure: the implementation by its name in `backend.use`, the case, the device.

    `tile` is a tile of the kernel in Gluon (keys, stages, turns) to take for its table's.
    """

    backend: str
    sizes: Sizes
    length: int
    window: int | None
    dtype: str  # "bfloat16"
    device: str
    tile: tuple[int, int, bool] | None = None


class ChildError(RuntimeError):
    """The process gave no result; the message says what it said last."""


def measured(request: Request, seconds: float) -> dict[str, Any]:
    """Return what a process that spends `seconds` on `request` measured: the keys of a row, from seconds to error.

    Raises ChildError where it crashed, printed no result or took too long.
    """
    return result_of([sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(request)), str(seconds)])


def result_of(command: list[str], limit: float = LIMIT) -> dict[str, Any]:
    """Return the result that a process prints; ChildError where it does not, or takes longer than `limit` seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise ChildError(f"no result within {limit:g} s: ended") from error
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            return dict(json.loads(line.removeprefix(_MARK)))
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    # Libraries may have more to say after an exception.
    raised = [line for line in said if re.match(r"[\w.]+(Error|Exception)\b", line)]
    raise ChildError(f"exit code {done.returncode}: {(raised or said)[-1][:200]}")


def _measure(request: Request, seconds: float) -> dict[str, Any]:
    import torch

    from bytegen.kernel_bench import cases, checks
    from bytegen.kernel_bench.clock import Clock, peak_memory
    from bytegen.kernels import backend, local_attention

    if request.tile is not None:
        from bytegen.kernels.attention.gluon import launch

        launch.TILES[request.sizes.dim] = launch.Tile(*request.tile)
    device = torch.device(request.device)
    dtype = getattr(torch, request.dtype)
    q, k, v = cases.queries_keys_values(request.sizes, request.length, device, dtype, grad=False)
    rows = checks.sampled_rows(request.length, cases.CHECKED_ROWS)

    def call() -> torch.Tensor:
        with backend.use(request.backend):  # type: ignore[arg-type]
            return local_attention(q, k, v, window=request.window)

    error = checks.relative_error(call()[0, rows], checks.attention_rows(q, k, v, request.window, rows))
    timing = Clock(device, seconds).time(call)
    return {"seconds": timing.median, "p20": timing.p20, "p80": timing.p80, "rounds": timing.rounds,
            "memory": peak_memory(device, call), "relative_error": error}  # fmt: skip


def main() -> None:
    """Measure the request in the first argument for the seconds in the second; print one line of JSON."""
    asked = json.loads(sys.argv[1])
    request = Request(**{**asked, "sizes": Sizes(**asked["sizes"])})
    print(_MARK + json.dumps(_measure(request, float(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
