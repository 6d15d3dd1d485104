"""Level `code`: the entry point lies where instructions do, at a place of the file that nothing else is promised.

Its address comes first, then the tables, then the segment that maps it. Until that one is read, the entry may lie
at every offset behind the program headers that is congruent to its address modulo the page and still free; the
fields of the ELF header leave one between the program headers and the section headers.
"""

from __future__ import annotations

from bytegen.formats.core.ledger import Ledger
from bytegen.formats.core.pieces import Piece, Span, Window
from bytegen.formats.elf.plan import Plan


def size(plan: Plan) -> int:
    """Bytes that the first instruction has at least."""
    return 4 if plan.level == "code" and plan.target.instructions == "aarch64" else 1


def owed(plan: Plan) -> bool:
    """Whether the entry's place is still open."""
    return plan.level == "code" and plan.entry_owed


def addresses(plan: Plan, low: int, high: int) -> list[Piece]:
    """The addresses from ``low`` to ``high`` that the file can hold at their offset within a page."""
    page, step = plan.target.page, size(plan)
    first = plan.target.ehdr_size + plan.target.phdr_size if plan.level == "code" else 0
    last = plan.limit - step
    if last - first >= page - 1:
        return [Span(low, high, step)]
    ranges = [(first, min(last, page - 1))] if first < page else []
    if last >= page:
        ranges.append((max(first - page, 0), last - page))
    if step == 1:
        return [Window(low, high, page, a, b) for a, b in ranges]
    return [Span(low, high, page, x) for a, b in ranges for x in range(-(-a // step) * step, b + 1, step)]


def after(plan: Plan, start: int) -> int:
    """The first offset from ``start`` on that is congruent to the entry."""
    return start + (plan.entry - start) % plan.target.page


def before(plan: Plan, stop: int) -> int:
    """The last offset congruent to the entry at which an instruction ends by ``stop``."""
    last = stop - size(plan)
    return last - (last - plan.entry) % plan.target.page


def code_start(plan: Plan) -> int:
    """Where the executable parts read so far end in the file; at level code the next begins there or later."""
    return max((stop for _, stop, _ in plan.executable), default=0) if plan.level == "code" else 0


def places(plan: Plan, ledger: Ledger) -> tuple[tuple[int, int], ...]:
    """The file ranges in which the entry may lie: at level code, what nobody has been promised."""
    if plan.level != "code":
        return ((0, plan.limit),)
    start = code_start(plan)
    gaps = ((max(low, start), high) for low, high in ledger.gaps(plan.phdrs_end))
    return tuple((low, high) for low, high in gaps if low < high)


def without(ranges: tuple[tuple[int, int], ...], start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The ranges but for the bytes from ``start`` to ``end``."""
    parts = ((low, high) for a, b in ranges for low, high in ((a, min(b, start)), (max(a, end), b)))
    return tuple((low, high) for low, high in parts if low < high)


def candidates(plan: Plan, ranges: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Places for the first instruction: some in the ranges (`spread`), and those that what is held asks for."""
    step, page = size(plan), plan.target.page
    runs = [(after(plan, low), before(plan, high)) for low, high in ranges]
    found = set(spread([(first, (last - first) // page + 1) for first, last in runs], page))
    found.update(x for x in {plan.entry - item.shift for item in plan.held} if _inside(ranges, x, step))
    return [(x, x + step) for x in sorted(found)]


def at_or_first(plan: Plan, ranges: tuple[tuple[int, int], ...], place: int) -> list[tuple[int, int]]:
    """The first place for the first instruction in the ranges, and ``place`` if it lies in them."""
    step = size(plan)
    firsts = (after(plan, low) for low, high in ranges if after(plan, low) + step <= high)
    found = {x for x in (next(firsts, -1), place) if _inside(ranges, x, step)}
    return [(x, x + step) for x in sorted(found)]


def _inside(ranges: tuple[tuple[int, int], ...], place: int, step: int) -> bool:
    return any(low <= place <= high - step for low, high in ranges)


def spread(runs: list[tuple[int, int]], step: int) -> list[int]:
    """The first, the second, the 17th, the 257th, ... of the places in runs of them, each (first place, how many).

    Under a greater length limit the last run goes on, or one comes behind it: what is found before is found then too.
    """
    found, seen, wanted = [], 0, 0
    for first, count in runs:
        while count > 0 and wanted < seen + count:
            found.append(first + (wanted - seen) * step)
            wanted = 16 * wanted or 1
        seen += max(count, 0)
    return found
