"""Games: the secret, the pile, the board or the moves stand in the parameters; a player may type on stdin."""

import random
import string

from bytegen.train.corpus import boards, inputs
from bytegen.train.corpus.program import Behaviour, Params, Program
from bytegen.train.corpus.words import number, word


def _print(lines: list[str]) -> Behaviour:
    return Behaviour("".join(line + "\n" for line in lines).encode())


def _draw_secret(rng: random.Random) -> Params:
    return number(rng, 1, rng.choice((99, 999))), word(rng, 3, 9)


def _guess_oracle(params: Params, stdin: bytes) -> Behaviour:
    lines: list[str] = []
    for guess in map(int, stdin.split()):
        if guess == int(params[0]):
            return _print([*lines, params[1]])
        lines.append("higher" if guess < int(params[0]) else "lower")
    return _print(lines)


def _draw_board(rng: random.Random) -> Params:
    """The board after random moves from the empty one; play stops at a win."""
    board = "........."
    for turn in range(rng.randint(4, 9)):
        if boards.winner(board):
            break
        place = rng.choice([at for at in range(9) if board[at] == "."])
        board = board[:place] + "xo"[turn % 2] + board[place + 1 :]
    return (board,)


def _board_oracle(params: Params, stdin: bytes) -> Behaviour:
    winner = boards.winner(params[0])
    return _print([f"{winner} wins" if winner else "nobody wins"])


def _draw_nim(rng: random.Random) -> Params:
    return number(rng, 5, 99), number(rng, 2, 9)


def _nim_oracle(params: Params, stdin: bytes) -> Behaviour:
    pile, most = map(int, params)
    lines: list[str] = []
    for take in map(int, stdin.split()):
        if not 1 <= take <= most or take > pile:
            continue
        pile -= take
        if not pile:
            return _print([*lines, "win"])
        pile -= pile % (most + 1) or 1
        lines.append(str(pile))
        if not pile:
            return _print([*lines, "lose"])
    return _print(lines)


def _draw_hands(rng: random.Random) -> Params:
    return ("".join(rng.choices("rps", k=rng.randint(4, 8))),)


def _hands_oracle(params: Params, stdin: bytes) -> Behaviour:
    beats = {"r": "s", "s": "p", "p": "r"}
    rounds = zip(stdin.decode().split(), params[0], strict=False)
    return _print(["draw" if you == me else "win" if beats[you] == me else "lose" for you, me in rounds])


def _draw_word(rng: random.Random) -> Params:
    return (word(rng, 3, 9).lower().strip(string.digits),)


def _hangman_oracle(params: Params, stdin: bytes) -> Behaviour:
    lines: list[str] = []
    seen = ""
    for letter in stdin.decode().split():
        seen += letter
        lines.append("".join(x if x in seen else "_" for x in params[0]))
        if "_" not in lines[-1]:
            break
    return _print(lines)


def _draw_code(rng: random.Random) -> Params:
    return ("".join(rng.sample(string.digits, 4)),)


def _code_oracle(params: Params, stdin: bytes) -> Behaviour:
    lines: list[str] = []
    for code in stdin.decode().split():
        bulls = sum(a == b for a, b in zip(code, params[0], strict=True))
        cows = sum(a != b and a in params[0] for a, b in zip(code, params[0], strict=True))
        lines.append(f"{bulls} {cows}")
        if bulls == 4:
            break
    return _print(lines)


def _draw_snake(rng: random.Random) -> Params:
    """A field and moves; most snakes live to the end, some run into a wall or themselves."""
    width, height = rng.randint(3, 9), rng.randint(3, 9)
    moves = ""
    for _ in range(rng.randint(4, 9)):
        free = [step for step in "rdul" if not boards.snake(width, height, moves + step)[1]]
        moves += rng.choice(free if free and rng.random() < 0.95 else "rdul")
    return str(width), str(height), moves


def _snake_oracle(params: Params, stdin: bytes) -> Behaviour:
    return Behaviour(boards.snake(int(params[0]), int(params[1]), params[2])[0].encode())


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="guess_number",
        kind="games",
        source=r"""
MAIN {
    const char *s = P, *t;
    int secret = num(&s), n;
    while (in_num(&n)) {
        if (n == secret) {
            say(&s);
            out('\n');
            break;
        }
        t = n < secret ? "higher\n" : "lower\n";
        say(&t);
    }
    quit(0);
}
""",
        block=16,
        draw=_draw_secret,
        phrasings=(
            'guess the number: the secret is {0} and a right guess gets "{1}"',
            'a guessing game with the number {0} that says "{1}" when it is found',
            'number guessing game, secret {0}, winning message "{1}"',
            'let me guess the number {0}: answer higher, lower or "{1}"',
            'play guess my number with {0} and print "{1}" for the right guess',
            'high or low game about {0}; say "{1}" at the end',
            'the player has to guess {0}; tell higher or lower, then "{1}"',
            'say "{1}" when the player types the secret number {0}, else higher or lower',
        ),
        oracle=_guess_oracle,
        inputs=inputs.guesses,
    ),
    Program(
        name="tic_tac_toe",
        kind="games",
        source=r"""
MAIN {
    static const u8 lines[] = {0x01, 0x31, 0x61, 0x03, 0x13, 0x23, 0x04, 0x22};
    const char *s = "nobody";
    for (int i = 0; i < 8; i++) {
        const char *at = P + (lines[i] >> 4);
        int step = lines[i] & 15, c = *at;
        if (c != '.' && c == at[step] && c == at[2 * step]) {
            out(c);
            s = "";
            break;
        }
    }
    say(&s);
    s = " wins\n";
    say(&s);
    quit(0);
}
""",
        block=16,
        draw=_draw_board,
        phrasings=(
            "who wins tic-tac-toe on the board {0}",
            "check the tic-tac-toe board {0}",
            "tic-tac-toe: say who has won on {0}",
            "print the winner of the tic-tac-toe game {0}",
            "noughts and crosses checker for the board {0}",
            "is there a winner in the tic-tac-toe position {0}",
            "look at the board {0} and tell whether x or o has three in a row",
            "judge the noughts and crosses board {0}",
        ),
        oracle=_board_oracle,
    ),
    Program(
        name="nim",
        kind="games",
        source=r"""
MAIN {
    const char *s = P;
    u32 pile = num(&s), most = num(&s);
    int n;
    while (pile && in_num(&n)) {
        if ((u32)n - 1 >= most || (u32)n > pile)
            continue;
        s = "win\n";
        pile -= n;
        if (!pile)
            break;
        s = "lose\n";
        n = pile % (most + 1);
        pile -= n ? n : 1;
        say_dec(pile);
        out('\n');
    }
    if (!pile)
        say(&s);
    quit(0);
}
""",
        block=8,
        draw=_draw_nim,
        phrasings=(
            "play nim with a pile of {0}, taking at most {1} a turn",
            "nim: {0} sticks, each player takes up to {1}",
            "a game of nim against me with {0} matches and moves of at most {1}",
            "nim with {0} stones, no more than {1} at a time",
            "let me play nim, pile {0}, largest move {1}",
            "take turns to remove up to {1} from a heap of {0}; the last one wins",
            "the game nim starting from {0} where a move takes one to {1}",
            "play the subtraction game with {0} coins and a limit of {1}",
        ),
        oracle=_nim_oracle,
        inputs=inputs.takes,
    ),
    Program(
        name="rock_paper_scissors",
        kind="games",
        source=r"""
MAIN {
    const char *s = P, *t;
    int c;
    while (*s && in(&c)) {
        if (c < 'a')
            continue;
        int me = *s++;
        t = "draw\n";
        if (c != me) {
            t = "win\n";
            if (c == 'r' ? me == 'p' : c == 'p' ? me == 's' : me == 'r')
                t = "lose\n";
        }
        say(&t);
    }
    quit(0);
}
""",
        block=16,
        draw=_draw_hands,
        phrasings=(
            "play rock paper scissors with the moves {0}",
            "rock paper scissors: the program plays {0}",
            "a rock paper scissors game where you show {0} in turn",
            "let me play rock, paper, scissors against {0}",
            "judge rock paper scissors between my input and {0}",
            "rock paper scissors opponent with the fixed hands {0}",
            "read r, p or s and say win, lose or draw against the hands {0}",
            "scissors paper rock, computer moves {0}",
        ),
        oracle=_hands_oracle,
        inputs=inputs.hands,
    ),
    Program(
        name="hangman",
        kind="games",
        source=r"""
MAIN {
    char text[32];
    u32 seen = 0;
    int c, hidden = 1;
    while (hidden && in(&c)) {
        if (c < 'a')
            continue;
        seen |= 1u << (c & 31);
        hidden = 0;
        const char *s = P;
        char *o = text;
        for (; *s; s++) {
            c = *s;
            if (!(seen >> (c & 31) & 1))
                c = '_', hidden = 1;
            chr(&o, c);
        }
        chr(&o, '\n');
        flush(text, o);
    }
    quit(0);
}
""",
        block=16,
        draw=_draw_word,
        phrasings=(
            'hangman with the word "{0}"',
            'play hangman, the word is "{0}"',
            'let me guess the letters of "{0}"',
            'a hangman game for the secret word "{0}"',
            'read letters and show which of "{0}" are found',
            'guess the word "{0}" letter by letter',
            'the hidden word is "{0}": uncover it with the letters I type',
            'word guessing game with "{0}", unknown letters as underscores',
        ),
        oracle=_hangman_oracle,
        inputs=inputs.letters,
    ),
    Program(
        name="bulls_and_cows",
        kind="games",
        source=r"""
MAIN {
    int c, at = 0, bulls = 0, cows = 0;
    while (bulls < 4 && in(&c)) {
        if (c == '\n') {
            at = bulls = cows = 0;
            continue;
        }
        for (int i = 0; i < 4; i++)
            if (P[i] == c)
                *(i == at ? &bulls : &cows) += 1;
        if (++at == 4) {
            out('0' + bulls);
            out(' ');
            out('0' + cows);
            out('\n');
        }
    }
    quit(0);
}
""",
        block=8,
        draw=_draw_code,
        phrasings=(
            "bulls and cows with the code {0}",
            "play bulls and cows, the secret is {0}",
            "a mastermind game with the digits {0}",
            "mastermind: the code is {0}, print bulls and cows for each guess",
            "let me crack the code {0} by bulls and cows",
            "code breaking game with secret {0}",
            "read guesses and count bulls and cows against {0}",
            "score each guess at {0} in bulls and cows",
        ),
        oracle=_code_oracle,
        inputs=inputs.codes,
    ),
    Program(
        name="snake",
        kind="games",
        source=r"""
MAIN {
    const char *s = P;
    int width = num(&s), height = num(&s), c;
    char field[128], *o = field, *at = field, *to;
    do {
        rep(&o, '.', width);
        chr(&o, '\n');
    } while (--height);
    for (;;) {
        *at = 'o';
        c = *s++;
        if (!c)
            break;
        to = at + (c == 'r' ? 1 : c == 'l' ? -1 : c == 'd' ? width + 1 : -width - 1);
        if (to < field || to >= o || *to != '.')
            break;
        at = to;
    }
    *at = '@';
    flush(field, o);
    quit(0);
}
""",
        block=16,
        draw=_draw_snake,
        phrasings=(
            "snake on a field of {0} by {1} with the moves {2}",
            "draw the snake on a {0} by {1} board after the moves {2}",
            "play snake, width {0}, height {1}, moves {2}",
            "a snake in a {0} x {1} box goes {2}; show the board",
            "show where the snake is on {0} columns and {1} rows after {2}",
            "snake game {0} wide and {1} high steered by {2}",
            "move the snake {2} over a field of {0} by {1}",
            "board {0} by {1}: let the snake move {2} and print it",
        ),
        oracle=_snake_oracle,
    ),
)
