"""What a block of a Gluon kernel runs on, for `gluon_emulator`: partitions, shared memory, mbarriers, TMA, wgmma.

An access is an event; a partition knows the events that happened before, by its own order and by the barriers that it
has waited for. A write asks that all earlier accesses are known, a read that the write is.
"""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


class KernelError(AssertionError):
    """What the kernel did wrong, and where."""


class Stopped(BaseException):
    """Raised in partitions after another one has failed."""


KERNEL_FILE = "<kernel>"


def line_of_kernel() -> str:
    """The innermost line of the kernel's source that is being executed."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename != KERNEL_FILE:
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_name}, line {frame.f_lineno}"


class Tensor(np.ndarray):
    """A tensor in registers."""

    def to(self, dtype: Any) -> Tensor:
        return self.astype(dtype)


def as_tensor(x: Any) -> Any:
    return np.asarray(x).view(Tensor)


class Int(np.int32):
    """A 32-bit scalar; numpy tells of its overflow."""

    def to(self, dtype: Any) -> Any:
        return dtype(self)


class Partition:
    """One thread of the kernel and what it knows: the accesses that happened before its next one."""

    def __init__(self, name: str, call: Callable[[], None], known: Iterable[int]) -> None:
        self.name, self.call, self.known = name, call, set(known)
        self.awake = threading.Semaphore(0)
        self.ready: Callable[[], bool] | None = None
        self.where = ""
        self.done = False
        self.unfenced: list[Region] = []
        self.products: list[Product] = []
        self.stores: list[Store] = []


class Block:
    """One program: its partitions, its copies in flight, whose turn it is."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        # Some runs land copies at once, in others they keep everybody waiting.
        self.haste = rng.choice([0.05, 0.3, 1.0])
        self.partitions: list[Partition] = []
        self.flying: list[Callable[[], None]] = []
        self.current = Partition("the kernel", lambda: None, ())
        self.events = 0
        self.error: BaseException | None = None
        self.finished = threading.Event()

    def event(self) -> int:
        self.events += 1
        return self.events

    def run(self, calls: Sequence[tuple[str, Callable[[], None]]]) -> None:
        """Run the partitions to their end; raise what went wrong first."""
        self.partitions = [Partition(name, call, self.current.known) for name, call in calls]
        threads = [threading.Thread(target=self._body, args=(p,), daemon=True) for p in self.partitions]
        for thread in threads:
            thread.start()
        self._pass_on()
        self.finished.wait()
        for thread in threads:
            thread.join()
        if self.error is not None:
            raise self.error

    def _body(self, partition: Partition) -> None:
        partition.awake.acquire()
        try:
            if self.error is None:
                with np.errstate(invalid="raise", over="raise"):
                    partition.call()
                if partition.stores:
                    raise KernelError(f"{partition.name} ends before its stores have read shared memory")
                if partition.products:
                    raise KernelError(f"{partition.name} ends with products in flight")
        except Stopped:
            pass
        except BaseException as error:
            self.error = self.error or error
        partition.done = True
        self._pass_on()

    def _pass_on(self) -> None:
        """Wake somebody who can go on; let copies land meanwhile."""
        while True:
            alive = [p for p in self.partitions if not p.done]
            if not alive:
                while self.flying and self.error is None:
                    self._land()
                self.finished.set()
                return
            able = alive if self.error else [p for p in alive if p.ready is None or p.ready()]
            if self.flying and not self.error and (not able or self.rng.random() < self.haste):
                self._land()
                continue
            if not able:
                waits = "; ".join(f"{p.name} waits in {p.where}" for p in alive)
                self.error = KernelError(f"no partition can go on: {waits}")
                continue
            self.current = self.rng.choice(able)
            self.current.ready = None
            self.current.awake.release()
            return

    def _land(self) -> None:
        self.flying.pop(self.rng.randrange(len(self.flying)))()

    def pause(self, ready: Callable[[], bool] | None = None) -> None:
        """Let others run; come back when `ready`."""
        if not self.partitions:  # before partitions there is one thread
            assert ready is None or ready()
            return
        me = self.current
        me.ready, me.where = ready, line_of_kernel()
        self._pass_on()
        me.awake.acquire()
        if self.error is not None:
            raise Stopped

    def fail(self, message: str) -> None:
        raise KernelError(f"{self.current.name}: {message} ({line_of_kernel()})")


class Region:
    """A piece of shared memory that is written and read as a whole."""

    def __init__(self, array: np.ndarray, name: str) -> None:
        self.array, self.name = array, name
        self.written: int | None = None
        self.reads: list[int] = []
        self.fenced = True

    def check_read(self, block: Block) -> None:
        """Of tensor cores and TMA, to which ordinary stores are visible after a fence only."""
        if not self.fenced:
            block.fail(f"reads {self.name}, which was stored to without a fence since")
        if self.written is None or self.written not in block.current.known:
            block.fail(f"reads {self.name} before a barrier has said that it is written")

    def check_write(self, block: Block) -> None:
        late = [read for read in self.reads if read not in block.current.known]
        if late or (self.written is not None and self.written not in block.current.known):
            block.fail(f"writes {self.name} while it may still be {'read' if late else 'written'}")


class Memory:
    """Shared memory, or a view of it."""

    def __init__(self, block: Block, array: np.ndarray, regions: list[Region]) -> None:
        self.block, self.array, self.regions = block, array, regions
        self.dtype = array.dtype.type

    def index(self, i: int) -> Memory:
        if not 0 <= i < len(self.array):
            self.block.fail(f"stage {i} of {len(self.array)}")
        return Memory(self.block, self.array[i], [self.regions[i]])

    def _seen(self, array: np.ndarray) -> Memory:
        return Memory(self.block, array, self.regions)

    def reshape(self, shape: Sequence[int]) -> Memory:
        return self._seen(self.array.reshape(shape))

    def permute(self, order: Sequence[int]) -> Memory:
        return self._seen(self.array.transpose(order))

    def store(self, value: Tensor) -> None:
        (region,) = self.regions
        self.block.pause()
        region.check_write(self.block)
        assert value.shape == self.array.shape
        assert value.dtype == self.array.dtype
        region.written, region.reads, region.fenced = self.block.event(), [], False
        self.block.current.known.add(region.written)
        self.block.current.unfenced.append(region)
        self.array[...] = value


class Barrier:
    """An mbarrier: arrivals and bytes that complete a phase, and what is known to whoever waits for it."""

    def __init__(self, block: Block, name: str) -> None:
        self.block, self.name = block, name
        self.count: int | None = None
        self.phase = self.pending = self.bytes = 0
        self.gathered: set[int] = set()
        self.published: set[int] = set()

    def init(self, count: int) -> None:
        self.count = self.pending = count

    def arrive(self, count: int, expected: int = 0) -> None:
        if self.count is None:
            self.block.fail(f"arrives at {self.name}, which is not set up")
        self.bytes += expected
        self.pending -= count
        if self.pending < 0:
            self.block.fail(f"arrives at {self.name} once too often")
        self.gathered |= self.block.current.known
        self._turn()

    def land(self, size: int, known: set[int]) -> None:
        self.bytes -= size
        self.gathered |= known
        self._turn()

    def _turn(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.phase ^= 1
            assert self.count is not None
            self.pending = self.count
            self.published, self.gathered = self.gathered, set()

    def passed(self, parity: int) -> bool:
        """Whether the phase of this parity is the one before the current one."""
        return self.phase != parity


class Barriers:
    def __init__(self, block: Block, count: int, name: str) -> None:
        self.block = block
        self.all = [Barrier(block, f"{name}[{i}]") for i in range(count)]

    def index(self, i: int) -> Barrier:
        if not 0 <= i < len(self.all):
            self.block.fail(f"barrier {i} of {len(self.all)}")
        return self.all[i]


class Descriptor:
    """What TMA copies from or to: an array and the shape of a tile. Counts what is written."""

    def __init__(self, array: np.ndarray, block_shape: Sequence[int]) -> None:
        self.array, self.block_shape, self.layout = array, list(block_shape), None
        self.dtype = array.dtype.type
        self.writes = np.zeros(array.shape if array.flags.writeable else 0, dtype=np.int8)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.block_shape)) * self.array.dtype.itemsize

    def _overlap(self, coord: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where a tile lies in the array, and which part of the tile that is; what lies outside is left out."""
        inside, part = [], []
        for start, size, limit in zip(coord, self.block_shape, self.array.shape, strict=True):
            low, high = min(max(int(start), 0), limit), min(max(int(start) + size, 0), limit)
            inside.append(slice(low, high))
            part.append(slice(low - int(start), high - int(start)))
        return tuple(inside), tuple(part)

    def read(self, coord: Sequence[int], to: np.ndarray) -> None:
        inside, part = self._overlap(coord)
        to[...] = 0
        to[part] = self.array[inside]

    def write(self, coord: Sequence[int], tile: np.ndarray) -> None:
        inside, part = self._overlap(coord)
        self.array[inside] = tile[part]
        self.writes[inside] += 1


class Product:
    """A wgmma in flight: it reads its operands when it is waited for, and until then they must stay."""

    def __init__(self, block: Block, a: Any, b: Memory, acc: Any, use_acc: bool) -> None:
        self.a, self.b, self.acc, self.use_acc = a, b, acc, use_acc
        self.event = block.event()
        self.result: Tensor | None = None
        for operand in (a, b):
            if isinstance(operand, Memory):
                for region in operand.regions:
                    region.check_read(block)
                    region.reads.append(self.event)
        if isinstance(acc, Product):
            block.fail("adds to an accumulator in flight")

    def complete(self) -> None:
        a, b = (x.array if isinstance(x, Memory) else x for x in (self.a, self.b))
        product = a.astype(np.float32) @ b.astype(np.float32)
        self.result = as_tensor(self.acc + product if self.use_acc else product)


class Store:
    """A copy from shared memory by TMA."""

    def __init__(self, block: Block, desc: Descriptor, coord: Sequence[int], source: Memory) -> None:
        (self.region,) = source.regions
        self.desc, self.coord, self.source = desc, list(coord), source.array
        self.region.check_read(block)
        self.event, self.done = block.event(), False
        self.region.reads.append(self.event)

    def complete(self) -> None:
        if not self.done:
            self.done = True
            self.desc.write(self.coord, self.source)


class Pointer:
    """An address of global memory, or a tensor of them."""

    def __init__(self, array: np.ndarray, offset: Any = 0) -> None:
        self.array, self.offset = array, offset

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.array, self.offset + more)

    def load(self, mask: Any, other: Any) -> Any:
        offset = np.asarray(self.offset)
        keep = np.broadcast_to(True if mask is None else mask, offset.shape)
        assert ((offset >= 0) & (offset < self.array.size) | ~keep).all(), "a load outside its array"
        loaded = np.where(keep, self.array[np.where(keep, offset, 0)], other)
        return as_tensor(loaded) if loaded.shape else Int(loaded)

    def store(self, value: Tensor, mask: Any) -> None:
        keep = np.asarray(mask)
        at = np.asarray(self.offset)[keep]
        assert ((at >= 0) & (at < self.array.size)).all(), "a store outside its array"
        self.array[at] = np.asarray(value)[keep]
