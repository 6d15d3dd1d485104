"""Texts that stand as parameters: common words and made-up ones, and numbers."""

import random
import string

_WORDS = """
    apple anchor amber autumn banana basket beacon bird blossom blue bottle branch bread breeze bridge
    bright button cabin cactus camera candle canvas captain carpet castle cat cedar cherry circle city
    clock cloud clover coffee comet cookie copper coral cotton cricket crystal daisy dance dawn delta
    desert diamond dinner dolphin dragon dream drum eagle earth east echo ember engine falcon feather
    fern field finger fire flame flower flute forest fox friend frost galaxy garden garlic ginger glass
    goat gold grape grass green hammer happy harbor harvest hello hill honey horse house ice indigo
    island ivory jacket jade jelly jungle kettle key kite kitten lake lamp lantern laptop leaf lemon
    letter lily lime lion lizard magic mango maple market meadow melon mint mirror monkey moon morning
    mountain music needle night noodle north oak ocean olive onion orange orbit owl paint palace panda
    paper parrot peach pebble pencil pepper piano pickle pillow pilot pine planet plum pocket pond
    potato puzzle queen quiet rabbit radio rain raven red river robin rocket rose ruby sail salt sand
    school shadow shell shine silver sky smile snow song south spark spider spring star stone storm
    summer sun table tea thunder tiger toast tomato torch tower train travel tree tulip tunnel turtle
    valley velvet violet violin wagon walnut water wave west whale wheel willow wind window winter
    wizard wolf wonder world yellow zebra
"""
WORDS = tuple(_WORDS.split())

SYMBOLS = "#*+=@%&o.x~^$"
"""Single characters that draw well in a terminal."""


def letters(rng: random.Random, least: int, most: int) -> str:
    """A made-up word of `least` to `most` lower-case letters."""
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(least, most)))


def word(rng: random.Random, least: int = 3, most: int = 12) -> str:
    """One word of `least` to `most` characters: common, made up, capitalised or with digits."""
    while True:
        roll = rng.random()
        if roll < 0.45:
            text = rng.choice(WORDS)
        elif roll < 0.8:
            text = letters(rng, least, most)
        elif roll < 0.88:
            text = rng.choice(WORDS).capitalize()
        elif roll < 0.92:
            text = letters(rng, least, most).upper()
        else:
            text = letters(rng, 2, max(2, most - 2)) + str(rng.randint(0, 99))
        if least <= len(text) <= most:
            return text


def phrase(rng: random.Random, least: int = 3, most: int = 16) -> str:
    """One or two words, `least` to `most` characters in all, with one blank between them."""
    while True:
        text = word(rng, min(3, least), most)
        if rng.random() < 0.4:
            text = f"{text} {word(rng, 2, most)}"
        if least <= len(text) <= most:
            return text


def number(rng: random.Random, least: int, most: int) -> str:
    """A decimal number from `least` to `most`."""
    return str(rng.randint(least, most))


def symbol(rng: random.Random) -> str:
    """One character of SYMBOLS, or now and then a letter."""
    return rng.choice(SYMBOLS) if rng.random() < 0.8 else rng.choice(string.ascii_letters)
