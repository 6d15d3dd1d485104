"""Number sequences: the numbers of the prompt stand in the file as decimal text."""

import random
from collections.abc import Iterable

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number


def _lines(numbers: Iterable[int]) -> Behaviour:
    return Behaviour("".join(f"{n}\n" for n in numbers).encode())


def _up_draw(rng: random.Random) -> Params:
    first = rng.randint(0, 99) if rng.random() < 0.8 else rng.randint(100, 900)
    return str(first), number(rng, first, first + rng.choice((9, 20, 40)))


def _up(params: Params, stdin: bytes) -> Behaviour:
    return _lines(range(int(params[0]), int(params[1]) + 1))


def _down_draw(rng: random.Random) -> Params:
    last = rng.randint(0, 79)
    return number(rng, last, last + rng.choice((9, 20, 40))), str(last)


def _down(params: Params, stdin: bytes) -> Behaviour:
    return _lines(range(int(params[0]), int(params[1]) - 1, -1))


def _steps_draw(rng: random.Random) -> Params:
    first, step = rng.randint(0, 99), rng.randint(2, 15)
    return str(first), number(rng, first, first + step * rng.choice((5, 15, 30))), str(step)


def _steps(params: Params, stdin: bytes) -> Behaviour:
    return _lines(range(int(params[0]), int(params[1]) + 1, int(params[2])))


def _multiples(params: Params, stdin: bytes) -> Behaviour:
    return _lines(n * int(params[1]) for n in range(1, int(params[0]) + 1))


def _squares_draw(rng: random.Random) -> Params:
    first = rng.randint(0, 99)
    return str(first), number(rng, first, first + rng.choice((9, 25)))


def _squares(params: Params, stdin: bytes) -> Behaviour:
    return _lines(n * n for n in range(int(params[0]), int(params[1]) + 1))


def _fibonacci(params: Params, stdin: bytes) -> Behaviour:
    numbers = [int(params[1]), int(params[2])]
    while len(numbers) < int(params[0]):
        numbers.append(numbers[-2] + numbers[-1])
    return _lines(numbers[: int(params[0])])


def _collatz(params: Params, stdin: bytes) -> Behaviour:
    numbers = [int(params[0])]
    while numbers[-1] != 1:
        last = numbers[-1]
        numbers.append(3 * last + 1 if last % 2 else last // 2)
    return _lines(numbers)


def _row(params: Params, stdin: bytes) -> Behaviour:
    numbers = range(int(params[0]), int(params[1]) + 1)
    return Behaviour((params[2].join(map(str, numbers)) + "\n").encode())


def _row_draw(rng: random.Random) -> Params:
    first = rng.randint(0, 90)
    return str(first), number(rng, first + 1, first + rng.choice((6, 15, 30))), rng.choice("-+,;:/|_.*=~")


PROGRAMS = (
    Program(
        name="count_up",
        kind="sequences",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int i = num(&s), last = num(&s);
    do {
        char *o = buf;
        dec(&o, i);
        chr(&o, '\\n');
        flush(buf, o);
    } while (++i <= last);
    quit(0);
}
""",
        draw=_up_draw,
        oracle=_up,
        phrasings=(
            "count from {0} to {1}",
            "count up from {0} to {1}",
            "print the numbers {0} to {1}, one a line",
            "print every number from {0} to {1}",
            "list the integers {0} through {1}",
            "show the numbers from {0} up to {1}",
            "write the whole numbers between {0} and {1}, both included",
            "a program that counts from {0} to {1}",
            "start at {0} and count to {1}",
            "print {0}, then the next number, until {1}",
        ),
    ),
    Program(
        name="count_down",
        kind="sequences",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int i = num(&s), last = num(&s);
    do {
        char *o = buf;
        dec(&o, i);
        chr(&o, '\\n');
        flush(buf, o);
    } while (--i >= last);
    quit(0);
}
""",
        draw=_down_draw,
        oracle=_down,
        phrasings=(
            "count down from {0} to {1}",
            "count backwards from {0} to {1}",
            "print the numbers {0} down to {1}, one a line",
            "print every number from {0} down to {1}",
            "list the integers {0} down through {1}",
            "show the numbers from {0} to {1} in falling order",
            "go down from {0} to {1}, one by one",
            "a program that counts down from {0} to {1}",
            "start at {0} and count down to {1}",
        ),
    ),
    Program(
        name="count_steps",
        kind="sequences",
        block=16,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int i = num(&s), last = num(&s), step = num(&s);
    do {
        char *o = buf;
        dec(&o, i);
        chr(&o, '\\n');
        flush(buf, o);
    } while ((i += step) <= last);
    quit(0);
}
""",
        draw=_steps_draw,
        oracle=_steps,
        phrasings=(
            "count from {0} to {1} in steps of {2}",
            "count from {0} to {1} by {2}",
            "print the numbers from {0} to {1}, {2} apart",
            "print every number from {0} to {1} in steps of {2}",
            "list {0} to {1} with step {2}",
            "go from {0} up to {1}, adding {2} each time",
            "show the numbers {0} through {1} with a stride of {2}",
            "a program that counts from {0} to {1} by steps of {2}",
            "start at {0}, stop at {1}, step {2}",
        ),
    ),
    Program(
        name="multiples",
        kind="sequences",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int n = num(&s), by = num(&s), i = by;
    do {
        char *o = buf;
        dec(&o, i);
        chr(&o, '\\n');
        flush(buf, o);
        i += by;
    } while (--n);
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 2, 20), number(rng, 2, 99)),
        oracle=_multiples,
        phrasings=(
            "print the first {0} multiples of {1}",
            "list {0} multiples of {1}",
            "show the first {0} multiples of {1}, one a line",
            "write {0} lines with the multiples of {1}",
            "output the first {0} numbers of the {1} times table",
            "compute the first {0} multiples of {1}",
            "give me {0} multiples of the number {1}",
            "a program that prints the first {0} multiples of {1}",
            "print multiples of {1}, the first {0} of them",
        ),
    ),
    Program(
        name="squares",
        kind="sequences",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int i = num(&s), last = num(&s);
    do {
        char *o = buf;
        dec(&o, i * i);
        chr(&o, '\\n');
        flush(buf, o);
    } while (++i <= last);
    quit(0);
}
""",
        draw=_squares_draw,
        oracle=_squares,
        phrasings=(
            "print the squares of {0} to {1}",
            "print the square of every number from {0} to {1}",
            "list the squares from {0} to {1}",
            "square each number from {0} to {1}",
            "show the squares of the numbers {0} through {1}",
            "write the squared numbers between {0} and {1}, one a line",
            "output n times n for n from {0} to {1}",
            "compute the squares of the integers {0} to {1}",
            "a program that prints the squares from {0} to {1}",
        ),
    ),
    Program(
        name="fibonacci",
        kind="sequences",
        block=16,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int n = num(&s), a = num(&s), b = num(&s);
    do {
        char *o = buf;
        dec(&o, a);
        chr(&o, '\\n');
        flush(buf, o);
        b += a;
        a = b - a;
    } while (--n);
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 3, 25), number(rng, 0, 20), number(rng, 1, 20)),
        oracle=_fibonacci,
        phrasings=(
            "print {0} fibonacci numbers starting with {1} and {2}",
            "print the first {0} numbers of the fibonacci sequence from {1} and {2}",
            "list {0} terms of the fibonacci sequence that begins {1}, {2}",
            "show {0} fibonacci numbers beginning {1} {2}",
            "fibonacci: {0} terms, first {1}, second {2}",
            "write the first {0} terms where each is the sum of the two before, from {1} and {2}",
            "compute {0} numbers of a fibonacci series with seeds {1} and {2}",
            "a program that prints {0} fibonacci numbers starting at {1} and {2}",
            "starting from {1} and {2}, print {0} fibonacci numbers",
        ),
    ),
    Program(
        name="collatz",
        kind="sequences",
        block=4,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    u32 i = num(&s);
    for (;;) {
        char *o = buf;
        dec(&o, i);
        chr(&o, '\\n');
        flush(buf, o);
        if (i == 1) quit(0);
        i = i & 1 ? 3 * i + 1 : i / 2;
    }
}
""",
        draw=lambda rng: (number(rng, 2, 999),),
        oracle=_collatz,
        phrasings=(
            "print the collatz sequence of {0}",
            "print the collatz sequence from {0} to 1",
            "show the collatz steps starting at {0}",
            "list the hailstone numbers of {0}",
            "run the collatz rule on {0} until it reaches 1",
            "halve or triple plus one from {0} down to 1, print each number",
            "write the 3n+1 sequence beginning with {0}",
            "compute the collatz path of {0}",
            "a program that prints the collatz sequence of {0}",
        ),
    ),
    Program(
        name="count_row",
        kind="sequences",
        block=16,
        source="""
MAIN {
    const char *s = P;
    int i = num(&s), last = num(&s);
    for (;;) {
        say_dec(i);
        if (i++ == last) break;
        out(*s);
    }
    out('\\n');
    quit(0);
}
""",
        draw=_row_draw,
        oracle=_row,
        phrasings=(
            'count from {0} to {1} on one line, separated by "{2}"',
            'print the numbers {0} to {1} with "{2}" between them',
            'join the numbers from {0} to {1} with "{2}"',
            'list {0} through {1} in a row split by "{2}"',
            'write the integers {0} to {1} on a single line with separator "{2}"',
            'show {0} to {1} side by side, "{2}" in between',
            'output the range {0} to {1} joined by "{2}"',
            'count {0} to {1} in one line using "{2}" as separator',
            'a program that prints {0} to {1} in a row with "{2}"',
        ),
    ),
)
