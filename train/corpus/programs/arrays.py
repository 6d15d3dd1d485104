"""Arrays: programs whose parameter is a list of numbers (or a word), sorted, searched and turned."""

import random
from collections.abc import Callable

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, word


def _values(rng: random.Random, least: int = 3, most: int = 6) -> list[int]:
    """`least` to `most` numbers of one or two digits; equal ones happen."""
    high = rng.choice((9, 99, 99))
    return [rng.randint(0, high) for _ in range(rng.randint(least, most))]


def _list(values: list[int]) -> str:
    return " ".join(map(str, values))


def _draw_list(rng: random.Random) -> Params:
    return (_list(_values(rng)),)


def _line(values: list[int]) -> Behaviour:
    return Behaviour(_list(values).encode() + b"\n")


def _of_list(answer: Callable[[list[int]], list[int]]) -> Callable[[Params, bytes], Behaviour]:
    """The oracle of a program that prints `answer(list)` on one line."""
    return lambda params, stdin: _line(answer([int(text) for text in params[0].split()]))


def _running_sums(values: list[int]) -> list[int]:
    return [sum(values[: end + 1]) for end in range(len(values))]


def _draw_search(rng: random.Random) -> Params:
    values = _values(rng)
    wanted = rng.choice(values) if rng.random() < 0.8 else rng.randint(0, 99)
    return str(wanted), _list(values)


def _search_oracle(params: Params, stdin: bytes) -> Behaviour:
    items = params[1].split()
    return Behaviour(b"%d\n" % (items.index(params[0]) + 1 if params[0] in items else 0))


def _draw_rotation(rng: random.Random) -> Params:
    return _list(_values(rng)), number(rng, 1, 9)


def _rotate_oracle(params: Params, stdin: bytes) -> Behaviour:
    items = [int(text) for text in params[0].split()]
    by = int(params[1]) % len(items)
    return _line(items[by:] + items[:by])


def _letters_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour("".join(sorted(params[0])).encode() + b"\n")


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="sort_up",
        kind="arrays",
        source=r"""
MAIN {
    char text[64], *o = text;
    for (int v = 0; v < 1000; v++) { /* numbers have three digits at most */
        const char *s = P;
        do
            if (num(&s) == v) {
                dec(&o, v);
                chr(&o, ' ');
            }
        while (s[-1]);
    }
    o[-1] = '\n';
    flush(text, o);
    quit(0);
}
""",
        block=24,
        draw=_draw_list,
        phrasings=(
            "sort {0}",
            "sort the numbers {0}",
            "print {0} in ascending order",
            "sort the list {0} from smallest to largest",
            "put {0} in order",
            "arrange the numbers {0} from low to high",
            "write the sorted list of {0}",
            "order the array {0} ascending",
        ),
        oracle=_of_list(sorted),
    ),
    Program(
        name="sort_down",
        kind="arrays",
        source=r"""
MAIN {
    char text[64], *o = text;
    for (int v = 999; v >= 0; v--) { /* numbers have three digits at most */
        const char *s = P;
        do
            if (num(&s) == v) {
                dec(&o, v);
                chr(&o, ' ');
            }
        while (s[-1]);
    }
    o[-1] = '\n';
    flush(text, o);
    quit(0);
}
""",
        block=24,
        draw=_draw_list,
        phrasings=(
            "sort {0} in descending order",
            "sort the numbers {0} from largest to smallest",
            "print {0} in descending order",
            "sort {0} backwards, the largest first",
            "arrange the numbers {0} from high to low",
            "put {0} in falling order",
            "order the array {0} descending",
            "write the list {0} sorted, biggest number first",
        ),
        oracle=_of_list(lambda values: sorted(values, reverse=True)),
    ),
    Program(
        name="reverse_list",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    int a[16], n = 0;
    char text[64], *o = text;
    do
        a[n++] = num(&s);
    while (s[-1]);
    do {
        dec(&o, a[--n]);
        chr(&o, ' ');
    } while (n);
    o[-1] = '\n';
    flush(text, o);
    quit(0);
}
""",
        block=24,
        draw=_draw_list,
        phrasings=(
            "reverse the list {0}",
            "print the numbers {0} in reverse order",
            "reverse the array {0}",
            "write {0} the other way round",
            "print the list {0} from the last number to the first",
            "turn the list {0} around",
            "show the numbers {0} back to front",
            "give me {0} reversed",
        ),
        oracle=_of_list(lambda values: values[::-1]),
    ),
    Program(
        name="search_list",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    int x = num(&s), at = 0;
    for (;;) {
        at++;
        if (num(&s) == x)
            break;
        if (!s[-1]) {
            at = 0;
            break;
        }
    }
    say_dec(at);
    out('\n');
    quit(0);
}
""",
        block=24,
        draw=_draw_search,
        phrasings=(
            "find {0} in {1}",
            "search for {0} in the list {1}",
            "print the position of {0} in {1}",
            "at which place does {0} stand in the numbers {1}",
            "where is {0} in the array {1}",
            "look for {0} in the numbers {1} and print its position",
            "in the list {1} find the number {0}",
            "position of the number {0} among {1}",
        ),
        oracle=_search_oracle,
    ),
    Program(
        name="extremes",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    int low = 99, high = 0;
    do {
        int x = num(&s);
        if (x < low)
            low = x;
        if (x > high)
            high = x;
    } while (s[-1]);
    say_dec(low);
    out(' ');
    say_dec(high);
    out('\n');
    quit(0);
}
""",
        block=24,
        draw=_draw_list,
        phrasings=(
            "print the minimum and maximum of {0}",
            "smallest and largest of {0}",
            "find the smallest and the largest number in {0}",
            "minimum and maximum of the list {0}",
            "what are the lowest and the highest of {0}",
            "print the least and then the greatest of the numbers {0}",
            "show the range of {0}: lowest, then highest",
            "the two extremes of the array {0}",
        ),
        oracle=_of_list(lambda values: [min(values), max(values)]),
    ),
    Program(
        name="sum_list",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    int sum = 0;
    do
        sum += num(&s);
    while (s[-1]);
    say_dec(sum);
    out('\n');
    quit(0);
}
""",
        block=24,
        draw=_draw_list,
        phrasings=(
            "sum of the list {0}",
            "add up the numbers {0}",
            "print the sum of the array {0}",
            "total of {0}",
            "add all of {0} together",
            "what do the numbers {0} add up to",
            "print the total of the list {0}",
            "sum up {0}",
        ),
        oracle=_of_list(lambda values: [sum(values)]),
    ),
    Program(
        name="running_sums",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    int sum = 0;
    char text[64], *o = text;
    do {
        sum += num(&s);
        dec(&o, sum);
        chr(&o, ' ');
    } while (s[-1]);
    o[-1] = '\n';
    flush(text, o);
    quit(0);
}
""",
        block=24,
        draw=_draw_list,
        phrasings=(
            "running sums of {0}",
            "print the partial sums of {0}",
            "cumulative sums of the list {0}",
            "prefix sums of the array {0}",
            "show the sum so far at each of the numbers {0}",
            "accumulate {0} and print every step",
            "add up {0} and print each sum on the way",
            "print the running totals of the list {0}",
        ),
        oracle=_of_list(_running_sums),
    ),
    Program(
        name="rotate_list",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    int a[16], n = 0, i, by;
    char text[64], *o = text;
    do
        a[n++] = num(&s);
    while (s[-1]);
    by = num(&s);
    for (i = 0; i < n; i++) {
        dec(&o, a[(u32)(i + by) % (u32)n]);
        chr(&o, ' ');
    }
    o[-1] = '\n';
    flush(text, o);
    quit(0);
}
""",
        block=24,
        draw=_draw_rotation,
        phrasings=(
            "rotate {0} left by {1}",
            "rotate the list {0} to the left by {1}",
            "shift the numbers {0} around to the left {1} times",
            "turn the array {0} left by {1} places",
            "print {0} rotated left by {1}",
            "move the first of {0} to the end, {1} times over",
            "left rotation of {0} by {1}",
            "cycle the list {0} by {1} places to the left",
        ),
        oracle=_rotate_oracle,
    ),
    Program(
        name="sort_letters",
        kind="arrays",
        source=r"""
MAIN {
    const char *s = P;
    char text[32], *o = text;
    for (; *s; s++) {
        char *at = o++;
        for (; at > text && at[-1] > *s; at--)
            *at = at[-1];
        *at = *s;
    }
    *o++ = '\n';
    flush(text, o);
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (word(rng, 4, 12),),
        phrasings=(
            'sort the letters of "{0}"',
            'print the letters of "{0}" in alphabetical order',
            'put the characters of "{0}" in order',
            'arrange the letters in "{0}" from a to z',
            'alphabetize the letters of the word "{0}"',
            'write the sorted characters of "{0}"',
            'order the letters of "{0}" alphabetically',
            'rearrange "{0}" so that its letters are sorted',
        ),
        oracle=_letters_oracle,
    ),
)
