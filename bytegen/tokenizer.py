"""Bytes as tokens: ids 0..255 are the bytes themselves, special ids start at 256.

A training sequence, and the context of a generation, is

    BEGIN  prompt (UTF-8)  END_OF_PROMPT  format tag  file bytes  END_OF_FILE

`END_OF_FILE` is 256, the index that `bytegen.formats` masks use for "the file may end here", so a
constraint's mask lines up with the first 257 logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bytegen.errors import UserError

END_OF_FILE = 256
BEGIN = 257
END_OF_PROMPT = 258
PADDING = 259
PARAMETERS = 260  # tag of the curriculum's short form: only the parameters follow, not the file

_TRACE_FIRST = 264
TRACE_MARKS = {
    name: _TRACE_FIRST + i
    for i, name in enumerate(("trace", "frame", "call", "return", "system_call", "fault", "unchanged", "end"))
}

_FORMAT_FIRST = 272
_FORMATS = (
    "elf64-x86_64",
    "elf32-i386",
    "elf64-aarch64",
    "pe32plus-x86_64",
    "pe32-i386",
    "pe32plus-aarch64",
    "efi-x86_64",
)
FORMAT_TAGS = {name: _FORMAT_FIRST + i for i, name in enumerate(_FORMATS)}

N_CHOICES = 257
"""What a sampler chooses from: the 256 bytes and the end of the file."""

VOCAB_SIZE = 320
"""Ids in use, padded to a multiple of 64."""


def format_tag(name: str) -> int:
    """Return the id that announces a file of format `name`; UserError lists the formats there are."""
    try:
        return FORMAT_TAGS[name]
    except KeyError:
        raise UserError(f"no token for format {name!r}; there are {', '.join(FORMAT_TAGS)}") from None


def encode_bytes(data: bytes) -> list[int]:
    """Return the ids of `data`, one per byte."""
    return list(data)


def decode_bytes(ids: Iterable[int]) -> bytes:
    """Return the bytes among `ids`; special ids say nothing of the file and are left out."""
    return bytes(i for i in ids if i < 256)


def encode_prompt(prompt: str, tag: int) -> list[int]:
    """Return the ids that stand before a file: begin, the prompt in UTF-8, end of prompt, `tag`.

    Raises UserError when the prompt is empty or cannot be written as UTF-8.
    """
    if not prompt.strip():
        raise UserError("the prompt is empty; describe a program, such as 'count from 3 to 9'")
    try:
        text = prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the prompt has a lone surrogate at character {error.start}; it must be UTF-8"
        ) from None
    return [BEGIN, *text, END_OF_PROMPT, tag]


def decode_prompt(ids: Sequence[int]) -> str:
    """Return the prompt at the head of `ids` (the inverse of `encode_prompt`)."""
    end = ids.index(END_OF_PROMPT)
    return bytes(ids[1:end]).decode("utf-8")
