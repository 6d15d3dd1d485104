"""Runs a Gluon kernel of a producer and consumers in plain Python, and finds what a GPU would hang or err on.

The kernel's own source is executed, with numpy in place of `gl`, `tma`, `mbarrier` and wgmma. Partitions are threads
of which one runs at a time; who goes on, and when a copy lands, is drawn at random. What one partition knows of the
others' accesses follows barriers alone, as happens-before does: an access to shared memory that no barrier orders is an
error whatever the draw. So are partitions of which none can go on, a result taken before it was waited for, stores that
TMA reads without a fence, and copies that outlive their block.

Registers, layouts and times are the compiler's business, and not here. Memory has the dtype of the arrays given.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np
from gluon_machine import (
    KERNEL_FILE,
    Barrier,
    Barriers,
    Block,
    Descriptor,
    Int,
    KernelError,
    Memory,
    Pointer,
    Product,
    Region,
    Store,
    as_tensor,
)

__all__ = ["Descriptor", "KernelError", "Pointer", "run", "source_of"]


class _Language:
    """Everything that a kernel's module imports, for one block."""

    def __init__(self, block: Block, program: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
        self.block = block
        names = iter(range(100))

        def allocate(dtype: Any, shape: Sequence[int], layout: Any) -> Any:
            name = f"allocation {next(names)}"
            if layout == "mbarriers":
                return Barriers(block, shape[0], name)
            array = np.full(shape, np.nan, dtype)
            return Memory(block, array, [Region(array[i], f"{name}[{i}]") for i in range(len(array))])

        def specialize(
            calls: list[tuple[Any, tuple[Any, ...]]], warps: list[int], registers: list[int]
        ) -> None:
            assert len(warps) == len(registers) == len(calls) - 1
            block.run([(f"partition {i}", functools.partial(f, *args)) for i, (f, args) in enumerate(calls)])

        def plain(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **options: Any) -> Any:
                found = function(*args, **options)
                return as_tensor(found) if isinstance(found, np.ndarray) else Int(found)

            return wrapped

        def load(pointer: Pointer, mask: Any = None, other: Any = 0) -> Any:
            return pointer.load(mask, other)

        self.gl = SimpleNamespace(
            float32=np.float32, int64=np.int64, constexpr=lambda x: x,
            NVMMADistributedLayout=lambda *_: None, DotOperandLayout=lambda *_: None, SliceLayout=lambda *_: None,
            program_id=lambda axis: Int(program[axis]), num_programs=lambda axis: Int(grid[axis]),
            static_range=range, arange=lambda low, high, layout=None: as_tensor(np.arange(low, high, dtype=np.int32)),
            zeros=lambda shape, dtype, layout=None: as_tensor(np.zeros(shape, dtype)),
            full=lambda shape, value, dtype, layout=None: as_tensor(np.full(shape, value, dtype)),
            where=plain(np.where), maximum=plain(np.maximum), minimum=plain(np.minimum),
            max=lambda x, axis: as_tensor(x.max(axis)), sum=lambda x, axis: as_tensor(x.sum(axis)),
            exp2=lambda x: as_tensor(np.exp2(x)), log2=self._log2, convert_layout=lambda x, layout: x,
            cdiv=lambda a, b: -(-a // b), load=load,
            store=lambda pointer, value, mask: pointer.store(value, mask),
            allocate_shared_memory=allocate, warp_specialize=specialize,
        )  # fmt: skip
        self.mbarrier = SimpleNamespace(
            MBarrierLayout=lambda: "mbarriers", init=lambda bar, count: bar.init(count),
            expect=self._expect, arrive=self._arrive, wait=self._wait,
        )  # fmt: skip
        self.tma = SimpleNamespace(
            async_load=self._load, async_store=self._store, store_wait=self._store_wait
        )

    def _log2(self, x: Any) -> Any:
        with np.errstate(divide="ignore"):
            return as_tensor(np.log2(x))

    def _expect(self, bar: Barrier, size: int) -> None:
        self.block.pause()
        bar.arrive(1, size)

    def _arrive(self, bar: Barrier, *, count: int = 1) -> None:
        self.block.pause()
        bar.arrive(count)

    def _wait(self, bar: Barrier, phase: int, pred: bool = True) -> None:
        if pred:
            self.block.pause(lambda: bar.passed(int(phase)))
            self.block.current.known |= bar.published

    def _load(self, desc: Descriptor, coord: Sequence[int], bar: Barrier, to: Memory) -> None:
        block, (region,) = self.block, to.regions
        block.pause()
        assert list(to.array.shape) == desc.block_shape
        region.check_write(block)
        region.written, region.reads, region.fenced = block.event(), [], True
        known = {region.written, *block.current.known}
        to.array[...] = np.nan

        def land() -> None:
            desc.read(coord, to.array)
            bar.land(desc.nbytes, known)

        block.flying.append(land)

    def _store(self, desc: Descriptor, coord: Sequence[int], source: Memory) -> None:
        self.block.pause()
        one = Store(self.block, desc, coord, source)
        self.block.current.stores.append(one)
        self.block.flying.append(one.complete)

    def _store_wait(self, pending: int) -> None:
        self.block.pause()
        me = self.block.current
        while len(me.stores) > pending:
            one = me.stores.pop(0)
            one.complete()
            me.known.add(one.event)

    def fence(self) -> None:
        self.block.pause()
        for region in self.block.current.unfenced:
            region.fenced = True
        self.block.current.unfenced.clear()

    def product(self, a: Any, b: Memory, acc: Any, *, use_acc: bool = True, is_async: bool = False) -> Any:
        self.block.pause()
        one = Product(self.block, a, b, acc, use_acc)
        self.block.current.products.append(one)
        return one if is_async else self.wait_products(0, deps=(one,))

    def wait_products(self, outstanding: int, deps: Sequence[Any]) -> Any:
        self.block.pause()
        me = self.block.current
        while len(me.products) > outstanding:
            one = me.products.pop(0)
            one.complete()
            me.known.add(one.event)
        found = []
        for dep in deps:
            if isinstance(dep, Product):
                if dep.result is None:
                    self.block.fail("takes a product that is still in flight")
                dep = dep.result
            found.append(dep)
        return found[0] if len(found) == 1 else tuple(found)


def _jit(function: Any = None, **_: Any) -> Any:
    return function or (lambda one: one)


@functools.cache
def _compiled(source: str) -> CodeType:
    """A kernel's module without its imports."""
    tree = ast.parse(source)
    tree.body = [
        node for node in tree.body
        if not isinstance(node, ast.Import | ast.ImportFrom) or getattr(node, "module", "") == "__future__"
    ]  # fmt: skip
    return compile(tree, KERNEL_FILE, "exec")


def source_of(module: str) -> str:
    """The text of a module of the package, which is not imported."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


def run(
    sources: Sequence[str], kernel: str, args: Sequence[Any], options: dict[str, Any], grid: tuple[int, int, int], *,
    seed: int, programs: Iterable[tuple[int, int, int]] | None = None,
) -> None:  # fmt: skip
    """Run every program of `grid`, or those named, of a kernel whose modules are given, helpers first.

    `args` are Descriptors, Pointers and numbers. Raises KernelError with what went wrong and where.
    """
    rng = random.Random(seed)
    for program in programs or np.ndindex(*grid):
        block = Block(rng)
        language = _Language(block, program, grid)
        names: dict[str, Any] = {
            "gl": language.gl, "tl": language.gl, "tma": language.tma, "mbarrier": language.mbarrier,
            "gluon": SimpleNamespace(jit=_jit), "triton": SimpleNamespace(jit=_jit),
            "fence_async_shared": language.fence, "warpgroup_mma": language.product,
            "warpgroup_mma_wait": language.wait_products,
        }  # fmt: skip
        for source in sources:
            exec(_compiled(source), names)
        with np.errstate(invalid="raise", over="raise"):
            names[kernel](*args, **options)
