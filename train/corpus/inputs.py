"""Standard inputs that the corpus' programs are tried on, drawn to fit their parameters."""

import random
import string

from bytegen.train.corpus.program import Params
from bytegen.train.corpus.words import WORDS


def _some(rng: random.Random, least: int, most: int) -> int:
    """A count from `least` to `most`; now and then 0, so that an empty input is tried too."""
    return 0 if rng.random() < 0.03 else rng.randint(least, most)


def _sentence(rng: random.Random, bait: str) -> str:
    """A line of words; now and then `bait` or one character of it stands in it."""
    words = rng.choices(WORDS, k=_some(rng, 2, 5))
    for place in range(len(words)):
        chance = rng.random()
        if chance < 0.15:
            words[place] += bait
        elif chance < 0.4:
            cut = rng.randint(0, len(words[place]))
            words[place] = words[place][:cut] + rng.choice(bait) + words[place][cut:]
        elif chance < 0.5:
            words[place] = words[place].upper() + str(rng.randint(0, 99))
    return " ".join(words)


def lines(rng: random.Random, params: Params) -> bytes:
    """Standard input: up to five lines; now and then the last one has no line break."""
    text = "".join(_sentence(rng, params[0]) + "\n" for _ in range(_some(rng, 2, 5)))
    return (text[:-1] if rng.random() < 0.15 else text).encode()


def _magnitude(rng: random.Random) -> int:
    """A number of one to four digits, small ones as often as large ones."""
    return rng.randint(0, rng.choice((9, 30, 99, 999, 9999)))


def numbers(rng: random.Random, params: Params) -> bytes:
    """Standard input: up to nine numbers, one a line or some of them side by side."""
    values = [_magnitude(rng) for _ in range(_some(rng, 2, 9))]
    text = "".join(f"{value}{rng.choice((' ', chr(10), chr(10)))}" for value in values)
    return text.encode() if rng.random() < 0.1 else (text.rstrip() + "\n").encode()


def pairs(rng: random.Random, params: Params) -> bytes:
    """Standard input: pairs of numbers, one pair a line, most of them with a common divisor."""
    text = ""
    for _ in range(_some(rng, 2, 6)):
        common = rng.randint(1, rng.choice((1, 12, 60)))
        text += f"{common * rng.randint(1, 90)} {common * rng.randint(1, 90)}\n"
    return text.encode()


def odd_numbers(rng: random.Random, params: Params) -> bytes:
    """Standard input: numbers, every other of them small and odd."""
    small = "".join(f"{2 * rng.randint(0, 60) + 1}\n" for _ in range(rng.randint(0, 4)))
    return small.encode() + numbers(rng, params)


def sums(rng: random.Random, params: Params) -> bytes:
    """Standard input: lines such as "12+3*4", with or without blanks round the operators."""
    text = ""
    for _ in range(_some(rng, 2, 6)):
        blank = rng.choice(("", "", " "))
        text += str(rng.randint(0, rng.choice((9, 999))))
        for _ in range(rng.randint(0, 3)):
            text += blank + rng.choice("+-*") + blank + str(rng.randint(0, rng.choice((9, 99))))
        text += "\n"
    return text.encode()


def multiples(rng: random.Random, params: Params) -> bytes:
    """Standard input: numbers, about half of them multiples of the first parameter."""
    divisor = int(params[0])
    values = [divisor * rng.randint(0, 30) + rng.choice((0, rng.randint(1, 99))) for _ in range(6)]
    return "".join(f"{value}\n" for value in values[: _some(rng, 3, 6)]).encode()


def near(rng: random.Random, params: Params) -> bytes:
    """Standard input: numbers about as large as the first parameter, at times equal to it."""
    limit = int(params[0])
    values = [max(0, limit + rng.randint(-9, 9) * rng.choice((0, 1, 1, 20))) for _ in range(8)]
    return "".join(f"{value}\n" for value in values[: _some(rng, 3, 8)]).encode()


def guesses(rng: random.Random, params: Params) -> bytes:
    """Standard input: guesses round the secret; most games reach it, some of them type on."""
    secret = int(params[0])
    tries = [max(0, secret + rng.randint(-40, 40)) for _ in range(_some(rng, 1, 5))]
    if rng.random() < 0.8:
        tries += [secret, *tries[:1]]
    return "".join(f"{guess}\n" for guess in tries).encode()


def takes(rng: random.Random, params: Params) -> bytes:
    """Standard input: what the player takes each turn, mostly within the rules; some games break off."""
    most = int(params[1])
    turns = [rng.randint(1, most) if rng.random() < 0.9 else rng.randint(0, 12) for _ in range(30)]
    return "".join(f"{take}\n" for take in turns[: rng.choice((2, 30, 30))]).encode()


def hands(rng: random.Random, params: Params) -> bytes:
    """Standard input: the player's hands, one a line; fewer or more than the program has."""
    return "".join(rng.choice("rps") + "\n" for _ in range(_some(rng, 2, 10))).encode()


def letters(rng: random.Random, params: Params) -> bytes:
    """Standard input: guessed letters, one a line; most games find the whole word."""
    found = sorted(set(params[0]))
    tries = found if rng.random() < 0.7 else rng.sample(found, len(found) // 2)
    tries = tries + rng.choices(string.ascii_lowercase, k=rng.randint(0, 4))
    rng.shuffle(tries)
    return "".join(letter + "\n" for letter in tries).encode()


def codes(rng: random.Random, params: Params) -> bytes:
    """Standard input: codes of four digits, many of them of the secret's digits; most games find it."""
    digits = params[0] * 3 + string.digits
    tries = ["".join(rng.choices(digits, k=4)) for _ in range(_some(rng, 2, 6))]
    if rng.random() < 0.8:
        tries += [params[0], *tries[:1]]
    return "".join(code + "\n" for code in tries).encode()
