"""Programs that print texts of the prompt."""

from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, phrase, symbol, word


def _text(text: str) -> Behaviour:
    return Behaviour(text.encode())


def _say(params: Params, stdin: bytes) -> Behaviour:
    return _text(f"{params[0]}\n")


def _repeat(params: Params, stdin: bytes) -> Behaviour:
    return _text(f"{params[0]}\n" * int(params[1]))


def _greet(params: Params, stdin: bytes) -> Behaviour:
    return _text(f"Hello, {params[0]}!\n")


def _two_lines(params: Params, stdin: bytes) -> Behaviour:
    return _text(f"{params[0]}\n{params[1]}\n")


def _spell(params: Params, stdin: bytes) -> Behaviour:
    return _text("".join(f"{letter}\n" for letter in params[0]))


def _backwards(params: Params, stdin: bytes) -> Behaviour:
    return _text(f"{params[0][::-1]}\n")


def _stairs(params: Params, stdin: bytes) -> Behaviour:
    return _text("".join(f"{params[0][:n]}\n" for n in range(1, len(params[0]) + 1)))


def _chain(params: Params, stdin: bytes) -> Behaviour:
    text, times, separator = params
    return _text(separator.join([text] * int(times)) + "\n")


def _surround(params: Params, stdin: bytes) -> Behaviour:
    text, mark, times = params
    return _text(f"{mark * int(times)}{text}{mark * int(times)}\n")


PROGRAMS = (
    Program(
        name="say",
        kind="text",
        block=24,
        source="MAIN { const char *s = P; say(&s); out('\\n'); quit(0); }",
        draw=lambda rng: (phrase(rng, 3, 20),),
        oracle=_say,
        phrasings=(
            'print "{0}"',
            'print the text "{0}"',
            'say "{0}"',
            'write "{0}" to the terminal',
            'show the message "{0}"',
            'output "{0}" and a newline',
            'display "{0}" on the screen',
            'a program that prints "{0}"',
            'put "{0}" on one line',
        ),
    ),
    Program(
        name="repeat_lines",
        kind="text",
        block=24,
        source="""
MAIN {
    const char *s = P;
    char buf[32], *o = buf;
    str(&o, &s);
    chr(&o, '\\n');
    int n = num(&s);
    do flush(buf, o); while (--n);
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 16), number(rng, 2, 20)),
        oracle=_repeat,
        phrasings=(
            'print "{0}" {1} times',
            'print "{0}" {1} times, one a line',
            'say "{0}" {1} times',
            'repeat the text "{0}" {1} times',
            'write "{0}" on {1} lines',
            'show the message "{0}" {1} times over',
            'output {1} lines that say "{0}"',
            'display "{0}" again and again, {1} times',
            'a program that prints "{0}" {1} times',
        ),
    ),
    Program(
        name="greet",
        kind="text",
        block=16,
        source="""
MAIN {
    const char *s = P;
    char buf[32], *o = buf;
    *(u64 *)o = 0x202c6f6c6c6548; /* "Hello, " */
    o += 7;
    str(&o, &s);
    chr(&o, '!');
    chr(&o, '\\n');
    flush(buf, o);
    quit(0);
}
""",
        draw=lambda rng: (word(rng, 3, 12),),
        oracle=_greet,
        phrasings=(
            "greet {0}",
            'greet "{0}"',
            "say hello to {0}",
            'say hello to "{0}"',
            'print a greeting for "{0}"',
            'welcome "{0}" with hello',
            'write a hello for "{0}"',
            'a program that greets "{0}"',
            'show a friendly greeting to "{0}"',
        ),
    ),
    Program(
        name="two_lines",
        kind="text",
        block=32,
        source="""
MAIN {
    const char *s = P;
    say(&s);
    out('\\n');
    say(&s);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 14), phrase(rng, 3, 14)),
        oracle=_two_lines,
        phrasings=(
            'print "{0}" and then "{1}"',
            'print "{0}" and "{1}" on two lines',
            'say "{0}", then say "{1}"',
            'write "{0}" on the first line and "{1}" on the second',
            'show "{0}" followed by "{1}" on the next line',
            'output two lines: "{0}" and "{1}"',
            'display "{0}" above "{1}"',
            'print "{1}" under "{0}"',
            'a program that prints "{0}" and below it "{1}"',
        ),
    ),
    Program(
        name="spell",
        kind="text",
        block=16,
        source="""
MAIN {
    const char *s = P;
    do {
        out(*s);
        out('\\n');
    } while (*++s);
    quit(0);
}
""",
        draw=lambda rng: (word(rng, 3, 12),),
        oracle=_spell,
        phrasings=(
            'spell "{0}"',
            'spell out "{0}", one letter a line',
            'print each letter of "{0}" on its own line',
            'print "{0}" downwards, letter by letter',
            'write the characters of "{0}" one below the other',
            'show "{0}" vertically',
            'list the letters of "{0}"',
            'split "{0}" into letters, one a line',
            'a program that spells "{0}"',
        ),
    ),
    Program(
        name="backwards",
        kind="text",
        block=24,
        source="""
MAIN {
    const char *s = P;
    while (*++s) {}
    do out(*--s); while (s != P);
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 18),),
        oracle=_backwards,
        phrasings=(
            'print "{0}" backwards',
            'print "{0}" in reverse',
            'reverse the text "{0}"',
            'write "{0}" from back to front',
            'show "{0}" reversed',
            'say "{0}" backwards',
            'output the letters of "{0}" from last to first',
            'turn "{0}" around and print it',
            'a program that prints "{0}" backwards',
        ),
    ),
    Program(
        name="stairs",
        kind="text",
        block=16,
        source="""
MAIN {
    const char *s = P;
    char buf[24], *o = buf;
    do {
        chr(&o, *s);
        *o = '\\n';
        flush(buf, o + 1);
    } while (*++s);
    quit(0);
}
""",
        draw=lambda rng: (word(rng, 3, 12),),
        oracle=_stairs,
        phrasings=(
            'print "{0}" as a staircase',
            'build up "{0}" letter by letter, one line each',
            'print the beginnings of "{0}", from one letter to the whole',
            'show the prefixes of "{0}"',
            'write "{0}" as stairs of letters',
            'print every prefix of "{0}" on its own line',
            'grow the word "{0}" one letter a line',
            'list all prefixes of "{0}"',
            'a program that prints the prefixes of "{0}"',
        ),
    ),
    Program(
        name="chain",
        kind="text",
        block=16,
        source="""
MAIN {
    const char *s = P, *t = P;
    say(&s);
    int n = num(&s);
    while (--n) {
        out(*s);
        t = P;
        say(&t);
    }
    out('\\n');
    quit(0);
}
""",
        draw=lambda rng: (word(rng, 3, 9), number(rng, 2, 12), rng.choice("-+,;:/|_.*=~")),
        oracle=_chain,
        phrasings=(
            'print "{0}" {1} times on one line, separated by "{2}"',
            'print "{0}" {1} times with "{2}" between',
            'join {1} copies of "{0}" with "{2}"',
            'chain "{0}" {1} times with "{2}"',
            'write "{0}" {1} times in a row with "{2}" in between',
            'output {1} times "{0}" in one line, joined by "{2}"',
            'repeat "{0}" {1} times on a single line, "{2}" between them',
            'show "{0}" {1} times side by side, split by "{2}"',
            'a program that writes "{0}" {1} times with "{2}" as separator',
        ),
    ),
    Program(
        name="surround",
        kind="text",
        block=24,
        source="""
MAIN {
    const char *s = P, *t = P;
    char buf[48], *o = buf;
    while (*s++) {}
    char mark = *s++;
    s++;
    int n = num(&s);
    rep(&o, mark, n);
    str(&o, &t);
    rep(&o, mark, n);
    chr(&o, '\\n');
    flush(buf, o);
    quit(0);
}
""",
        draw=lambda rng: (phrase(rng, 3, 16), symbol(rng), number(rng, 1, 9)),
        oracle=_surround,
        phrasings=(
            'print "{0}" with "{1}" {2} times on each side',
            'surround "{0}" with "{1}" {2} times',
            'decorate "{0}" with {2} "{1}" on both sides',
            'write "{0}" between "{1}" repeated {2} times',
            'put "{1}" {2} times before and after "{0}"',
            'show "{0}" flanked by "{1}" {2} times left and right',
            'wrap "{0}" in "{1}" times {2}',
            'print the title "{0}" with "{1}" {2} times around it',
            'a program that surrounds "{0}" by "{1}" {2} times',
        ),
    ),
)
