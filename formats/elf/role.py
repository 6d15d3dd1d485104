"""What one PT_LOAD may be when it meets a given choice of duties: the sets of its fields, one after another."""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.pieces import Piece, Span, Window


class Role(NamedTuple):
    """The bounds of a segment that meets a given choice of duties.

    low <= vaddr <= high; offset <= high_offset; vaddr + filesz >= reach; offset + filesz >= reach_offset;
    vaddr + memsz <= roof; offset + filesz <= limit; least_shift <= vaddr - offset <= most_shift; filesz >= least;
    offset >= low_offset. ``reach`` 0 and ``reach_offset`` 0 ask nothing, and so do shifts of None. ``congruent``:
    also where the file holds nothing.
    """

    low: int
    high: int
    high_offset: int
    reach: int
    reach_offset: int
    roof: int
    limit: int
    page: int
    bss: int
    needs_x: bool
    least_shift: int | None = None
    most_shift: int | None = None
    congruent: bool = False
    least: int = 0
    low_offset: int = 0
    needs_w: bool = False

    @property
    def idle(self) -> bool:
        """Whether it meets no duty, so that it may be empty and anywhere."""
        return not self.reach and not self.reach_offset

    @property
    def _top(self) -> int:
        """The greatest address of an idle one."""
        return min(self.high, self.roof - self.least)

    def _shift(self) -> tuple[int, int]:
        """Bounds on vaddr - offset that hold whatever the offset, multiples of the page: (least, greatest)."""
        page = self.page
        least = self.reach - self.limit if self.reach else -self.limit
        if self.least_shift is not None:
            least = max(least, self.least_shift)
        most = self.roof - self.reach_offset
        if self.most_shift is not None:
            most = min(most, self.most_shift)
        return -(-least // page) * page, most // page * page

    def offsets(self) -> Piece | None:
        """The values of p_offset; None when the role is impossible."""
        page = self.page
        if self.idle:
            top = self._top
            if self.low > top or self.limit < self.least:
                return None
            last = self.limit - self.least
            if self.low_offset > last:
                return None
            if not self.congruent or top - self.low >= page - 1:
                return Span(self.low_offset, last)
            window = Window(self.low_offset, last, page, 0, top % page)
            return window if window.bounds() is not None else None
        if max(self.reach_offset, self.reach - self.roof) > self.limit or self.reach > self.roof:
            return None
        least, most = self._shift()
        low, high = (
            max(self.low_offset, self.low - most),
            min(self.high_offset, self.high - least, self.limit),
        )
        if least > most or low > high or self.high // page * page < self.low:
            return None
        if self.high // page * page > self.low:
            return Span(low, high)
        window = Window(low, high, page, 0, self.high % page)
        return window if window.bounds() is not None else None

    def addresses(self, offset: int) -> Piece | None:
        """The values of p_vaddr for that offset."""
        if self.idle:
            if not self.low_offset <= offset <= self.limit - self.least:
                return None
            page = self.page if self.congruent else 1
            span = Span(self.low, self._top, page, offset)
            return span if span.bounds() is not None else None
        if not self.low_offset <= offset <= self.high_offset:
            return None
        least, most = self._shift()
        low, high = max(self.low, offset + least), min(self.high, offset + most)
        span = Span(low, high, self.page, offset)
        return span if low <= high and span.bounds() is not None else None

    def sizes(self, offset: int, address: int) -> Piece | None:
        """The values of p_filesz for that offset and address."""
        if not self.low <= address <= min(self.high, self.roof) or not (
            self.low_offset <= offset <= self.high_offset
        ):
            return None
        if (address - offset) % self.page:
            return Span(0, 0) if self.idle and not self.congruent else None
        if not self.idle:
            low, high = self._shift()
            if not low <= address - offset <= high:
                return None
        least = max(self.least, self.reach - address if self.reach else 0, self.reach_offset - offset)
        most = min(self.limit - offset, self.roof - address)
        return Span(least, most) if least <= most else None

    def memory(self, offset: int, address: int, size: int) -> Piece | None:
        """The values of p_memsz for that offset, address and file size."""
        sizes = self.sizes(offset, address)
        if sizes is None or not sizes.contains(size):
            return None
        return Span(size, min(self.roof - address, size + self.bss))


def down(address: int, page: int) -> int:
    """The page that an address lies in."""
    return address // page * page


def up(address: int, page: int) -> int:
    """The first page at or above an address."""
    return -(-address // page) * page
