"""Bitwise: programs that show or combine the bits of the numbers in their parameters."""

import random
from collections.abc import Callable

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number


def _one(rng: random.Random) -> Params:
    return (number(rng, 0, rng.choice((99, 999, 9999))),)


def _two(rng: random.Random) -> Params:
    high = rng.choice((15, 99, 999))
    return number(rng, 0, high), number(rng, 0, high)


def _number_and_width(rng: random.Random) -> Params:
    width = rng.randint(4, 16)
    return number(rng, 0, min(999, 2**width - 1)), str(width)


def _of_numbers(answer: Callable[..., object]) -> Callable[[Params, bytes], Behaviour]:
    """The oracle of a program that prints `answer(*numbers)` on one line."""
    return lambda params, stdin: Behaviour(f"{answer(*map(int, params))}\n".encode())


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="binary",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int n = num(&s), width = num(&s);
    while (width--)
        out('0' + (n >> width & 1));
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=_number_and_width,
        phrasings=(
            "print {0} in binary with {1} bits",
            "write {0} as a binary number of {1} digits",
            "show the number {0} in base two, {1} bits wide",
            "binary of {0} in {1} bits",
            "convert {0} to binary using {1} bits",
            "the {1} low bits of {0}",
            "{0} as {1} bits",
            "print the {1}-bit binary representation of {0}",
            "convert the decimal number {0} to {1} binary digits",
        ),
        oracle=_of_numbers(lambda value, width: format(value, f"0{width}b")),
    ),
    Program(
        name="gray_code",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int n = num(&s), width = num(&s);
    n ^= n >> 1;
    while (width--)
        out('0' + (n >> width & 1));
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=_number_and_width,
        phrasings=(
            "print the gray code of {0} in {1} bits",
            "gray code for {0} with {1} bits",
            "convert {0} to gray code, {1} bits wide",
            "show {0} in reflected binary code with {1} digits",
            "write {0} as a gray code of {1} digits",
            "what is the {1}-bit gray code of {0}",
            "encode {0} as gray code using {1} bits",
            "the gray code of number {0}, {1} bits",
        ),
        oracle=_of_numbers(lambda value, width: format(value ^ value >> 1, f"0{width}b")),
    ),
    Program(
        name="popcount",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int n = num(&s), count = 0;
    for (; n; n >>= 1)
        count += n & 1;
    say_dec(count);
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=_one,
        phrasings=(
            "count the one bits in {0}",
            "how many bits are set in {0}",
            "popcount of {0}",
            "print the number of set bits in {0}",
            "count the ones in the binary form of {0}",
            "population count of {0}",
            "hamming weight of {0}",
            "number of ones when {0} is written in binary",
        ),
        oracle=_of_numbers(lambda value: bin(value).count("1")),
    ),
    Program(
        name="parity",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int n = num(&s), odd = 0;
    for (; n; n >>= 1)
        odd ^= n & 1;
    s = odd ? "odd\n" : "even\n";
    say(&s);
    quit(0);
}
""",
        block=8,
        draw=_one,
        phrasings=(
            "bit parity of {0}",
            "say if {0} has an odd or even number of one bits",
            "print the parity of the bits of {0}",
            "is the number of set bits in {0} odd or even",
            "parity check of {0}: odd or even",
            "tell whether the ones in {0} are even or odd in number",
            "even or odd parity for {0}",
            "compute the parity of {0} and write it as a word, even or odd",
        ),
        oracle=_of_numbers(lambda value: "odd" if bin(value).count("1") % 2 else "even"),
    ),
    Program(
        name="xor_numbers",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int a = num(&s), b = num(&s);
    say_dec(a ^ b);
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=_two,
        phrasings=(
            "{0} xor {1}",
            "print {0} xor {1}",
            "exclusive or of {0} and {1}",
            "xor the numbers {0} and {1}",
            "bitwise xor of {0} and {1}",
            "compute the bitwise xor {0} ^ {1}",
            "combine {0} and {1} with xor",
            "what is {0} xor {1}",
        ),
        oracle=_of_numbers(lambda a, b: a ^ b),
    ),
    Program(
        name="and_or",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int a = num(&s), b = num(&s);
    say_dec(a & b);
    out(' ');
    say_dec(a | b);
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=_two,
        phrasings=(
            "print {0} and {1} combined with bitwise and, then with or",
            "bitwise and and or of {0} and {1}",
            "{0} & {1} and {0} | {1}",
            "show the and and the or of {0} and {1}",
            "and, or: combine the bits of {0} and {1} both ways",
            "compute {0} and {1}, then {0} or {1}, bit by bit",
            "common bits and all bits of {0} and {1}",
            "bitwise and, then bitwise or, of the numbers {0} and {1}",
        ),
        oracle=_of_numbers(lambda a, b: f"{a & b} {a | b}"),
    ),
    Program(
        name="shift_left",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int n = num(&s), by = num(&s);
    say_dec((u32)n << by);
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=lambda rng: (number(rng, 1, rng.choice((99, 999))), number(rng, 1, 16)),
        phrasings=(
            "shift {0} left by {1} bits",
            "{0} << {1}",
            "print {0} shifted left by {1}",
            "left shift of {0} by {1}",
            "move the bits of {0} to the left by {1}",
            "compute {0} << {1}",
            "shift the number {0} to the left {1} times",
            "what is {0} shifted left by {1} bits",
        ),
        oracle=_of_numbers(lambda value, by: value << by),
    ),
    Program(
        name="hexadecimal",
        kind="bitwise",
        source=r"""
MAIN {
    const char *s = P;
    int n = num(&s), at = 16;
    do {
        at -= 4;
        int digit = n >> at & 15;
        out(digit + (digit > 9 ? 'a' - 10 : '0'));
    } while (at);
    out('\n');
    quit(0);
}
""",
        block=8,
        draw=lambda rng: (number(rng, 0, rng.choice((255, 9999, 65535))),),
        phrasings=(
            "print {0} in hexadecimal with four digits",
            "convert {0} to hex, four digits",
            "hex of {0}, padded to four digits",
            "write the number {0} as four hex digits",
            "show {0} in base sixteen with leading zeros",
            "four-digit hexadecimal form of {0}",
            "what is {0} in hex, zero padded to a width of four",
            "{0} as a hex word",
        ),
        oracle=_of_numbers(lambda value: format(value, "04x")),
    ),
)
