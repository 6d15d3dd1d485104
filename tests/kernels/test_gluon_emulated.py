"""Attention forward in Gluon, its own source run by an emulator: results, deadlocks, races; and what breaks it."""

from typing import Any

import numpy as np
import pytest
import torch
from gluon_emulator import Descriptor, KernelError, Pointer, run, source_of
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import attention as naive

HELPERS = source_of("bytegen.kernels.attention.fused.tiles")
KERNEL = source_of("bytegen.kernels.attention.gluon.forward")


def emulate(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, bounds: list[int], scale: float, *,
    rows: int = 4, block_k: int = 8, stages: int = 2, turns: bool = True, seed: int = 0, source: str = KERNEL,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The kernel's o and lse of tensors [B, T, H, D], at tiles of this size; every element is written once."""
    n_batch, length, n_heads, dim = q.shape
    o = np.full((n_batch, n_heads, length, dim), np.nan, q.numpy().dtype)
    lse = np.full(n_batch * n_heads * length, np.nan, np.float32)
    out = Descriptor(o, [1, 1, rows, dim])
    inputs = [
        Descriptor(x.numpy().swapaxes(1, 2), [1, 1, n, dim])
        for x, n in ((q, rows), (k, block_k), (v, block_k))
    ]
    document = np.searchsorted(bounds, np.arange(length), side="right") - 1
    starts = Pointer(np.asarray(bounds, np.int32)[document]) if len(bounds) > 2 else None
    options = {
        "GROUPS": n_heads // k.shape[2], "D": dim, "ROWS": rows, "BLOCK_K": block_k, "STAGES": stages,
        "SIZE": q.element_size(), "HAS_WINDOW": window is not None, "HAS_DOCUMENTS": starts is not None,
        "TURNS": turns,
    }  # fmt: skip
    grid = (n_heads, -(-length // (2 * rows)), n_batch)
    args = (*inputs, out, Pointer(lse), starts, length, window or 0, scale)
    run([HELPERS, source], "hopper_forward_kernel", args, options, grid, seed=seed)
    assert (out.writes == 1).all()
    return torch.from_numpy(o).transpose(1, 2), torch.from_numpy(lse).view(n_batch, n_heads, length)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    return {
        "bounds": [0, *np.cumsum(lengths).tolist()],
        "batch": draw(st.integers(1, 2)) if len(lengths) == 1 else 1,
        "n_kv": draw(st.sampled_from([1, 2])),
        "groups": draw(st.sampled_from([1, 2])),
        "window": draw(st.none() | st.integers(1, 50) | st.sampled_from([7, 8, 9, 16, 17])),
        "rows": draw(st.sampled_from([4, 8])),
        "block_k": draw(st.sampled_from([4, 8, 16])),
        "stages": draw(st.integers(1, 4)),
        "turns": draw(st.booleans()),
        "seed": draw(st.integers(0, 10_000)),
    }


def tensors(case: dict[str, Any], dtype: torch.dtype, dim: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(case["seed"])
    heads = (case["n_kv"] * case["groups"], case["n_kv"], case["n_kv"])
    shape = (case["batch"], case["bounds"][-1])
    return [torch.randn(*shape, h, dim, generator=generator, dtype=torch.float64).to(dtype) for h in heads]


TILING = ("rows", "block_k", "stages", "turns", "seed")


@settings(max_examples=60, deadline=None)
@given(cases())
def test_output_and_lse_are_those_of_float64_and_nothing_hangs_or_races(case: dict[str, Any]) -> None:
    q, k, v = tensors(case, torch.float32)
    o, lse = emulate(q, k, v, case["window"], case["bounds"], 0.5, **{name: case[name] for name in TILING})
    want, want_lse = naive(q.double(), k.double(), v.double(), case["window"], case["bounds"], scale=0.5)
    torch.testing.assert_close(o.double(), want, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse.double(), want_lse, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("window", [None, 300])
def test_the_shipped_tiles_are_right_too(window: int | None) -> None:
    """Whole warpgroups of 64 rows; a length that is no multiple of anything."""
    pytest.importorskip("triton")
    from bytegen.kernels.attention.gluon.launch import ROWS, TILES

    for dim, tile in TILES.items():
        case = {"n_kv": 1, "groups": 1, "batch": 1, "bounds": [0, 701], "seed": dim}
        q, k, v = tensors(case, torch.float32, dim)
        o, lse = emulate(q, k, v, window, [0, 701], 0.1, rows=ROWS, block_k=tile.block_k, stages=tile.stages,
                         turns=tile.turns)  # fmt: skip
        want, want_lse = naive(q.double(), k.double(), v.double(), window, [0, 701], scale=0.1)
        torch.testing.assert_close(o.double(), want, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(lse.double(), want_lse, atol=2e-5, rtol=2e-5)


def test_half_precision_errs_at_most_twice_as_much_as_torch_does() -> None:
    case = {"n_kv": 1, "groups": 2, "batch": 1, "bounds": [0, 90], "seed": 1}
    q, k, v = tensors(case, torch.float16, 16)
    want, _ = naive(q.double(), k.double(), v.double(), 40, [0, 90])
    o, _ = emulate(q, k, v, 40, [0, 90], 0.25)
    ours, torch_s = (float((x.double() - want).norm()) for x in (o, naive(q, k, v, 40, [0, 90])[0]))
    assert ours <= 2 * torch_s


def test_tiles_outside_the_window_and_the_document_are_never_read() -> None:
    """NaN lies in every tile that no query of the last tile sees; a masked value would still poison 0 * NaN."""
    q, k, v = tensors({"n_kv": 1, "groups": 1, "batch": 1, "bounds": [0, 96], "seed": 2}, torch.float32)
    k[:, :48], v[:, :48] = float("nan"), float("nan")
    for window, bounds in ((30, [0, 96]), (None, [0, 48, 96])):
        with np.errstate(invalid="ignore"):
            o, _ = emulate(q, k, v, window, bounds, 0.5)
        assert not o[:, 80:].isnan().any()


def test_offsets_pass_two_to_the_31() -> None:
    """The last row of the log-sum-exp of a batch so large that its place has no 32-bit number."""
    n_batch, n_heads, length = 1 << 15, 1 << 13, 9
    q = np.broadcast_to(np.ones(8, np.float32), (n_batch, n_heads, length, 8))
    out = Descriptor(np.lib.stride_tricks.as_strided(np.zeros(8, np.float32), q.shape, (0, 0, 0, 4), writeable=False),
                     [1, 1, 4, 8])  # fmt: skip
    written: list[tuple[np.ndarray, np.ndarray]] = []

    class Lse(Pointer):
        def __add__(self, more: object) -> "Lse":
            return Lse(self.array, self.offset + more)

        def store(self, value: np.ndarray, mask: np.ndarray) -> None:
            written.append((np.asarray(self.offset)[np.asarray(mask)], np.asarray(value)[np.asarray(mask)]))

    out.write = lambda coord, tile: None  # type: ignore[method-assign]
    options = {"GROUPS": 1, "D": 8, "ROWS": 4, "BLOCK_K": 8, "STAGES": 2, "SIZE": 4, "HAS_WINDOW": False,
               "HAS_DOCUMENTS": False, "TURNS": True}  # fmt: skip
    tiles = [Descriptor(q, [1, 1, n, 8]) for n in (4, 8, 8)]
    args = (*tiles, out, Lse(np.empty(0)), None, length, 0, 0.5)
    # Tiles of rows count from the end: the last program of the second dimension has the first rows.
    last = [(n_heads - 1, 0, n_batch - 1)]
    run(
        [HELPERS, KERNEL],
        "hopper_forward_kernel",
        args,
        options,
        (n_heads, 2, n_batch),
        seed=0,
        programs=last,
    )
    ((at, _),) = [pair for pair in written if len(pair[0])]
    assert at.tolist() == [n_batch * n_heads * length - 1]


_READY = "mbarrier.wait(v_ready.index(before), ((i - 1) // STAGES) & 1)"
_NEXT = "mbarrier.wait(k_ready.index((i + 1) % STAGES), ((i + 1) // STAGES) & 1, pred=i + 1 < n_tiles)"
_FREE = "mbarrier.wait(empty.index(stage), (i // STAGES + 1) & 1)"
_TURN = "mbarrier.wait(turns.index(WHO), (i - 1) & 1)"
_SCORES = "s = warpgroup_mma_wait(1, deps=(s,))"
_OUT = "acc, p = warpgroup_mma_wait(0, deps=(acc_next, p))"
_K_READ = "mbarrier.arrive(k_empty.index(stage), count=1)"
_V_READ = "mbarrier.arrive(v_empty.index(before), count=1)"
_EMPTY = "init({}_empty.index(stage), count={})"

MUTANTS = {
    "the producer waits for the other phase": (_FREE, "mbarrier.wait(empty.index(stage), (i // STAGES) & 1)"),
    "the producer does not wait": (_FREE, "pass"),
    "too few bytes are expected": ("index(stage), BYTES)", "index(stage), BYTES // 2)"),
    "too many bytes are expected": ("index(stage), BYTES)", "index(stage), BYTES * 2)"),
    "no bytes are expected": (
        "mbarrier.expect(ready.index(stage), BYTES)", "mbarrier.arrive(ready.index(stage), count=1)"),
    "a stage too few": ("ring.index(stage))", "ring.index(stage % (STAGES - 1)))"),
    "values are not waited for": (_READY, "pass"),
    "values are waited for in the other phase": (_READY, _READY.replace("(i - 1)", "i")),
    "keys are not waited for": (_NEXT, "pass"),
    "keys past the last are waited for": (_NEXT, _NEXT.replace(", pred=i + 1 < n_tiles", "")),
    "scores are not waited for": (_SCORES, _SCORES.replace("(1", "(2")),
    "the output is not waited for": (_OUT, _OUT.replace("(0", "(1")),
    "keys are let go before they are read": (f"{_SCORES}\n        {_K_READ}", f"{_K_READ}\n        {_SCORES}"),
    "values are let go before they are read": (f"{_OUT}\n        {_V_READ}", f"{_V_READ}\n        {_OUT}"),
    "one warpgroup lets keys go for both": (_EMPTY.format("k", 2), _EMPTY.format("k", 1)),
    "three are to let values go": (_EMPTY.format("v", 2), _EMPTY.format("v", 3)),
    "nobody has the first turn": ("TURNS and WHO == 1", "TURNS and WHO == 2"),
    "the turn is passed to oneself": ("turns.index(1 - WHO)", "turns.index(WHO)"),
    "a turn is waited for in the other phase": (_TURN, _TURN.replace("i - 1", "i")),
    "the output is stored without a fence": ("q_tiles.dtype))\n    fence_async_shared()", "q_tiles.dtype))"),
    "the block ends before its stores": ("tma.store_wait(0)", "pass"),
    "queries are not waited for": ("mbarrier.wait(q_ready.index(WHO), 0)", "pass"),
    "the output goes over the other's queries": ("q_tiles.index(WHO).reshape([ROWS, D]).store",
                                                 "q_tiles.index(1 - WHO).reshape([ROWS, D]).store"),
    "the left edge has no mask": ("1, masked, q,", "1, n_last, q,"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_kernel_that_is_broken_on_purpose_is_caught_whatever_the_draw(name: str) -> None:
    """By the emulator itself: a hang or a race, before any output is compared."""
    old, new = MUTANTS[name]
    assert KERNEL.count(old) == 1
    for seed in range(3):
        q, k, v = tensors(
            {"n_kv": 1, "groups": 1, "batch": 1, "bounds": [0, 60], "seed": seed}, torch.float32
        )
        with pytest.raises(KernelError):
            emulate(q, k, v, 21, [0, 60], 0.5, seed=seed, source=KERNEL.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (">= low[:, None]", "> low[:, None]"),
        ("<= rows[:, None]", "< rows[:, None]"),
        ("convert_layout(shrink,", "convert_layout(shrink * 0 + 1,"),
        ("kv_head, last, i - 1,", "kv_head, key0, i - 1,"),
    ],
)
def test_a_wrong_result_is_seen_as_one(old: str, new: str) -> None:
    assert KERNEL.count(old) == 1
    q, k, v = tensors({"n_kv": 1, "groups": 1, "batch": 1, "bounds": [0, 60], "seed": 0}, torch.float32)
    o, _ = emulate(q, k, v, 21, [0, 60], 0.5, source=KERNEL.replace(old, new))
    want, _ = naive(q.double(), k.double(), v.double(), 21, [0, 60], scale=0.5)
    assert not torch.allclose(o.double(), want, atol=1e-3)
