"""Integer tools: programs that read decimal numbers from standard input and answer each of them."""

import math
import random
import re

from bytegen.train.corpus import inputs
from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, word


def _label(rng: random.Random) -> str:
    """What stands before an answer: a word and a separator; 3 to 9 characters."""
    return word(rng, 2, 7) + rng.choice((": ", "=", " ", ": ", "-"))


def _read(stdin: bytes) -> list[int]:
    return [int(digits) for digits in re.findall(rb"[0-9]+", stdin)]


def _print(lines: list[str]) -> Behaviour:
    return Behaviour("".join(line + "\n" for line in lines).encode())


def _gcd_oracle(params: Params, stdin: bytes) -> Behaviour:
    values = _read(stdin)
    pairs = zip(values[::2], values[1::2], strict=False)
    return _print([f"{params[0]}{math.gcd(*pair)}" for pair in pairs])


def _two_words(rng: random.Random) -> Params:
    if rng.random() < 0.2:
        return rng.choice((("yes", "no"), ("prime", "not prime"), ("true", "false"), ("Y", "N"), ("1", "0")))
    return word(rng, 2, 7), word(rng, 2, 7)


def _is_prime(value: int) -> bool:
    return value > 1 and all(value % divisor for divisor in range(2, math.isqrt(value) + 1))


def _prime_oracle(params: Params, stdin: bytes) -> Behaviour:
    return _print([params[0] if _is_prime(value) else params[1] for value in _read(stdin)])


def _digits_oracle(params: Params, stdin: bytes) -> Behaviour:
    return _print([f"{params[0]}{sum(map(int, str(value)))}" for value in _read(stdin)])


def _calculator_oracle(params: Params, stdin: bytes) -> Behaviour:
    lines = []
    for line in stdin.decode().split("\n")[:-1]:
        value = 0
        for operator, digits in re.findall(r"([-+*]?)([0-9]+)", line.replace(" ", "")):
            operand = int(digits)
            value = value * operand if operator == "*" else value + (-operand if operator == "-" else operand)
        lines.append(str(value % int(params[0])))
    return _print(lines)


def _linear_oracle(params: Params, stdin: bytes) -> Behaviour:
    factor, offset = map(int, params)
    return _print([str(value * factor + offset) for value in _read(stdin)])


def _multiples_oracle(params: Params, stdin: bytes) -> Behaviour:
    return _print([str(value) if value % int(params[0]) else params[1] for value in _read(stdin)])


def _total_oracle(params: Params, stdin: bytes) -> Behaviour:
    total = int(params[0])
    lines = []
    for value in _read(stdin):
        total += value
        lines.append(str(total))
    return _print(lines)


def _larger_oracle(params: Params, stdin: bytes) -> Behaviour:
    return _print([str(value) for value in _read(stdin) if value > int(params[0])])


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="gcd_pairs",
        kind="integer-tools",
        source=r"""
MAIN {
    int a, b;
    while (in_num(&a) && in_num(&b)) {
        while (b) {
            int rest = (u32)a % (u32)b;
            a = b;
            b = rest;
        }
        const char *s = P;
        say(&s);
        say_dec(a);
        out('\n');
    }
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (_label(rng),),
        phrasings=(
            'read pairs of numbers and print "{0}" and the gcd of each pair',
            'print "{0}" and the greatest common divisor for each two numbers of the input',
            'greatest common divisor of pairs on stdin, each after "{0}"',
            'for every pair of integers that I type, write "{0}" and their gcd',
            'gcd tool: read two numbers at a time, answer "{0}" and the result',
            'compute the gcd of each pair of input numbers, labelled "{0}"',
            'find the greatest common divisor of pairs and show it after "{0}"',
            'a gcd calculator that writes "{0}" before each answer',
        ),
        oracle=_gcd_oracle,
        inputs=inputs.pairs,
    ),
    Program(
        name="prime_words",
        kind="integer-tools",
        source=r"""
MAIN {
    int n;
    while (in_num(&n)) {
        const char *s = P;
        int d = 2;
        while (d < n && (u32)n % (u32)d)
            d++;
        if (d != n)
            while (*s++)
                ;
        say(&s);
        out('\n');
    }
    quit(0);
}
""",
        block=16,
        draw=_two_words,
        phrasings=(
            'for each number of the input print "{0}" if it is prime and "{1}" if not',
            'read numbers and say "{0}" for a prime, "{1}" otherwise',
            'prime test on stdin: answer "{0}" or "{1}"',
            'test each number I type: "{0}" when it is prime, else "{1}"',
            'write "{0}" for every prime number and "{1}" for every other number',
            'is it prime? read numbers and reply "{0}" for yes, "{1}" for no',
            'check the input numbers for primality, printing "{0}" or "{1}"',
            'print "{1}" for numbers that are not prime and "{0}" for primes',
        ),
        oracle=_prime_oracle,
        inputs=inputs.odd_numbers,
    ),
    Program(
        name="digit_sums",
        kind="integer-tools",
        source=r"""
MAIN {
    int n;
    while (in_num(&n)) {
        const char *s = P;
        u32 sum = 0, left = n;
        do
            sum += left % 10;
        while (left /= 10);
        say(&s);
        say_dec(sum);
        out('\n');
    }
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (_label(rng),),
        phrasings=(
            'print "{0}" and the sum of the digits of each number on stdin',
            'digit sums: read numbers and write "{0}" with the digit sum',
            'read integers and show each digit sum after "{0}"',
            'add up the digits of every number I type and print it after "{0}"',
            'for each input number print "{0}" followed by its digit sum',
            'a digit sum tool with "{0}" in front of each result',
            'compute the sum of digits for each number, labelled "{0}"',
            'cross sums of the numbers in the input, each after "{0}"',
        ),
        oracle=_digits_oracle,
        inputs=inputs.numbers,
    ),
    Program(
        name="calculator",
        kind="integer-tools",
        source=r"""
MAIN {
    const char *s = P;
    int m = num(&s), a = 0, b = 0, sign = 0, c;
    while (in(&c)) {
        if (c == ' ')
            continue;
        if (c >= '0') {
            b = b * 10 + c - '0';
            continue;
        }
        if (sign == '*')
            a *= b;
        else
            a += sign == '-' ? -b : b;
        b = 0;
        sign = c;
        if (c == '\n') {
            a %= m;
            say_dec(a < 0 ? a + m : a);
            out(c);
            a = 0;
        }
    }
    quit(0);
}
""",
        block=8,
        draw=lambda rng: (number(rng, 2, rng.choice((99, 999, 9999))),),
        phrasings=(
            "a calculator for + - * that works modulo {0}",
            "calculate each line of the input from left to right modulo {0}",
            "read sums such as a+b*c and print each result modulo {0}",
            "calculator on stdin with the modulus {0}",
            "evaluate lines with + - and * from left to right, modulo {0}",
            "work out the sums that I type, modulo {0}",
            "modular calculator: every line is computed modulo {0}",
            "do arithmetic with plus, minus and times modulo {0} on each line",
        ),
        oracle=_calculator_oracle,
        inputs=inputs.sums,
    ),
    Program(
        name="linear",
        kind="integer-tools",
        source=r"""
MAIN {
    const char *s = P;
    int factor = num(&s), offset = num(&s), n;
    while (in_num(&n)) {
        say_dec(n * factor + offset);
        out('\n');
    }
    quit(0);
}
""",
        block=8,
        draw=lambda rng: (number(rng, 2, 99), number(rng, 1, rng.choice((9, 99, 999)))),
        phrasings=(
            "multiply each number of the input by {0} and add {1}",
            "read numbers and print {0} times the number plus {1}",
            "for every x on stdin print {0}*x+{1}",
            "take each input number times {0}, then plus {1}",
            "scale the numbers by {0} and shift them by {1}",
            "add {1} to {0} times each number that I type",
            "compute {0}x + {1} for each x in the input",
            "each number on stdin: multiply by {0}, add {1}, print",
        ),
        oracle=_linear_oracle,
        inputs=inputs.numbers,
    ),
    Program(
        name="multiples_word",
        kind="integer-tools",
        source=r"""
MAIN {
    const char *s = P, *t;
    int k = num(&s), n;
    while (in_num(&n)) {
        t = s;
        if ((u32)n % (u32)k)
            say_dec(n);
        else
            say(&t);
        out('\n');
    }
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (number(rng, 2, rng.choice((9, 29))), word(rng, 3, 9)),
        phrasings=(
            'print the numbers of the input, but for multiples of {0} print "{1}"',
            'read numbers and replace those divisible by {0} with "{1}"',
            'repeat each number on stdin unless {0} divides it, then say "{1}"',
            'write "{1}" in place of each input number that is a multiple of {0}',
            'if a number I type is divisible by {0} print "{1}", otherwise the number',
            'copy numbers, turning multiples of {0} into "{1}"',
            'for each input number: "{1}" if it can be divided by {0}, else the number itself',
            'fizz game on stdin: multiples of {0} become "{1}"',
        ),
        oracle=_multiples_oracle,
        inputs=inputs.multiples,
    ),
    Program(
        name="running_total",
        kind="integer-tools",
        source=r"""
MAIN {
    const char *s = P;
    int total = num(&s), n;
    while (in_num(&n)) {
        total += n;
        say_dec(total);
        out('\n');
    }
    quit(0);
}
""",
        block=8,
        draw=lambda rng: (number(rng, 0, rng.choice((99, 999, 9999))),),
        phrasings=(
            "keep a running total that starts at {0}",
            "start with {0} and add each input number, printing the total each time",
            "read numbers and print the running sum beginning from {0}",
            "running total of stdin with the initial value {0}",
            "add every number I type to {0} and show the sum so far",
            "an account that opens with {0}: print the balance after each deposit on stdin",
            "print the total after each number, counting on from {0}",
            "accumulate the input numbers on top of {0}",
        ),
        oracle=_total_oracle,
        inputs=inputs.numbers,
    ),
    Program(
        name="larger_than",
        kind="integer-tools",
        source=r"""
MAIN {
    const char *s = P;
    int limit = num(&s), n;
    while (in_num(&n))
        if (n > limit) {
            say_dec(n);
            out('\n');
        }
    quit(0);
}
""",
        block=8,
        draw=lambda rng: (number(rng, 1, rng.choice((99, 999, 9999))),),
        phrasings=(
            "print the numbers of the input that are greater than {0}",
            "read numbers and keep only those above {0}",
            "filter stdin: numbers larger than {0}",
            "show each number that I type if it is bigger than {0}",
            "drop all input numbers up to and including {0}",
            "repeat only numbers over {0}",
            "pass on the numbers that exceed {0}",
            "from the numbers on stdin print those more than {0}",
        ),
        oracle=_larger_oracle,
        inputs=inputs.near,
    ),
)
