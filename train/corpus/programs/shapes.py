"""Shapes drawn with a character of the prompt."""

import random
from collections.abc import Iterable

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, phrase, symbol


def _rows(rows: Iterable[str]) -> Behaviour:
    return Behaviour("".join(f"{row}\n" for row in rows).encode())


def _sides(rng: random.Random) -> Params:
    return number(rng, 2, 30), number(rng, 2, 12), symbol(rng)


def _height(rng: random.Random) -> Params:
    return number(rng, 2, 15), symbol(rng)


def _rectangle(params: Params, stdin: bytes) -> Behaviour:
    return _rows([params[2] * int(params[0])] * int(params[1]))


def _hollow(params: Params, stdin: bytes) -> Behaviour:
    width, height, mark = int(params[0]), int(params[1]), params[2]
    middle = mark + " " * (width - 2) + mark
    return _rows([mark * width, *[middle] * (height - 2), mark * width])


def _triangle(params: Params, stdin: bytes) -> Behaviour:
    return _rows(params[1] * n for n in range(1, int(params[0]) + 1))


def _falling(params: Params, stdin: bytes) -> Behaviour:
    return _rows(params[1] * n for n in range(int(params[0]), 0, -1))


def _pyramid(params: Params, stdin: bytes) -> Behaviour:
    height = int(params[0])
    return _rows(" " * (height - n) + params[1] * (2 * n - 1) for n in range(1, height + 1))


def _diagonal(params: Params, stdin: bytes) -> Behaviour:
    return _rows(" " * n + params[1] for n in range(int(params[0])))


def _checkers(params: Params, stdin: bytes) -> Behaviour:
    width, height = int(params[0]), int(params[1])
    return _rows("".join(params[2 + (x + y) % 2] for x in range(width)) for y in range(height))


def _two_symbols(rng: random.Random) -> tuple[str, str]:
    while True:
        first, second = symbol(rng), symbol(rng)
        if first != second:
            return first, second


def _banner(params: Params, stdin: bytes) -> Behaviour:
    text, mark = params
    line = mark * (len(text) + 4)
    return _rows([line, f"{mark} {text} {mark}", line])


PROGRAMS = (
    Program(
        name="rectangle",
        kind="shapes",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[40], *o = buf;
    int w = num(&s), h = num(&s);
    rep(&o, *s, w);
    chr(&o, '\\n');
    do flush(buf, o); while (--h);
    quit(0);
}
""",
        draw=_sides,
        oracle=_rectangle,
        phrasings=(
            'draw a rectangle of {0} by {1} with "{2}"',
            'draw a {0} by {1} rectangle of "{2}"',
            'print a {0}x{1} block of "{2}"',
            'fill a rectangle {0} wide and {1} high with "{2}"',
            'show a box {0} columns wide, {1} rows high, full of "{2}"',
            'make a solid rectangle, width {0}, height {1}, out of "{2}"',
            'a filled rectangle {0} wide, {1} tall, made of "{2}"',
            'print {1} rows of {0} times "{2}"',
            'a program that draws a {0} by {1} rectangle with "{2}"',
        ),
    ),
    Program(
        name="hollow_box",
        kind="shapes",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[40];
    int w = num(&s), h = num(&s), n = h;
    do {
        char *o = buf;
        rep(&o, *s, w);
        if (n != h && n != 1) {
            o = buf + 1;
            rep(&o, ' ', w - 2);
            o++;
        }
        chr(&o, '\\n');
        flush(buf, o);
    } while (--n);
    quit(0);
}
""",
        draw=_sides,
        oracle=_hollow,
        phrasings=(
            'draw a hollow rectangle of {0} by {1} with "{2}"',
            'draw an empty box {0} wide and {1} high with "{2}"',
            'print the outline of a {0}x{1} rectangle with "{2}"',
            'draw the border of a {0} by {1} box of "{2}"',
            'show a frame {0} columns wide, {1} rows high, made of "{2}"',
            'make a hollow box, width {0}, height {1}, out of "{2}"',
            'an empty frame {0} wide, {1} tall, of "{2}"',
            'outline a box {1} rows high and {0} wide in "{2}"',
            'a program that draws a hollow {0} by {1} rectangle with "{2}"',
        ),
    ),
    Program(
        name="triangle",
        kind="shapes",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[40], *o = buf;
    int n = num(&s);
    do {
        chr(&o, *s);
        *o = '\\n';
        flush(buf, o + 1);
    } while (--n);
    quit(0);
}
""",
        draw=_height,
        oracle=_triangle,
        phrasings=(
            'draw a triangle of height {0} with "{1}"',
            'draw a right triangle {0} rows high with "{1}"',
            'print a triangle with {0} rows of "{1}"',
            'make a growing triangle of {0} lines out of "{1}"',
            'show stairs of {0} steps made of "{1}"',
            'print 1 to {0} times "{1}", one row each',
            'a left aligned triangle, {0} high, of "{1}"',
            'draw a triangle of "{1}" with {0} rows',
            'a program that draws a triangle {0} high with "{1}"',
        ),
    ),
    Program(
        name="falling_triangle",
        kind="shapes",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[40];
    int n = num(&s);
    do {
        char *o = buf;
        rep(&o, *s, n);
        chr(&o, '\\n');
        flush(buf, o);
    } while (--n);
    quit(0);
}
""",
        draw=_height,
        oracle=_falling,
        phrasings=(
            'draw an upside down triangle of height {0} with "{1}"',
            'draw a falling triangle {0} rows high with "{1}"',
            'print a shrinking triangle with {0} rows of "{1}"',
            'make an inverted triangle of {0} lines out of "{1}"',
            'show stairs going down from {0} made of "{1}"',
            'print {0} to 1 times "{1}", one row each',
            'a triangle that starts {0} wide and shrinks, of "{1}"',
            'draw a flipped triangle of "{1}" with {0} rows',
            'a program that draws a triangle upside down, {0} high, with "{1}"',
        ),
    ),
    Program(
        name="pyramid",
        kind="shapes",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[40];
    int n = num(&s), wide = 1;
    do {
        char *o = buf;
        rep(&o, ' ', --n);
        rep(&o, *s, wide);
        wide += 2;
        chr(&o, '\\n');
        flush(buf, o);
    } while (n);
    quit(0);
}
""",
        draw=_height,
        oracle=_pyramid,
        phrasings=(
            'draw a pyramid of height {0} with "{1}"',
            'draw a pyramid {0} rows high with "{1}"',
            'print a pyramid with {0} levels of "{1}"',
            'build a centred pyramid of {0} lines out of "{1}"',
            'show a pyramid {0} high made of "{1}"',
            'make a {0} storey pyramid of "{1}"',
            'a symmetric pyramid, {0} rows, of "{1}"',
            'draw a pyramid of "{1}" with {0} rows',
            'a program that draws a pyramid {0} high with "{1}"',
        ),
    ),
    Program(
        name="diagonal",
        kind="shapes",
        block=8,
        source="""
MAIN {
    const char *s = P;
    char buf[40], *o = buf;
    int n = num(&s);
    do {
        *o = *s;
        o[1] = '\\n';
        flush(buf, o + 2);
        chr(&o, ' ');
    } while (--n);
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 2, 25), symbol(rng)),
        oracle=_diagonal,
        phrasings=(
            'draw a diagonal line of length {0} with "{1}"',
            'draw a diagonal of {0} rows with "{1}"',
            'print a slanted line {0} long of "{1}"',
            'make a diagonal, {0} lines, out of "{1}"',
            'show "{1}" moving one column right on each of {0} rows',
            'print {0} rows, each with one "{1}" one step further right',
            'a backslash shape {0} high made of "{1}"',
            'draw a diagonal from the top left, {0} steps of "{1}"',
            'a program that draws a diagonal {0} long with "{1}"',
        ),
    ),
    Program(
        name="checkers",
        kind="shapes",
        block=12,
        source="""
MAIN {
    const char *s = P;
    char buf[40];
    int w = num(&s), h = num(&s), mark = s[0], other = s[2];
    do {
        char *o = buf;
        int n = w, a = mark, b = other;
        mark = b;
        other = a;
        do {
            int t = a;
            chr(&o, a);
            a = b;
            b = t;
        } while (--n);
        chr(&o, '\\n');
        flush(buf, o);
    } while (--h);
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 2, 30), number(rng, 2, 12), *_two_symbols(rng)),
        oracle=_checkers,
        phrasings=(
            'draw a {0} by {1} checkerboard of "{2}" and "{3}"',
            'draw a checkerboard {0} wide and {1} high with "{2}" and "{3}"',
            'print a {0}x{1} chess board of "{2}" and "{3}"',
            'checker pattern, {0} columns, {1} rows, "{2}" and "{3}"',
            'fill {0} by {1} with alternating "{2}" and "{3}"',
            'make a grid of {0} by {1} that alternates "{2}" and "{3}"',
            'show a checkered field {0} wide, {1} tall, using "{2}" and "{3}"',
            'a checkerboard with width {0}, height {1}, squares "{2}" and "{3}"',
            'a program that draws a {0} by {1} checkerboard of "{2}" and "{3}"',
        ),
    ),
    Program(
        name="banner",
        kind="shapes",
        block=20,
        source="""
MAIN {
    const char *s = P, *t = P;
    char line[40], buf[40], *o = buf, *l = line;
    while (*s++) {}
    rep(&l, *s, s - t + 3);
    chr(&l, '\\n');
    flush(line, l);
    chr(&o, *s);
    chr(&o, ' ');
    str(&o, &t);
    chr(&o, ' ');
    chr(&o, *s);
    chr(&o, '\\n');
    flush(buf, o);
    flush(line, l);
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 16), symbol(rng)),
        oracle=_banner,
        phrasings=(
            'print "{0}" in a box of "{1}"',
            'draw a box of "{1}" around "{0}"',
            'frame the text "{0}" with "{1}"',
            'put "{0}" in a frame of "{1}"',
            'print a banner "{0}" bordered by "{1}"',
            'show "{0}" boxed in "{1}"',
            'write "{0}" inside a border made of "{1}"',
            'make a sign that says "{0}" framed by "{1}"',
            'a program that draws a frame of "{1}" around "{0}"',
        ),
    ),
)
