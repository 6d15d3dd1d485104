"""Text tools: programs that read standard input to its end and write it changed, filtered or counted."""

import random
import re
import string

from bytegen.train.corpus import inputs
from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, word

_CHARACTERS = string.ascii_letters + string.digits + "-_.*"


def _mark(rng: random.Random) -> str:
    """A word with punctuation after it, as stands before a line or a result; 2 to 9 characters."""
    return word(rng, 2, 7) + rng.choice((": ", "> ", "=", ": ", " ", "-", "", ""))


def _two_characters(rng: random.Random) -> Params:
    first, second = rng.sample(_CHARACTERS, 2)
    return first, second


def _replace_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(stdin.replace(params[0].encode(), params[1].encode()))


def _letter_set(rng: random.Random) -> Params:
    return ("".join(rng.sample(string.ascii_lowercase, rng.randint(2, 6))),)


def _delete_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(stdin.translate(None, params[0].encode()))


def _count_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(params[1].encode() + b"%d\n" % stdin.count(params[0].encode()))


def _pieces(stdin: bytes) -> list[bytes]:
    """The lines of `stdin` with their line breaks (only b"\\n" breaks a line)."""
    return re.findall(rb"[^\n]*\n|[^\n]+", stdin)


def _prefix_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(b"".join(params[0].encode() + line for line in _pieces(stdin)))


def _upper_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(params[0].encode() + b"\n" + stdin.upper())


def _cut_draw(rng: random.Random) -> Params:
    mark = rng.choice(("...", "..", "+", "~", ">>", word(rng, 3, 6)))
    return number(rng, 1, rng.choice((20, 99))), mark


def _cut_oracle(params: Params, stdin: bytes) -> Behaviour:
    width, mark = int(params[0]), params[1].encode()
    lines = stdin.split(b"\n")
    return Behaviour(b"\n".join(line if len(line) <= width else line[:width] + mark for line in lines))


def _number_draw(rng: random.Random) -> Params:
    separator = rng.choice((")", ".", ":", " -", "|", ": ", ") ", ". ", word(rng, 3, 6)))
    return number(rng, 0, rng.choice((9, 99, 999))), separator


def _number_oracle(params: Params, stdin: bytes) -> Behaviour:
    lines = enumerate(_pieces(stdin), int(params[0]))
    return Behaviour(b"".join(b"%d" % at + params[1].encode() + line for at, line in lines))


def _reverse_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(
        b"".join(params[0].encode() + line.rstrip(b"\n")[::-1] + b"\n" for line in _pieces(stdin))
    )


def _needle(rng: random.Random) -> Params:
    return (word(rng, 2, 8),)


def _grep_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(
        b"".join(line.rstrip(b"\n") + b"\n" for line in _pieces(stdin) if params[0].encode() in line)
    )


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="replace_char",
        kind="text-tools",
        source=r"""
MAIN {
    int c;
    while (in(&c))
        out(c == P[0] ? P[2] : c);
    quit(0);
}
""",
        block=8,
        draw=_two_characters,
        phrasings=(
            'replace every "{0}" with "{1}"',
            'read text and replace "{0}" by "{1}"',
            'change each "{0}" in the input to "{1}"',
            'turn every "{0}" of the input into "{1}"',
            'copy the input but write "{1}" where it has "{0}"',
            'substitute "{0}" with "{1}" in the text on stdin',
            'a filter that swaps "{0}" for "{1}"',
            'replace the character "{0}" with "{1}" in standard input',
            'in the text I type, replace all "{0}" with "{1}"',
        ),
        oracle=_replace_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="delete_chars",
        kind="text-tools",
        source=r"""
MAIN {
    int c;
    while (in(&c)) {
        const char *s = P;
        while (*s && *s != c)
            s++;
        if (!*s)
            out(c);
    }
    quit(0);
}
""",
        block=8,
        draw=_letter_set,
        phrasings=(
            'delete the letters "{0}" from the input',
            'remove all of the characters "{0}" from stdin',
            'copy the input without the letters "{0}"',
            'read text and drop every letter that is in "{0}"',
            'strip the letters "{0}" out of the text',
            'print the input with the characters "{0}" left out',
            'a filter that deletes any of "{0}"',
            'leave out every character of "{0}" when copying stdin',
        ),
        oracle=_delete_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="count_char",
        kind="text-tools",
        source=r"""
MAIN {
    int c, n = 0;
    while (in(&c))
        n += c == P[0];
    const char *s = P + 2;
    say(&s);
    say_dec(n);
    out('\n');
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (rng.choice(_CHARACTERS), _mark(rng)),
        phrasings=(
            'count the "{0}" in the input and print the count after "{1}"',
            'how many "{0}" are in the text on stdin? answer with "{1}" and the number',
            'read text, count each "{0}", then print "{1}" and the count',
            'count how often "{0}" occurs in standard input, with "{1}" before the result',
            'print "{1}" and how many times "{0}" appears in the input',
            'count the character "{0}" in what I type and label it "{1}"',
            'a tool that counts "{0}" and shows the total after "{1}"',
            'number of "{0}" in stdin, printed after "{1}"',
        ),
        oracle=_count_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="prefix_lines",
        kind="text-tools",
        source=r"""
MAIN {
    int c, last = '\n';
    while (in(&c)) {
        if (last == '\n') {
            const char *s = P;
            say(&s);
        }
        out(last = c);
    }
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (_mark(rng),),
        phrasings=(
            'put "{0}" in front of each line of the input',
            'prefix every line with "{0}"',
            'add "{0}" to the start of every input line',
            'read lines and print each one after "{0}"',
            'begin each line of stdin with "{0}"',
            'write "{0}" before every line that I type',
            'copy the input with "{0}" at the beginning of each line',
            'a filter that prepends "{0}" to each line',
        ),
        oracle=_prefix_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="upper_after",
        kind="text-tools",
        source=r"""
MAIN {
    const char *s = P;
    int c;
    say(&s);
    out('\n');
    while (in(&c))
        out((u32)c - 'a' < 26 ? c - 32 : c);
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (word(rng, 3, 12),),
        phrasings=(
            'print the title "{0}", then the input in upper case',
            'write "{0}" on the first line and below it the input in capitals',
            'convert stdin to upper case under the heading "{0}"',
            'show "{0}" and then the text of stdin in capital letters',
            'upper case the input, with "{0}" as the first line',
            'say "{0}" first, then repeat what I type in upper case',
            'a filter to upper case that starts with the line "{0}"',
            'make the input all capitals after a line "{0}"',
        ),
        oracle=_upper_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="cut_lines",
        kind="text-tools",
        source=r"""
MAIN {
    const char *s = P, *mark;
    int n = num(&s), left = n, c;
    while (in(&c)) {
        if (c == '\n')
            left = n;
        else if (--left < 0) {
            if (left == -1)
                mark = s, say(&mark);
            continue;
        }
        out(c);
    }
    quit(0);
}
""",
        block=16,
        draw=_cut_draw,
        phrasings=(
            'cut each line of the input after {0} characters and mark the cut with "{1}"',
            'keep the first {0} characters of every line, then "{1}" if there were more',
            'truncate lines to {0} characters with "{1}" where text is lost',
            'shorten the lines of stdin to {0} characters, ending the cut ones in "{1}"',
            'print only {0} characters of each line and put "{1}" after a line that is longer',
            'limit lines to {0} characters, replacing the rest by "{1}"',
            'show "{1}" instead of what comes after the first {0} characters of a line',
            'clip every input line at {0} characters and append "{1}" to clipped ones',
        ),
        oracle=_cut_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="number_lines",
        kind="text-tools",
        source=r"""
MAIN {
    const char *s = P, *t;
    int n = num(&s), c, last = '\n';
    while (in(&c)) {
        if (last == '\n') {
            say_dec(n++);
            t = s;
            say(&t);
        }
        out(last = c);
    }
    quit(0);
}
""",
        block=16,
        draw=_number_draw,
        phrasings=(
            'number the lines of the input from {0} with "{1}" after each number',
            'add line numbers starting at {0}, followed by "{1}"',
            'print each input line with its number, beginning at {0}, and "{1}" between them',
            'number every line of stdin, first number {0}, separator "{1}"',
            'put a line number and "{1}" before each line, counting from {0}',
            'line numbers from {0} up, then "{1}", then the line',
            'show the text with numbered lines, start {0}, divider "{1}"',
            'write the lines I type with numbers from {0} on and "{1}" behind the numbers',
        ),
        oracle=_number_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="reverse_lines",
        kind="text-tools",
        source=r"""
MAIN {
    char line[1 << 16], *end = line + sizeof line, *o = end;
    int c;
    while (in(&c) || (o != end && (c = '\n'))) {
        if (c == '\n') {
            const char *s = P;
            say(&s);
            flush(o, end);
            o = end;
            out(c);
        } else
            *--o = c;
    }
    quit(0);
}
""",
        block=16,
        draw=lambda rng: (_mark(rng),),
        phrasings=(
            'reverse each line of the input and print it after "{0}"',
            'print every input line backwards with "{0}" in front',
            'turn the lines of stdin around, each after "{0}"',
            'read lines, write "{0}" and then the line backwards',
            'mirror each line, starting every one with "{0}"',
            'write "{0}" followed by the reversed line for each line of input',
            'show what I type reversed, line by line, with "{0}" before each',
            'a filter that reverses lines and prefixes them with "{0}"',
        ),
        oracle=_reverse_oracle,
        inputs=inputs.lines,
    ),
    Program(
        name="grep",
        kind="text-tools",
        source=r"""
MAIN {
    char line[1 << 16], *o = line;
    int c;
    while (in(&c) || (o != line && (c = '\n'))) {
        chr(&o, c);
        if (c != '\n')
            continue;
        for (char *at = line; at < o; at++) {
            const char *s = P;
            char *t = at;
            while (*s && *s == *t)
                s++, t++;
            if (!*s) {
                flush(line, o);
                break;
            }
        }
        o = line;
    }
    quit(0);
}
""",
        block=16,
        draw=_needle,
        phrasings=(
            'print the lines that contain "{0}"',
            'show only the input lines with "{0}" in them',
            'search stdin for "{0}" and print the lines where it is found',
            'filter the input: keep lines that have "{0}"',
            'grep for "{0}"',
            'read lines and print those in which "{0}" occurs',
            'find "{0}" in the text I type and repeat the matching lines',
            'drop every line that does not contain "{0}"',
        ),
        oracle=_grep_oracle,
        inputs=inputs.lines,
    ),
)
