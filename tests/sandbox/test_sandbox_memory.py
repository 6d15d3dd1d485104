"""The address space against a model of single pages."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bytegen.sandbox.engine import Engine
from bytegen.sandbox.memory import PAGE, READ, WRITE, AddressSpace, OutOfMemory, effective

BASE, PAGES = 0x100000, 24
ENGINE = Engine()

places = st.integers(0, PAGES - 1)
lengths = st.integers(1, 6)
permissions = st.integers(0, 7)


class Pages(RuleBasedStateMachine):
    """A dict of page number -> (permissions, content) is the model; every operation is done to both."""

    def __init__(self) -> None:
        super().__init__()
        self.space = AddressSpace(ENGINE)
        self.space.reset(16 * PAGE)
        self.model: dict[int, tuple[int, bytearray]] = {}

    def teardown(self) -> None:
        self.space.reset(0)
        assert list(ENGINE.uc.mem_regions()) == []

    @rule(first=places, count=lengths, prot=permissions)
    def map(self, first: int, count: int, prot: int) -> None:
        kept = [page for page in self.model if not first <= page < first + count]
        try:
            self.space.map(BASE + first * PAGE, count * PAGE, prot)
        except OutOfMemory:
            assert len(kept) + count > 16
            self.model = {page: self.model[page] for page in kept}
            return
        assert len(kept) + count <= 16
        for page in range(first, first + count):
            self.model[page] = (prot, bytearray(PAGE))

    @rule(first=places, count=lengths)
    def unmap(self, first: int, count: int) -> None:
        self.space.unmap(BASE + first * PAGE, count * PAGE)
        for page in range(first, first + count):
            self.model.pop(page, None)

    @rule(first=places, count=lengths, prot=permissions)
    def protect(self, first: int, count: int, prot: int) -> None:
        whole = self.space.protect(BASE + first * PAGE, count * PAGE, prot)
        assert whole == all(page in self.model for page in range(first, first + count))
        for page in range(first, first + count):
            if page not in self.model:
                break
            self.model[page] = (prot, self.model[page][1])

    @rule(
        offset=st.integers(0, PAGES * PAGE),
        data=st.binary(min_size=1, max_size=40),
        times=st.integers(1, 300),
    )
    def store(self, offset: int, data: bytes, times: int) -> None:
        block = data * times
        done = self.space.store(BASE + offset, block)
        expected = 0
        while expected < len(block):
            page, at = divmod(offset + expected, PAGE)
            if page not in self.model or not effective(self.model[page][0]) & WRITE:
                break
            size = min(PAGE - at, len(block) - expected)
            self.model[page][1][at : at + size] = block[expected : expected + size]
            expected += size
        assert done == expected

    @rule(offset=st.integers(0, PAGES * PAGE), size=st.integers(0, 3 * PAGE))
    def load(self, offset: int, size: int) -> None:
        expected = bytearray()
        while len(expected) < size:
            page, at = divmod(offset + len(expected), PAGE)
            if page not in self.model or not effective(self.model[page][0]) & READ:
                break
            expected += self.model[page][1][at : at + size - len(expected)]
        assert self.space.load(BASE + offset, size) == bytes(expected[:size])

    @rule(top=places, count=lengths)
    def find_gap(self, top: int, count: int) -> None:
        start = self.space.gap_below(BASE + top * PAGE, count * PAGE)
        assert start is not None
        page = (start - BASE) // PAGE
        assert page + count <= top
        free = [
            p
            for p in range(page + 1, top - count + 1)
            if all(q not in self.model for q in range(p, p + count))
        ]
        assert free == []
        assert all(q not in self.model for q in range(page, page + count))

    @invariant()
    def engine_maps_the_same_pages(self) -> None:
        assert self.space.total == PAGE * len(self.model)
        seen = {}
        for start, end, prot in ENGINE.uc.mem_regions():
            for address in range(start, end + 1, PAGE):
                seen[(address - BASE) // PAGE] = prot
        assert seen == {page: effective(prot) for page, (prot, _) in self.model.items()}


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
