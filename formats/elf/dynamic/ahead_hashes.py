"""The grammars of hash tables that the dynamic section promises ahead.

Where both kinds lie ahead, the one that comes first tells the number of symbols, and keeps room for as many in the
other.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Span
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf import tables
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.ahead import Facts
from bytegen.formats.elf.dynamic.settled import MOST, count_settled, hash_read
from bytegen.formats.elf.dynamic.symbols import Symbols
from bytegen.formats.elf.dynamic.version_debts import counted, sure_symbols, symbols_with_index
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.written import Lazily


def _waiting(plan: Plan, start: int) -> list[Region]:
    """The hash tables to come from an offset on."""
    regions = plan.ledger.starting(start)
    return [region for region in regions if region.kind in ("hash", "gnu_hash") and region.detail is not None]


def _room_in(plan: Plan, region: Region) -> int:
    """How many symbols a hash table to come can have: DT_HASH has a chain for each, the other may be empty."""
    return (_stop(plan, region) - region.start) // 4 - 3 if region.kind == "hash" else MOST


def _telling(plan: Plan, region: Region, count: int) -> Plan:
    """The plan in which a hash table to come knows the number of symbols, and has room for them."""
    end = max(region.end, region.start + 12 + 4 * count) if region.kind == "hash" else region.end
    known = region._replace(detail=region.detail._replace(exact=count), end=end)
    return plan._replace(ledger=plan.ledger.replace(region, known)).reach(end)


def _symbols_left(plan: Plan, region: Region, data: bytearray) -> int:
    """The greatest number of symbols that a hash table may give: those written, or those there is room for."""
    facts: Facts = region.detail
    if facts.exact is not None:
        return facts.exact
    most = symbols_with_index(plan, data, facts.indices)
    most = min([most, *(_room_in(plan, other) for other in _waiting(plan, region.end))])
    if 0 <= facts.symtab < region.start:
        load = facts.map.find(facts.address)
        assert load is not None
        high = min(load.offset + load.filesz, region.start)
        raw = bytes(data)
        symbols = Symbols(raw, AddressMap(facts.map.loads, region.start), plan.target, plan.tls_size)
        return min(most, symbols.run(facts.symtab, high, min(most, MOST), facts.names))
    return min(most, _room_for_symbols(plan, facts))


def _room_for_symbols(plan: Plan, facts: Facts) -> int:
    """How many symbols have room where they are promised ahead."""
    known = plan.ledger.at(facts.symtab, "dynsym")
    load = facts.map.find(facts.address)
    assert known is not None
    assert load is not None
    following = plan.ledger.after(known.end)
    stop = min(load.offset + load.filesz, plan.limit if following is None else following.start)
    return (stop - known.start) // plan.target.sym_size


def _with_symbols(plan: Plan, region: Region, count: int) -> Plan:
    """The plan in which what lies ahead has room for as many symbols as the hash table says."""
    facts: Facts = region.detail
    plan = counted(plan, count)
    for other in _waiting(plan, region.end):
        plan = _telling(plan, other, count)
    if facts.symtab < region.start:
        return plan
    known = plan.ledger.at(facts.symtab, "dynsym")
    assert known is not None
    end = known.start + count * plan.target.sym_size
    if end <= known.end:
        return plan
    return plan._replace(ledger=plan.ledger.replace(known, known._replace(end=end))).reach(end)


def _stop(plan: Plan, region: Region) -> int:
    """How far a hash table may grow."""
    if region.detail.stop:
        return int(region.detail.stop)
    load = region.detail.map.find(region.detail.hash_address)
    assert load is not None
    following = plan.ledger.after(region.end)
    end = load.offset + load.filesz - (region.kind == "gnu_hash")  # see `AddressMap.plain`
    return min(end, plan.limit if following is None else following.start)


@opener("hash")
def _open_hash(plan: Plan, region: Region, data: bytearray) -> Step:
    facts: Facts = region.detail
    room = (_stop(plan, region) - region.start) // 4 - 2
    most = min(_symbols_left(plan, region, data), room - 1)
    least = max(facts.used, facts.exact or 1)
    start = region.start

    def symbols(count: int, data: bytearray) -> Step:
        choices = interval(4, least, min(most, room - count))

        def then(value: int, data: bytearray) -> Step:
            return _Hash(plan, region, count, value).entry(0, data)

        return IntStep(start + 4, 4, choices, "hash.nchain", "the number of symbols", then)

    rule = f"1 to {room - least}: the buckets that fit"
    return IntStep(start, 4, interval(4, 1, room - least), "hash.nbucket", rule, symbols)


class _Hash:
    """The entries of a DT_HASH table being read: buckets, then chains, each 0 or a symbol that none before names.

    So no symbol is in two chains, and every chain from a bucket ends.
    """

    __slots__ = ("buckets", "plan", "region", "symbols")

    def __init__(self, plan: Plan, region: Region, buckets: int, symbols: int) -> None:
        self.plan, self.region, self.buckets, self.symbols = plan, region, buckets, symbols

    def entry(self, index: int, data: bytearray) -> Step:
        """Entry ``index``, the chains' after those of the buckets."""
        if index == self.buckets + self.symbols:
            return self.end(data)
        start = self.region.start + 8
        named = np.frombuffer(bytes(data[start : start + 4 * index]), "<u4")

        def contains(symbol: int) -> bool:
            return 0 < symbol < self.symbols and not (named == symbol).any()

        def build() -> np.ndarray:
            return np.setdiff1d(np.arange(1, self.symbols, dtype=np.uint64), named)

        def path() -> str:
            chain = index - self.buckets
            return f"hash.bucket[{index}]" if chain < 0 else f"hash.chain[{chain}]"

        choices = IntSet(4, Finite((0,)), Lazily(contains, build))
        rule = "0, or a symbol that no entry before names"
        return IntStep(
            start + 4 * index, 4, choices, path, rule, lambda value, data: self.entry(index + 1, data)
        )

    def end(self, data: bytearray) -> Step:
        """What comes after the table."""
        size = 8 + 4 * (self.buckets + self.symbols)
        plan = hash_read(_with_symbols(self.plan, self.region, self.symbols), "hash", size, self.symbols)
        end = self.region.start + size
        return proceed(plan.reach(end), end, data)


_GOES_ON = Record(
    ("chain", 4, interval(4, 0, 0xFFFFFFFE, 2), "even: the chain goes on, to symbols that are used")
)


@opener("gnu_hash")
def _open_gnu_hash(plan: Plan, region: Region, data: bytearray) -> Step:
    most = _symbols_left(plan, region, data)
    return _GnuHash(plan, region, most).begin()


class _GnuHash:
    """A GNU hash table being read: ``most`` symbols at most, ``stop`` its greatest end."""

    __slots__ = ("bloom", "buckets", "first", "most", "plan", "region", "stop", "used", "word")

    def __init__(self, plan: Plan, region: Region, most: int) -> None:
        self.plan, self.region, self.most = plan, region, most
        self.stop = _stop(plan, region)
        self.used: int = max(region.detail.used, region.detail.exact or 0)
        self.word = plan.target.word
        self.buckets = self.first = self.bloom = 0

    def _number(self, index: int, choices: IntSet, name: str, rule: str, then: object) -> Step:
        assert callable(then)
        return IntStep(
            self.region.start + 4 * index, 4, choices, f"gnu_hash.{name}", rule,
            lambda value, data: then(self._with(index, value)),
        )  # fmt: skip

    def _with(self, index: int, value: int) -> _GnuHash:
        twin = _GnuHash(self.plan, self.region, self.most)
        twin.buckets, twin.first, twin.bloom = self.buckets, self.first, self.bloom
        if index < 3:
            setattr(twin, ("buckets", "first", "bloom")[index], value)
        return twin

    def begin(self) -> Step:
        most = (self.stop - self.region.start - 16 - self.word) // 4
        rule = f"1 to {most}: the buckets that fit"
        return self._number(0, interval(4, 1, most), "nbuckets", rule, lambda table: table.offset())

    def offset(self) -> Step:
        rule = "at least 1: the first symbol that the table holds"
        return self._number(1, interval(4, 1, 0xFFFFFFFF), "symoffset", rule, lambda table: table.size())

    def size(self) -> Step:
        most = (self.stop - self.region.start - 16 - 4 * self.buckets) // self.word
        powers = [1 << i for i in range(32) if 1 << i <= most]
        rule = f"a power of two up to {most}: the words that fit"
        return self._number(2, exactly(4, *powers), "bloom_size", rule, lambda table: table.shift())

    def shift(self) -> Step:
        rule = "less than the bits of a word"
        return self._number(
            3, interval(4, 0, 8 * self.word - 1), "bloom_shift", rule, lambda table: table.words()
        )

    def words(self) -> Step:
        start = self.region.start + 16
        stop = start + self.word * self.bloom
        return FreeStep(start, stop, None, "gnu_hash.bloom", "", lambda data: self.heads(stop))

    def heads(self, start: int) -> Step:
        chains = start + 4 * self.buckets
        room = (self.stop - chains) // 4
        last = min(self.most - 1, self.first + room - 1)
        # The last chain has to reach the symbols that are used already.
        fits = last >= self.first and self.used - 1 <= last
        choices = IntSet(4, Finite((0,)), *([Span(self.first, last)] if fits else []))
        record = Record(("bucket", 4, choices, "0, or a symbol that the table holds"))
        return RecordsStep(start, self.buckets, record, "gnu_hash", lambda data: self.chains(chains, data))

    def chains(self, start: int, data: bytearray) -> Step:
        raw = data[start - 4 * self.buckets : start]
        last = max(int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4))
        if not last:
            plan = hash_read(self.plan, "gnu_hash", start - self.region.start, None)
            return proceed(plan.reach(start), start, data)
        end = start + 4 * (last - self.first)
        if end == start:
            return self.last(start, last)
        return FreeStep(start, end, None, "gnu_hash.chains", "", lambda data: self.last(end, last))

    def last(self, start: int, head: int) -> Step:
        """The last chain, from the first symbol in it: it goes on up to the symbols that are used already."""
        count = self.used - 1 - head
        if count <= 0:
            return self.link(start, head)
        end = start + 4 * count
        return RecordsStep(start, count, _GOES_ON, "gnu_hash.last", lambda data: self.link(end, head + count))

    def link(self, start: int, index: int) -> Step:
        """The hash of symbol ``index``, at or after the first of the last chain: an odd one ends the table."""
        final = index + 1 >= self.most or start + 8 > self.stop

        def after(value: int, data: bytearray) -> Step:
            if not value & 1:
                return self.link(start + 4, index + 1)
            plan = _with_symbols(self.plan, self.region, index + 1).reach(start + 4)
            plan = hash_read(plan, "gnu_hash", start + 4 - self.region.start, index + 1)
            return proceed(plan, start + 4, data)

        choices = interval(4, 0, 0xFFFFFFFF, 2, 1) if final else anything(4)
        return IntStep(
            start, 4, choices, lambda: f"gnu_hash.chain[{index}]", "odd where its chain ends", after
        )  # fmt: skip


def _counts(plan: Plan, raw: bytes) -> tuple[int, int]:
    """See `tables.Hooks.counts`."""
    pending = _waiting(plan, len(raw))
    facts: Facts = pending[0].detail
    most = min([sure_symbols(plan, raw, facts.indices), *(_room_in(plan, region) for region in pending)])
    if 0 <= facts.symtab < len(raw):
        load = facts.map.find(facts.address)
        assert load is not None
        high = min(load.offset + load.filesz, len(raw))
        symbols = Symbols(raw, AddressMap(facts.map.loads, len(raw)), plan.target, plan.tls_size)
        return max(facts.used, 1), symbols.run(facts.symtab, high, min(most, MOST), facts.names)
    return max(facts.used, 1), min(most, _room_for_symbols(plan, facts))


def _count(plan: Plan, number: int) -> Plan:
    """See `tables.Hooks.count`."""
    pending = _waiting(plan, plan.shoff)
    facts: Facts = pending[0].detail
    for region in pending:
        plan = _telling(plan, region, number)
    known = plan.ledger.at(facts.symtab, "dynsym")
    if known is not None and known.start > plan.shoff:
        grown = known._replace(end=known.start + number * plan.target.sym_size)
        plan = plan._replace(ledger=plan.ledger.replace(known, grown)).reach(grown.end)
    return count_settled(counted(plan, number), number)


tables.Hooks.counts = staticmethod(_counts)
tables.Hooks.count = staticmethod(_count)
