"""What tables of versions that lie ahead of the dynamic section owe each other, from its end until they are read.

The indices of symbols' versions may come before the tables that define them: what they use is owed to those, which
must have room for it. Those that come later are judged by what has been defined, as tables behind are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.core.ledger import Region
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.symbols import RECORDS, Symbols
from bytegen.formats.elf.dynamic.version_state import contiguous
from bytegen.formats.elf.dynamic.versions import MOST_NAMES
from bytegen.formats.elf.plan import Plan

VERSYM, VERNEED, VERDEF = "versym", "verneed", "verdef"
NEED, DEFINITION = 16, 20  # bytes of an entry; of a name of it
NEED_NAME, DEFINITION_NAME = 16, 8
LEAST_NEED, LEAST_DEFINITION = NEED + NEED_NAME, DEFINITION + DEFINITION_NAME
HIDDEN, INDEX = 0x8000, 0x7FFF


class Place(NamedTuple):
    """Where a table lies, and how many entries it has."""

    offset: int
    address: int
    count: int = 0  # type: ignore[assignment]  # hides tuple.count


class Debts(NamedTuple):
    """Settled at the end of the dynamic section; the tables ahead change it as they are read.

    ``unread``: the tables ahead that are still to come. ``strings``: offset and size of the string table.
    ``needed``: where it has the names of libraries. ``symbols``: offset and address. ``least``: so many
    symbols have an index. ``exact``: whether that is all of them. ``defined``: the indices that tables behind or
    read define, ``needs`` those that the table of needs does. ``owed``: that some table ahead must define.
    ``hard``: that the table of needs must.
    """

    map: AddressMap
    strings: tuple[int, int]
    needed: tuple[int, ...]
    symbols: tuple[int, int]
    indices: Place | None  # where they lie ahead, or have
    unread: dict[str, Place]  # never changed in place
    least: int
    exact: bool
    defined: frozenset[int]
    needs: frozenset[int]
    owed: frozenset[int] = frozenset()
    hard: frozenset[int] = frozenset()

    @property
    def highest(self) -> int:
        """The greatest index up to which each is defined, or owed."""
        return contiguous(self.defined | self.owed)

    def read(self, name: str) -> Debts:
        """The debts after a table."""
        return self._replace(unread={key: place for key, place in self.unread.items() if key != name})

    def define(self, indices: frozenset[int], needs: bool) -> Debts:
        """The debts after a table of needs, or of definitions, that has these indices."""
        name = VERNEED if needs else VERDEF
        return self.read(name)._replace(
            defined=self.defined | indices,
            needs=self.needs | indices if needs else self.needs,
            owed=self.owed - indices,
            hard=frozenset() if needs else self.hard,
        )


def of(plan: Plan) -> Debts:
    """The debts of a plan that has some."""
    found: Debts | None = plan.versions
    assert found is not None
    return found


def region_of(plan: Plan, name: str) -> Region:
    """The promise of a table that is still to be read."""
    region = plan.ledger.at(of(plan).unread[name].offset, name)
    assert region is not None
    return region


def stop_of(plan: Plan, name: str) -> int:
    """How far a table may grow: to the next promise, or the end of its segment."""
    debts, region = of(plan), region_of(plan, name)
    load = debts.map.find(debts.unread[name].address)
    assert load is not None
    following = plan.ledger.after(region.end)
    return min(load.offset + load.filesz, plan.limit if following is None else following.start)


def grow(plan: Plan, name: str, size: int) -> Plan:
    """The plan in which a table ahead has ``size`` bytes at least, which must have room."""
    region = region_of(plan, name)
    end = region.start + size
    if end <= region.end:
        return plan
    assert end <= stop_of(plan, name)
    return plan._replace(ledger=plan.ledger.replace(region, region._replace(end=end))).reach(end)


def needs_room(plan: Plan) -> int:
    """How many versions a table of needs that is still to come can have; 0 where none is."""
    place = of(plan).unread.get(VERNEED)
    if place is None:
        return 0
    return min(MOST_NAMES, (stop_of(plan, VERNEED) - place.offset - NEED * place.count) // NEED_NAME)


def definitions_room(plan: Plan) -> int:
    """The same of definitions: an entry defines one."""
    place = of(plan).unread.get(VERDEF)
    return 0 if place is None else place.count


def undefined(plan: Plan, data: bytes | bytearray, start: int, stop: int) -> np.ndarray:
    """bool for each of the symbols from ``start`` up to ``stop``: it is written, and has no section."""
    debts, record = of(plan), RECORDS[plan.target.bits]
    offset = debts.symbols[0]
    count = min(stop, (len(data) - offset) // plan.target.sym_size) - start
    found = np.zeros(stop - start, dtype=bool)
    if count > 0:
        first = offset + start * plan.target.sym_size
        raw = bytes(data[first : first + count * plan.target.sym_size])
        found[:count] = np.frombuffer(raw, record)["shndx"] == 0
    return found


def indices_written(plan: Plan, data: bytes | bytearray, most: int) -> np.ndarray:
    """The indices, up to ``most``, that are written in the segment of their table, with the bit that hides them."""
    debts = of(plan)
    assert debts.indices is not None
    load = debts.map.find(debts.indices.address)
    assert load is not None
    start = debts.indices.offset
    count = min(most, (min(len(data), load.offset + load.filesz) - start) // 2)
    return np.frombuffer(bytes(data[start : start + 2 * count]), "<u2")


def symbols_with_index(plan: Plan, data: bytes | bytearray, most: int) -> int:
    """How many symbols, up to ``most``, have an index that is good or may come to be.

    Where the table of indices is still to come, as many as there is room for.
    """
    debts: Debts | None = plan.versions
    if debts is None or debts.indices is None:
        return most
    if VERSYM in debts.unread:
        return min(most, (stop_of(plan, VERSYM) - debts.indices.offset) // 2)
    values = indices_written(plan, data, most)
    indices = values & INDEX
    needs, hidden = debts.needs | debts.hard, values != indices
    unknown = debts.symbols[0] >= len(data)
    lacking = hidden if unknown else undefined(plan, data, 0, len(indices))
    good = (indices <= debts.highest) & (~lacking | np.isin(values, list(needs)))
    # readelf looks for a hidden one among the definitions alone.
    good &= ~hidden | np.isin(indices, list(debts.defined - debts.needs))
    good |= indices <= 1
    return len(good) if good.all() else int(good.argmin())


def sure_symbols(plan: Plan, data: bytes | bytearray, most: int) -> int:
    """How many symbols, up to ``most``, have a good index with nothing more to be promised."""
    debts: Debts | None = plan.versions
    if debts is None or debts.indices is None:
        return most
    if VERSYM in debts.unread or debts.symbols[0] >= len(data):
        return min(most, debts.least)
    return symbols_with_index(plan, data, most)


def symbols_known(plan: Plan, data: bytes | bytearray, names: int) -> int:
    """How many symbols relocations may name: as many as there are, else those that are written and good.

    0 where that is not known: a hash table is to come, or the symbols themselves.
    """
    debts: Debts | None = plan.versions
    if debts is None:
        return 0
    if debts.exact:
        return debts.least
    if debts.symbols[0] >= len(data):
        return 0
    if any(region.kind in ("hash", "gnu_hash") for region in plan.ledger.starting(len(data))):
        return 0
    load = debts.map.find(debts.symbols[1])
    assert load is not None
    raw = bytes(data)
    high = min(load.offset + load.filesz, len(raw))
    symbols = Symbols(raw, AddressMap(debts.map.loads, len(raw)), plan.target, plan.tls_size)
    most = sure_symbols(plan, raw, 1 << 31)
    return min(most, symbols.run(debts.symbols[0], high, min(most, 1 << 31), names))


def counted(plan: Plan, count: int) -> Plan:
    """The plan in which a hash table has told the number of symbols: so many have an index."""
    debts: Debts | None = plan.versions
    if debts is None:
        return plan
    plan = plan._replace(versions=debts._replace(exact=True, least=max(debts.least, count)))
    return grow(plan, VERSYM, 2 * count) if VERSYM in debts.unread else plan


def must_be_defined(plan: Plan, data: bytes | bytearray, count: int) -> frozenset[int]:
    """The symbols, still to be read, whose index is one that no table of needs has: tools look for them among the
    definitions."""
    debts: Debts | None = plan.versions
    if debts is None or debts.indices is None or VERSYM in debts.unread:
        return frozenset()
    indices = indices_written(plan, data, count) & INDEX
    found = (indices > 1) & ~np.isin(indices, list(debts.needs | debts.hard))
    return frozenset(np.flatnonzero(found).tolist())
