"""Arithmetic on the numbers of the prompt, done when the program runs."""

import math
import random
from collections.abc import Callable

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number


def _shows(*values: object) -> Behaviour:
    return Behaviour("".join(f"{value}\n" for value in values).encode())


def _shows_result(compute: Callable[..., int]) -> Callable[[Params, bytes], Behaviour]:
    """The oracle of a program that prints `compute` of its numbers."""
    return lambda params, stdin: _shows(compute(*map(int, params)))


def _pair(rng: random.Random) -> Params:
    most = rng.choice((20, 99, 99, 999))
    return number(rng, 1, most), number(rng, 1, most)


def _larger_first(rng: random.Random) -> Params:
    first = rng.randint(2, rng.choice((20, 99, 999)))
    return str(first), number(rng, 1, first)


def _divide(params: Params, stdin: bytes) -> Behaviour:
    quotient, rest = divmod(int(params[0]), int(params[1]))
    return _shows(f"{quotient} remainder {rest}")


def _power_draw(rng: random.Random) -> Params:
    base = rng.randint(2, 99)
    most = int(math.log(2**32 - 1) / math.log(base) - 1e-9)
    return str(base), number(rng, 2, most)


def _gcd_draw(rng: random.Random) -> Params:
    if rng.random() < 0.3:
        return number(rng, 1, 99), number(rng, 1, 99)
    factor = rng.randint(2, 24)
    return str(factor * rng.randint(1, 40)), str(factor * rng.randint(1, 40))


def _sum_draw(rng: random.Random) -> Params:
    first = rng.randint(0, 99)
    return str(first), number(rng, first, first + rng.choice((10, 50, 200)))


def _table(params: Params, stdin: bytes) -> Behaviour:
    by = int(params[0])
    return _shows(*(f"{by} x {n} = {by * n}" for n in range(1, int(params[1]) + 1)))


def _prime(params: Params, stdin: bytes) -> Behaviour:
    n = int(params[0])
    return _shows("no" if any(n % d == 0 for d in range(2, math.isqrt(n) + 1)) else "yes")


def _prime_draw(rng: random.Random) -> Params:
    n = rng.randint(2, rng.choice((99, 999, 999)))
    return (str(n if n == 2 or rng.random() < 0.3 else n | 1),)


def _divisors(params: Params, stdin: bytes) -> Behaviour:
    n = int(params[0])
    return _shows(*(d for d in range(1, n + 1) if n % d == 0))


PROGRAMS = (
    Program(
        name="add",
        kind="arithmetic",
        block=8,
        source="MAIN { const char *s = P; int a = num(&s); say_dec(a + num(&s)); out('\\n'); quit(0); }",
        draw=_pair,
        oracle=_shows_result(lambda a, b: a + b),
        phrasings=(
            "add {0} and {1}",
            "add {0} to {1}",
            "what is {0} plus {1}",
            "what is {0} + {1}",
            "print the sum of {0} and {1}",
            "compute {0} + {1}",
            "calculate {0} plus {1}",
            "show the result of adding {0} and {1}",
            "a program that adds {0} and {1}",
        ),
    ),
    Program(
        name="subtract",
        kind="arithmetic",
        block=8,
        source="MAIN { const char *s = P; int a = num(&s); say_dec(a - num(&s)); out('\\n'); quit(0); }",
        draw=_larger_first,
        oracle=_shows_result(lambda a, b: a - b),
        phrasings=(
            "what is {0} minus {1}",
            "what is {0} - {1}",
            "compute {0} - {1}",
            "calculate {0} minus {1}",
            "print the difference of {0} and {1}",
            "take {1} away from {0}",
            "subtract {1} from {0}",
            "how much is {0} less {1}",
            "a program that prints {0} minus {1}",
        ),
    ),
    Program(
        name="multiply",
        kind="arithmetic",
        block=8,
        source="MAIN { const char *s = P; int a = num(&s); say_dec(a * num(&s)); out('\\n'); quit(0); }",
        draw=_pair,
        oracle=_shows_result(lambda a, b: a * b),
        phrasings=(
            "multiply {0} by {1}",
            "multiply {0} and {1}",
            "what is {0} times {1}",
            "what is {0} * {1}",
            "compute {0} * {1}",
            "calculate {0} times {1}",
            "print the product of {0} and {1}",
            "show the result of multiplying {0} with {1}",
            "a program that multiplies {0} by {1}",
        ),
    ),
    Program(
        name="divide",
        kind="arithmetic",
        block=8,
        source="""
MAIN {
    const char *s = P, *t = " remainder ";
    u32 a = num(&s), b = num(&s);
    say_dec(a / b);
    say(&t);
    say_dec(a % b);
    out('\\n');
    quit(0);
}
""",
        draw=_larger_first,
        oracle=_divide,
        phrasings=(
            "divide {0} by {1}",
            "divide {0} by {1} with remainder",
            "what is {0} divided by {1}",
            "what is {0} / {1}",
            "compute {0} / {1} and the remainder",
            "calculate {0} divided by {1}, quotient and remainder",
            "print quotient and remainder of {0} and {1}",
            "how often does {0} hold {1}, and what remains",
            "a program that divides {0} by {1}",
        ),
    ),
    Program(
        name="power",
        kind="arithmetic",
        block=8,
        source="""
MAIN {
    const char *s = P;
    u32 a = num(&s), n = num(&s), r = 1;
    do r *= a; while (--n);
    say_dec(r);
    out('\\n');
    quit(0);
}
""",
        draw=_power_draw,
        oracle=_shows_result(pow),
        phrasings=(
            "what is {0} to the power {1}",
            "what is {0} to the power of {1}",
            "raise {0} to the power {1}",
            "compute {0} ^ {1}",
            "calculate {0} raised to {1}",
            "print {0} ** {1}",
            "multiply {0} by itself until there are {1} factors",
            "show the power of {0} with exponent {1}",
            "a program that prints {0} to the power {1}",
        ),
    ),
    Program(
        name="gcd",
        kind="arithmetic",
        block=8,
        source="""
MAIN {
    const char *s = P;
    u32 a = num(&s), b = num(&s);
    do {
        u32 r = a % b;
        a = b;
        b = r;
    } while (b);
    say_dec(a);
    out('\\n');
    quit(0);
}
""",
        draw=_gcd_draw,
        oracle=_shows_result(math.gcd),
        phrasings=(
            "what is the gcd of {0} and {1}",
            "print the gcd of {0} and {1}",
            "print the greatest common divisor of {0} and {1}",
            "compute gcd({0}, {1})",
            "find the largest number that divides {0} and {1}",
            "calculate the greatest common divisor of {0} and {1}",
            "run euclid's algorithm on {0} and {1}",
            "show the greatest common factor of {0} and {1}",
            "a program that prints the gcd of {0} and {1}",
        ),
    ),
    Program(
        name="sum_range",
        kind="arithmetic",
        block=8,
        source="""
MAIN {
    const char *s = P;
    int i = num(&s), last = num(&s), sum = 0;
    do sum += i; while (++i <= last);
    say_dec(sum);
    out('\\n');
    quit(0);
}
""",
        draw=_sum_draw,
        oracle=_shows_result(lambda a, b: sum(range(a, b + 1))),
        phrasings=(
            "print the sum of the numbers from {0} to {1}",
            "sum the numbers from {0} to {1}",
            "add up all numbers from {0} to {1}",
            "add every integer from {0} through {1}",
            "what is the sum of {0} to {1}",
            "compute the total of the integers {0} to {1}",
            "calculate {0} + ... + {1}",
            "show the sum of the range {0} to {1}",
            "a program that sums the numbers {0} to {1}",
        ),
    ),
    Program(
        name="times_table",
        kind="arithmetic",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[32];
    int by = num(&s), n = num(&s), i = 1;
    do {
        char *o = buf;
        dec(&o, by);
        *(u32 *)o = ' ' | 'x' << 8 | ' ' << 16;
        o += 3;
        dec(&o, i);
        *(u32 *)o = ' ' | '=' << 8 | ' ' << 16;
        o += 3;
        dec(&o, by * i);
        chr(&o, '\\n');
        flush(buf, o);
    } while (++i <= n);
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 2, 99), number(rng, 2, 15)),
        oracle=_table,
        phrasings=(
            "print the multiplication table of {0} up to {1}",
            "print the {0} times table up to {1}",
            "show the times table of {0} from 1 to {1}",
            "write the multiplication table for {0}, {1} lines",
            "{0} times 1 to {0} times {1}, one a line",
            "list {0} x n for n up to {1}",
            "the table of {0} with {1} rows",
            "multiplication table of {0} with {1} rows",
            "a program that prints the times table of {0} up to {1}",
        ),
    ),
    Program(
        name="is_prime",
        kind="arithmetic",
        block=4,
        source="""
MAIN {
    const char *s = P;
    u32 n = num(&s), d = 1;
    while (n % ++d) {}
    s = d == n ? "yes\\n" : "no\\n";
    say(&s);
    quit(0);
}
""",
        draw=_prime_draw,
        oracle=_prime,
        phrasings=(
            "is {0} prime",
            "is {0} a prime number",
            "check whether {0} is prime",
            "test {0} for primality",
            "say yes if {0} is prime, else no",
            "tell me if {0} is a prime number",
            "find out if {0} is prime",
            "print yes or no: is {0} prime",
            "a program that says if {0} is prime",
        ),
    ),
    Program(
        name="divisors",
        kind="arithmetic",
        block=4,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    u32 n = num(&s), d = 1;
    do {
        if (n % d == 0) {
            char *o = buf;
            dec(&o, d);
            chr(&o, '\\n');
            flush(buf, o);
        }
    } while (++d <= n);
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 2, rng.choice((99, 999))),),
        oracle=_divisors,
        phrasings=(
            "print the divisors of {0}",
            "list the divisors of {0}",
            "print every number that divides {0}",
            "show all factors of {0}, one a line",
            "which numbers divide {0}",
            "write each divisor of {0} on its own line",
            "find all divisors of {0}",
            "compute the factors of {0}",
            "a program that lists the divisors of {0}",
        ),
    ),
    Program(
        name="times_plus",
        kind="arithmetic",
        block=12,
        source="""
MAIN {
    const char *s = P;
    int a = num(&s);
    a *= num(&s);
    say_dec(a + num(&s));
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 1, 99), number(rng, 1, 99), number(rng, 0, 99)),
        oracle=_shows_result(lambda a, b, c: a * b + c),
        phrasings=(
            "what is {0} times {1} plus {2}",
            "what is {0} * {1} + {2}",
            "compute {0} * {1} + {2}",
            "calculate {0} times {1} plus {2}",
            "multiply {0} by {1} and add {2}",
            "print {0} x {1} + {2}",
            "the product of {0} and {1}, plus {2}",
            "show {0} multiplied by {1} with {2} added",
            "a program that prints {0} times {1} plus {2}",
        ),
    ),
)
