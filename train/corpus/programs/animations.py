"""Animations: frames with ANSI codes and a pause after each."""

import random

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, phrase, symbol, word

ERASE_LINE = "\x1b[2K\r"
CLEAR = "\x1b[2J"
NEW_TOP_LINE = "\x1b[H\x1b[L"


def _pause(rng: random.Random) -> str:
    """Milliseconds between frames; the runtime's sleep takes less than a second."""
    return str(rng.choice((20, 25, 40, 50, 60, 75, 80, 100, 120, 125, 150, 200, 250, 300, 400, 500)))


def _film(shown: str, pauses: int, milliseconds: str) -> Behaviour:
    return Behaviour(shown.encode(), 0, pauses * int(milliseconds) * 1_000_000)


def _spinner(params: Params, stdin: bytes) -> Behaviour:
    text, frames = params[0], int(params[1])
    shown = "".join(f"\r{text} " + "|/-\\"[n % 4] for n in range(frames))
    return _film(shown + "\n", frames, params[2])


def _progress(params: Params, stdin: bytes) -> Behaviour:
    width, mark = int(params[0]), params[1]
    shown = "".join(f"\r[{(mark * n).ljust(width)}]" for n in range(width + 1))
    return _film(shown + "\n", width + 1, params[2])


def _countdown(params: Params, stdin: bytes) -> Behaviour:
    first = int(params[0])
    shown = "".join(f"\r{n} " for n in range(first, 0, -1))
    return _film(f"{shown}\r{params[2]}\n", first, params[1])


def _marquee(params: Params, stdin: bytes) -> Behaviour:
    text, width = params[0], int(params[1])
    line = " " * width + text + " " * width
    frames = width + len(text) + 1
    shown = "".join("\r" + line[n : n + width] for n in range(frames))
    return _film(shown + "\n", frames, params[2])


def _ball(params: Params, stdin: bytes) -> Behaviour:
    mark, width, frames = params[0], int(params[1]), int(params[2])
    shown, place, step = "", 0, 1
    for _ in range(frames):
        shown += ERASE_LINE + " " * place + mark
        if place + step in (-1, width):
            step = -step
        place += step
    return _film(shown + "\n", frames, params[3])


def _rain(params: Params, stdin: bytes) -> Behaviour:
    mark, width, frames = params[0], int(params[1]), int(params[2])
    shown, state = CLEAR, 1
    for _ in range(frames):
        shown += NEW_TOP_LINE
        for _ in range(width):
            state = (state * 69069 + 1) % 2**32
            shown += mark if state < 2**29 else " "
    return _film(shown + "\n", frames, params[3])


def _typewriter(params: Params, stdin: bytes) -> Behaviour:
    return _film(f"{params[0]}\n", len(params[0]), params[1])


def _blink(params: Params, stdin: bytes) -> Behaviour:
    times = int(params[1])
    return _film(f"{params[0]}{ERASE_LINE}" * times, 2 * times, params[2])


PROGRAMS = (
    Program(
        name="spinner",
        kind="animations",
        block=20,
        source="""
MAIN {
    const char *s = P;
    char buf[40], *o = buf;
    chr(&o, '\\r');
    str(&o, &s);
    chr(&o, ' ');
    int n = num(&s), pause = num(&s);
    u32 wheel = 0x5c2d2f7c; /* the letters | / - and a backslash */
    do {
        *o = wheel;
        wheel = wheel >> 8 | wheel << 24;
        flush(buf, o + 1);
        sleep_ms(pause);
    } while (--n);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (word(rng, 3, 10), number(rng, 3, 30), _pause(rng)),
        oracle=_spinner,
        phrasings=(
            'show a spinner after "{0}" for {1} frames of {2} ms',
            'spin a wheel next to "{0}", {1} frames, {2} ms each',
            'animate a spinner labelled "{0}" with {1} frames every {2} ms',
            'print "{0}" with a spinner, {1} frames and {2} milliseconds between them',
            'a spinner "{0}": {1} turns, pause {2} ms',
            'display the text "{0}" and a rotating bar for {1} frames, {2} ms apart',
            'loading spinner "{0}" with {1} steps of {2} ms',
            'turn a spinner behind "{0}" {1} times, waiting {2} ms',
            'a program that spins next to "{0}" for {1} frames of {2} ms',
        ),
    ),
    Program(
        name="progress_bar",
        kind="animations",
        block=12,
        source="""
MAIN {
    const char *s = P;
    char buf[48], *o = buf, *end;
    int n = num(&s);
    char mark = *s;
    s += 2;
    int pause = num(&s);
    chr(&o, '\\r');
    chr(&o, '[');
    end = o;
    rep(&end, ' ', n);
    chr(&end, ']');
    do {
        flush(buf, end);
        sleep_ms(pause);
        chr(&o, mark);
    } while (n--);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 3, 30), symbol(rng), _pause(rng)),
        oracle=_progress,
        phrasings=(
            'show a progress bar {0} wide of "{1}" with {2} ms a step',
            'animate a progress bar of width {0} with "{1}", {2} ms between frames',
            'fill a progress bar of {0} cells with "{1}" every {2} ms',
            'draw a loading bar {0} long made of "{1}", pause {2} ms',
            'a progress bar with {0} steps of "{1}", {2} ms each',
            'run a progress bar, {0} columns, filled with "{1}", {2} milliseconds per step',
            'print a bar that fills {0} places with "{1}", one every {2} ms',
            'progress bar: width {0}, mark "{1}", delay {2} ms',
            'a program that shows a progress bar of {0} "{1}" with {2} ms between',
        ),
    ),
    Program(
        name="countdown",
        kind="animations",
        block=20,
        source="""
MAIN {
    const char *s = P;
    char buf[16];
    int n = num(&s), pause = num(&s);
    do {
        char *o = buf;
        chr(&o, '\\r');
        dec(&o, n);
        chr(&o, ' ');
        flush(buf, o);
        sleep_ms(pause);
    } while (--n);
    out('\\r');
    say(&s);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (number(rng, 3, 30), _pause(rng), word(rng, 3, 10)),
        oracle=_countdown,
        phrasings=(
            'animate a countdown from {0} with {1} ms a step, then "{2}"',
            'count down from {0} in place every {1} ms and end with "{2}"',
            'countdown from {0}, {1} ms each, then show "{2}"',
            'show a countdown of {0} ticks of {1} ms and then "{2}"',
            'tick down from {0} with a pause of {1} ms, finally print "{2}"',
            'start a timer at {0}, one tick every {1} ms, and say "{2}" at the end',
            'a rocket countdown from {0} with {1} ms between the numbers, ending in "{2}"',
            'countdown: start {0}, delay {1} ms, last word "{2}"',
            'a program that counts down from {0} every {1} ms and then prints "{2}"',
        ),
    ),
    Program(
        name="marquee",
        kind="animations",
        block=24,
        source="""
MAIN {
    const char *s = P;
    char line[64], *o = line + 1;
    while (*s++) {}
    int n = s - P, w = num(&s), pause = num(&s);
    n += w;
    s = P;
    rep(&o, ' ', w);
    str(&o, &s);
    rep(&o, ' ', w);
    o = line;
    do {
        *o = '\\r';
        flush(o, o + w + 1);
        o++;
        sleep_ms(pause);
    } while (--n);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 14), number(rng, 4, 20), _pause(rng)),
        oracle=_marquee,
        phrasings=(
            'scroll "{0}" through {1} columns with {2} ms a step',
            'show a marquee of "{0}" in {1} columns, {2} ms a frame',
            'animate the text "{0}" running from right to left over {1} columns every {2} ms',
            'run "{0}" as a ticker {1} wide with a pause of {2} ms',
            'a marquee "{0}" with width {1} and delay {2} ms',
            'let "{0}" scroll by in a window of {1} characters, {2} ms per frame',
            'move the message "{0}" across {1} columns, {2} ms each step',
            'marquee: text "{0}", width {1}, speed {2} ms',
            'a program that scrolls "{0}" over {1} columns with {2} ms between frames',
        ),
    ),
    Program(
        name="bouncing_ball",
        kind="animations",
        block=12,
        source="""
MAIN {
    const char *s = P + 2;
    char buf[48];
    int w = num(&s), n = num(&s), pause = num(&s), x = 0, step = 1;
    do {
        char *o = buf;
        *(u64 *)o = 0x0d4b325b1b; /* erase the line, carriage return */
        o += 5;
        rep(&o, ' ', x);
        chr(&o, *P);
        flush(buf, o);
        sleep_ms(pause);
        if ((u32)(x + step) >= (u32)w) step = -step;
        x += step;
    } while (--n);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (symbol(rng), number(rng, 2, 24), number(rng, 4, 40), _pause(rng)),
        oracle=_ball,
        phrasings=(
            'bounce "{0}" between the walls of {1} columns for {2} frames of {3} ms',
            'animate a ball "{0}" bouncing in {1} columns, {2} frames, {3} ms each',
            'show a bouncing ball "{0}" on a line {1} wide for {2} frames every {3} ms',
            'let the ball "{0}" bounce left and right over {1} columns, {2} frames, pause {3} ms',
            'a ball "{0}" that bounces in {1} columns {2} frames long with {3} ms delay',
            'move "{0}" back and forth across {1} columns, {2} steps of {3} ms',
            'ping pong "{0}" in {1} columns for {2} frames with {3} ms between',
            'bouncing ball: "{0}", width {1}, frames {2}, delay {3} ms',
            'a program that bounces "{0}" in {1} columns, {2} frames of {3} ms',
        ),
    ),
    Program(
        name="rain",
        kind="animations",
        block=12,
        source="""
MAIN {
    const char *s = "\\033[2J";
    u32 state = 1;
    char buf[48];
    say(&s);
    s = P + 2;
    int w = num(&s), n = num(&s), pause = num(&s);
    do {
        char *o = buf;
        *(u64 *)o = 0x4c5b1b485b1b; /* to the top left, insert a line */
        o += 6;
        int x = w;
        do {
            state = state * 69069 + 1;
            chr(&o, state < 1u << 29 ? *P : ' ');
        } while (--x);
        flush(buf, o);
        sleep_ms(pause);
    } while (--n);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (symbol(rng), number(rng, 5, 36), number(rng, 4, 30), _pause(rng)),
        oracle=_rain,
        phrasings=(
            'make it rain "{0}" over {1} columns for {2} frames of {3} ms',
            'animate rain of "{0}" in {1} columns, {2} frames, {3} ms each',
            'show falling rain "{0}" {1} wide for {2} frames every {3} ms',
            'let "{0}" fall like rain across {1} columns, {2} frames, pause {3} ms',
            'a rain animation of "{0}", {1} columns, {2} frames with {3} ms delay',
            'rain drops "{0}" in {1} columns, {2} lines of rain, {3} ms apart',
            'let it rain "{0}" on {1} columns, {2} frames, one every {3} ms',
            'rain: drop "{0}", width {1}, frames {2}, delay {3} ms',
            'a program that rains "{0}" over {1} columns, {2} frames of {3} ms',
        ),
    ),
    Program(
        name="typewriter",
        kind="animations",
        block=24,
        source="""
MAIN {
    const char *s = P, *t = P;
    while (*t++) {}
    int pause = num(&t);
    do {
        out(*s);
        sleep_ms(pause);
    } while (*++s);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 18), _pause(rng)),
        oracle=_typewriter,
        phrasings=(
            'type "{0}" letter by letter with {1} ms between',
            'type out "{0}" like a typewriter, {1} ms a letter',
            'print "{0}" slowly, one letter every {1} ms',
            'show "{0}" as if typed, pause {1} ms',
            'write "{0}" one character at a time with {1} ms delay',
            'typewriter effect for "{0}" with {1} ms per key',
            'reveal "{0}" letter after letter, {1} ms each',
            'typewriter: text "{0}", delay {1} ms',
            'a program that types "{0}" with {1} ms for each letter',
        ),
    ),
    Program(
        name="blink",
        kind="animations",
        block=20,
        source="""
MAIN {
    const char *s = P, *erase = "\\033[2K\\r", *t;
    while (*s++) {}
    int n = num(&s), pause = num(&s);
    do {
        t = P;
        say(&t);
        sleep_ms(pause);
        t = erase;
        say(&t);
        sleep_ms(pause);
    } while (--n);
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 12), number(rng, 2, 15), _pause(rng)),
        oracle=_blink,
        phrasings=(
            'blink "{0}" {1} times with {2} ms',
            'flash the text "{0}" {1} times, {2} ms on and off',
            'make "{0}" blink {1} times every {2} ms',
            'show and hide "{0}" {1} times, pause {2} ms',
            'a blinking "{0}", {1} times, {2} ms each',
            'let the message "{0}" flash {1} times with {2} ms between',
            'animate "{0}" blinking {1} times at {2} ms',
            'blink: text "{0}", count {1}, delay {2} ms',
            'a program that blinks "{0}" {1} times with {2} ms pauses',
        ),
    ),
)
