"""Instruction tables: agreement with capstone, masks without dead ends, roles, fields, labels, provenance."""

from __future__ import annotations

import platform
import random
import re
import shutil
import sys
from pathlib import Path

import capstone
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats import FormatError
from bytegen.formats.code import automaton as tables
from bytegen.formats.code.automaton import Automaton, Label, Role, load, table_hash
from bytegen.formats.code.learn.minimise import minimise
from bytegen.formats.code.learn.probes import probe_hash
from bytegen.formats.code.learn.rules import RULES
from bytegen.formats.code.learn.tree import Learner

MODES = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "i386": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
MACHINES = list(MODES)
X86 = ["x86_64", "i386"]


def disassembler(name: str, detail: bool = False) -> capstone.Cs:
    machine = capstone.Cs(*MODES[name])
    machine.detail = detail
    return machine


def walk(automaton: Automaton, rng: random.Random, budget: int, state: int = tables.START) -> bytes:
    """Bytes picked inside the masks until an instruction ends."""
    out = b""
    while True:
        allowed = np.flatnonzero(automaton.mask(state, budget - len(out)))
        assert len(allowed), f"dead end after {out.hex()}"
        byte = int(rng.choice(allowed))
        out += bytes([byte])
        state = automaton.step(state, byte)
        if state >= automaton.accept:
            return out


@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("name", MACHINES)
@given(seed=st.integers(0, 2**32), budget=st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_every_walk_inside_the_masks_is_one_instruction(
    name: str, privileged: bool, seed: int, budget: int
) -> None:
    automaton = load(name, privileged=privileged)
    budget = 4 if name == "aarch64" else budget
    code = walk(automaton, random.Random(seed), budget)
    assert len(code) <= min(budget, 15)
    found = next(disassembler(name).disasm_lite(code, 0, 1), None)
    assert found is not None, code.hex()
    assert found[1] == len(code)
    assert [item[:2] for item in automaton.decode(code)] == [(0, len(code))]


@pytest.mark.parametrize("name", MACHINES)
def test_masks_are_exact(name: str) -> None:
    """A byte is allowed exactly when some instruction ends within the budget after it."""
    automaton = load(name)
    rng = random.Random(3)
    for state in [tables.START, *(rng.randrange(1, automaton.states) for _ in range(60))]:
        for budget in (0, 1, 2, 4, 9, 15, 40):
            mask = automaton.mask(state, budget)
            assert mask.shape == (257,)
            assert not mask.flags.writeable
            assert not mask[256]
            for byte in range(256):
                target = automaton.step(state, byte)
                ends = target >= automaton.accept
                need = 1 if ends else 1 + automaton.least[target]
                assert mask[byte] == (target != tables.DEAD and need <= min(budget, 15))


@pytest.mark.parametrize("name", MACHINES)
def test_least_is_reached_and_not_undercut(name: str) -> None:
    automaton = load(name)
    rng = random.Random(4)
    live = [q for q in range(1, automaton.states) if automaton.least[q] < tables.ENDLESS]
    for state in rng.sample(live, min(len(live), 200)):
        assert len(walk(automaton, rng, automaton.least[state], state)) == automaton.least[state]
        assert not automaton.mask(state, automaton.least[state] - 1).any()


def strings(rng: random.Random, wide: bool) -> bytes:
    """Prefixes in any order, an opcode of some map, and a tail; half of them plain random bytes."""
    if rng.random() < 0.4:
        return rng.randbytes(15)
    out = bytes(rng.choices(b"\x66\x66\xf2\xf3\xf0\x67\x2e\x3e\x64\x65", k=rng.randrange(5)))
    if wide and rng.random() < 0.5:
        out += bytes([0x40 + rng.randrange(16)])
    out += rng.choice([b"", b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\xc5", b"\xc4", b"\x62"])
    return (out + rng.randbytes(15))[: rng.choice([15, 15, 15, rng.randrange(1, 15)])]


@pytest.mark.parametrize("name", X86)
def test_what_the_table_takes_capstone_takes(name: str) -> None:
    automaton, judge, rng = load(name, privileged=True), disassembler(name), random.Random(5)
    taken = both = 0
    for _ in range(30_000):
        string = strings(rng, name == "x86_64")
        mine = next(automaton.decode(string), None)
        theirs = next(judge.disasm_lite(string, 0, 1), None)
        taken += theirs is not None
        if mine is not None:
            assert theirs is not None, string.hex()
            assert mine[1] == theirs[1], string.hex()
            both += 1
    assert both > 0.55 * taken > 5_000


needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler to build the comparer with"
)


@needs_compiler
@pytest.mark.parametrize("name", X86)
def test_every_difference_from_capstone_is_a_decision(name: str, tmp_path) -> None:
    from bytegen.formats.code.learn.agreement import Comparer

    comparer = Comparer(64 if name == "x86_64" else 32, load(name, privileged=True), tmp_path)
    for row in (comparer.strings(800_000, 11, plain=False), comparer.strings(200_000, 12, plain=True)):
        assert row["disagreements"] == 0, row["first"]
        assert row["accepted"] > 100_000  # type: ignore[operator]
        assert "none" not in row["rules"]  # type: ignore[operator]
    assert set(row["rules"]) <= set(RULES)  # type: ignore[call-overload]


@needs_compiler
def test_a_wrong_table_is_noticed(tmp_path) -> None:
    """The comparer sees one wrong transition: what it does not report is not there."""
    from bytegen.formats.code.learn.agreement import Comparer

    right = load("x86_64", privileged=True)
    following = right.following.copy()
    following[tables.START, 0x90] = tables.DEAD
    roles = np.frombuffer(right.roles, np.uint8).reshape(-1, 256)
    wrong = Automaton("x86_64", following, roles, right.accept, right.facts)
    row = Comparer(64, wrong, tmp_path).strings(100_000, 1, plain=True)
    assert row["disagreements"] > 100  # type: ignore[operator]


@needs_compiler
def test_random_words_agree_with_capstone(tmp_path) -> None:
    from bytegen.formats.code.learn.aarch64 import WordProbe

    probe, automaton = WordProbe(tmp_path), load("aarch64", privileged=True)
    words = np.random.default_rng(1).integers(0, 1 << 32, 400_000, dtype=np.uint32)
    state = np.full(len(words), tables.START, np.int64)
    for k in range(4):
        state = automaton.following[state, (words >> np.uint32(8 * k)) & np.uint32(255)].astype(np.int64)
    mine = np.where(state >= automaton.accept, state - automaton.accept + 1, 0)
    assert (mine == probe.labels(words)).all()
    assert 0.3 < (mine > 0).mean() < 0.4


@pytest.mark.parametrize("name", X86)
def test_displacement_fields_are_capstones(name: str) -> None:
    """Where a RIP-relative or branch displacement stands, against capstone's own encoding detail."""
    automaton, judge, rng = load(name), disassembler(name, detail=True), random.Random(6)
    seen = {"branch": 0, "rip": 0}
    for i in range(6_000):
        first = rng.choice([b"", b"\xe8", b"\xe9", b"\xeb", b"\x74", b"\x0f\x84", b"\x8b\x05", b"\xc7\x05"])
        state, code = tables.START, b""
        for byte in first:
            state = automaton.step(state, byte)
        code = first + walk(automaton, random.Random(i), 15 - len(first), state)
        _, length, label, field, size = next(automaton.decode(code))
        detail = next(judge.disasm(code, 0, 1))
        if label in (Label.JUMP, Label.BRANCH, Label.CALL):
            assert (field, size) == (detail.imm_offset, detail.imm_size), code.hex()
            assert field + size == length
            assert detail.operands[0].imm % 2**32 == (
                length + int.from_bytes(code[field : field + size], "little", signed=True)
            ) % 2**32  # fmt: skip
            seen["branch"] += 1
        elif any(o.type == capstone.x86.X86_OP_MEM and o.mem.base == capstone.x86.X86_REG_RIP
                 for o in detail.operands):  # fmt: skip
            assert (field, size) == (detail.disp_offset, 4), code.hex()
            seen["rip"] += 1
        else:
            assert size in (0, 4), code.hex()
    assert seen["branch"] > 1_000
    assert name == "i386" or seen["rip"] > 100


def test_roles_and_bytes_left() -> None:
    automaton = load("x86_64")
    expected = {
        "e8": (Role.RELATIVE, 4, 4), "e81122": (Role.RELATIVE, 2, 2), "eb": (Role.RELATIVE, 1, 1),
        "488b05": (Role.RIP_DISPLACEMENT, 4, 0), "488b0425": (Role.DISPLACEMENT, 4, 0),
        "c70424": (Role.IMMEDIATE, 4, 0), "c7442408": (Role.IMMEDIATE, 4, 0), "c745": (Role.DISPLACEMENT, 1, 0),
        "48b8": (Role.IMMEDIATE, 8, 0), "8b04": (Role.SIB, 0, 0), "0f10": (Role.MODRM, 0, 0),
        "c4e2": (Role.VEX, 0, 0), "c4e279": (Role.OPCODE, 0, 0), "66": (Role.NONE, 0, 0),
    }  # fmt: skip
    for text, (role, left, displacement) in expected.items():
        state = tables.START
        for byte in bytes.fromhex(text):
            state = automaton.step(state, byte)
        assert automaton.role_ahead[state] == role, text
        assert (automaton.left[state], automaton.displacement_left[state]) == (left, displacement), text


BARRED = {
    "x86_64": {
        Label.SYSTEM: "fa fb 0f06 0f30 0f32 0f33 0f0100 0f0118 0f20c0 0f22d8 0f01f8 0f09 0f08 0f00d8 0f34 480f07",
        Label.PORT: "ec ed ee ef e410 6c 6f f36d", Label.INTERRUPT: "cd80 cd03 f1",
        Label.FAR: "cb cf 48cf ff18 ff28 ca0000",
    },
    "i386": {
        Label.SYSTEM: "fa fb 0f06 0f30 0f20c0 0f05", Label.PORT: "ec e410", Label.INTERRUPT: "cd03 f1 ce",
        Label.FAR: "cb 9a001122334455 ea001122334455 cf",
    },
}  # fmt: skip
ALLOWED = {
    "x86_64": {
        Label.SYSCALL: "0f05", Label.TRAP: "cc 0f0b cd29 f4", Label.RETURN: "c3 c20800 f3c3", Label.CALL: "e800000000",
        Label.INDIRECT_CALL: "ffd0 ff1500000000", Label.INDIRECT_JUMP: "ffe0 3effe0", Label.JUMP: "eb00 e900000000",
        Label.BRANCH: "7400 0f8400000000 e300 e200 c7f800000000",
        Label.PLAIN: "90 f3900f1e f30f1efa 66666666662e0f1f840000000000 c5f877 62f17c4858c0 0fa2 0f31 f00fc108",
    },
    "i386": {Label.SYSCALL: "cd80 0f34", Label.PLAIN: "62f17c4858c0 c5f877 c408 6208 40 8b00"},
}  # fmt: skip


@pytest.mark.parametrize("name", X86)
def test_user_code_has_no_way_into_the_system_but_the_call(name: str) -> None:
    user, every = load(name), load(name, privileged=True)
    for label, texts in BARRED[name].items():
        for text in texts.split():
            code = bytes.fromhex(text)
            assert next(every.decode(code))[:3] == (0, len(code), label), text
            assert next(user.decode(code), None) is None, text
    for label, texts in ALLOWED[name].items():
        for text in texts.split():
            code = bytes.fromhex(text)
            for automaton in (user, every):
                assert next(automaton.decode(code))[2] == label, text


def test_user_words_of_aarch64() -> None:
    user, every = load("aarch64"), load("aarch64", privileged=True)
    allowed = {
        0xD4000001: Label.SYSCALL, 0x14000001: Label.JUMP, 0x97FFFFFF: Label.CALL, 0x54000040: Label.BRANCH,
        0xB4000040: Label.BRANCH, 0x37080040: Label.BRANCH, 0xD61F0000: Label.INDIRECT_JUMP,
        0xD63F0000: Label.INDIRECT_CALL, 0xD65F03C0: Label.RETURN, 0xD53BD040: Label.PLAIN, 0xD503201F: Label.PLAIN,
        0xD4200000: Label.TRAP, 0xD50B7420: Label.PLAIN, 0xD5380000: Label.PLAIN,
    }  # fmt: skip
    barred = [0xD4000002, 0xD4000003, 0xD69F03E0, 0xD5181000, 0xD5381000, 0xD50343DF, 0xD508871F, 0xD5087620]
    for word, label in allowed.items():
        code = word.to_bytes(4, "little")
        assert next(user.decode(code))[:3] == (0, 4, label), hex(word)
    for word in barred:
        code = word.to_bytes(4, "little")
        assert next(every.decode(code))[2] == Label.SYSTEM, hex(word)
        assert next(user.decode(code), None) is None, hex(word)


def test_evex_is_an_option() -> None:
    for name in X86:
        plain = load(name, evex=False)
        for text in ("62f17c4858c0", "6562f17c4858c0"):
            assert next(load(name).decode(bytes.fromhex(text)))[1] == len(text) // 2
            assert next(plain.decode(bytes.fromhex(text)), None) is None
        assert next(plain.decode(bytes.fromhex("c5f858c0")))[1] == 4
    assert next(load("i386", evex=False).decode(bytes.fromhex("6208")))[1] == 2


@pytest.mark.parametrize("name", X86)
def test_starts_are_those_of_a_linear_sweep(name: str) -> None:
    automaton, rng = load(name), random.Random(7)
    stream = b"".join(walk(automaton, rng, 15) for _ in range(2_000))
    found, end = automaton.starts(stream)
    assert end == len(stream)
    sizes = [size for _, size, _, _ in disassembler(name).disasm_lite(stream, 0)]
    assert np.array_equal(found, np.cumsum([0, *sizes])[:-1])
    assert [item[0] for item in automaton.decode(stream)] == found.tolist()
    cut = int(found[-1])
    assert automaton.starts(stream, 0, cut + 1)[1] == (cut if len(stream) - cut > 1 else len(stream))


def test_fifteen_bytes_are_the_limit() -> None:
    automaton = load("x86_64")
    assert next(automaton.decode(b"\x66" * 14 + b"\x90"))[1] == 15
    assert next(automaton.decode(b"\x66" * 15 + b"\x90"), None) is None
    assert automaton.starts(b"\x90" + b"\x66" * 15 + b"\x90")[1] == 1


@pytest.mark.parametrize("name", MACHINES)
def test_the_table_carries_its_provenance(name: str) -> None:
    facts = load(name, privileged=True).facts
    assert facts["machine"] == name
    assert len(facts["table_sha256"]) == 64
    assert facts["capstone_package"] == "5.0.9"
    assert name in facts["command"]
    if facts["capstone_probes_sha256"] != probe_hash(name):
        pytest.skip("the installed capstone answers otherwise than the one the table was learnt from")


def test_a_changed_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "table_hash", lambda a, b: "0" * 64)
    with pytest.raises(FormatError, match="does not hold the table"):
        tables.load.__wrapped__("i386")
    monkeypatch.undo()
    rows = np.zeros((2, 256), np.uint16)
    changed = rows.copy()
    changed[1, 7] = 1
    assert table_hash(rows, rows) != table_hash(changed, rows)
    with pytest.raises(FormatError, match="there are x86_64"):
        load("mips")


class ToyProbe:
    """A prefix-free language to learn: 1, or 2 and a byte, or 3 and as many bytes as the next says (at most 2)."""

    def whole(self, string: bytes) -> int:
        if string[:1] == b"\x01":
            return 1
        if string[:1] == b"\x02" and len(string) > 1:
            return 2
        if string[:1] == b"\x03" and len(string) > 1 and string[1] <= 2 and len(string) >= 2 + string[1]:
            return 2 + string[1]
        return 0

    def after(self, prefixes: list[bytes], suffixes: list[bytes]) -> np.ndarray:
        lengths = [(self.whole(p + s), len(p)) for p, s in zip(prefixes, suffixes, strict=True)]
        return np.array([n and 100 + n - known for n, known in lengths], np.uint64)

    def ends(self, strings: list[bytes]) -> np.ndarray:
        return np.array([0 if self.whole(s) == len(s) else -1 for s in strings], np.int32)


def test_the_learner_finds_a_small_language() -> None:
    probe = ToyProbe()
    learner = Learner(probe, [b""], lambda line: None)  # type: ignore[arg-type]
    learner.close()
    for first in range(4):
        for second in range(4):
            string = bytes([first, second, 9, 9])
            while learner.learn_from(string):
                learner.close()
    states = len(learner.access)
    raw = learner.next[:states]
    following, _, accept = minimise(
        np.where(raw < 0, 256 + ~raw, raw).astype(np.uint16), np.zeros((states, 256), np.uint8), 256
    )
    assert accept == 5  # dead, start, one byte left (after 2 as well), after 3, two bytes left
    rng = random.Random(1)
    for _ in range(2_000):
        string = bytes(rng.choices(range(5), k=5))
        state, length = 1, 0
        for i, byte in enumerate(string):
            state = int(following[state, byte])
            if state >= accept:
                length = i + 1
                break
        assert length == probe.whole(string)


def test_loading_a_table_needs_no_capstone() -> None:
    import subprocess

    code = (
        "import sys; from bytegen.formats.code.automaton import load; load('x86_64');"
        "assert not {'capstone', 'torch', 'lief'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_compiler
@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="steps x86-64 instructions on Linux",
)
def test_this_processor_takes_the_whole_one_byte_map(tmp_path) -> None:
    """Stepped natively: no instruction of the one-byte map is refused (the others depend on features).

    Two in that map do too: xabort and xbegin, which processors without transactional memory (RTM) refuse.
    """
    from bytegen.formats.code.learn.processor import covering, traps

    prefixes = {0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, *range(0x40, 0x50)}
    codes, judge = [], disassembler("x86_64")
    for code in covering(load("x86_64"), 1, 5):
        assert [item[1] for item in judge.disasm_lite(code, 0, 1)] == [len(code)], code.hex()
        opcode = next(byte for byte in code if byte not in prefixes)
        if opcode not in (0x0F, 0xC4, 0xC5, 0x62):
            codes.append(code)
    assert len(codes) > 10_000
    found = traps(64, [*codes, b"\x06", b"\x0f\x0b"], tmp_path)
    assert found[-2:].tolist() == [6, 6]  # refused: push es, ud2
    refused = [code for code, trap in zip(codes, found, strict=False) if trap == 6]
    if not re.search(r"^flags\b.*\brtm\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
        transactions = (b"\xc6\xf8", b"\xc7\xf8")
        refused = [code for code in refused if code.lstrip(bytes(prefixes))[:2] not in transactions]
    assert [code.hex() for code in refused] == []
