"""Byte transplant: the embedding and head of a byte model from a checkpoint with a byte-level BPE vocabulary.

Every byte is a token of such a vocabulary, spelt as one character (GPT-2's table): its rows become the byte's. The
end of the file takes the checkpoint's end of text, the begin mark its beginning of text where it has one, and every
other special id the mean of the 256 byte rows, with which no new id starts out likelier than bytes are on average
(Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytegen.convert.architectures import read_json
from bytegen.errors import UserError
from bytegen.shards import Shards
from bytegen.tokenizer import BEGIN, END_OF_FILE, VOCAB_SIZE


def byte_characters() -> list[str]:
    """Return the character that stands for each byte in a byte-level BPE (`bytes_to_unicode` of GPT-2).

    Bytes that Latin-1 shows stand for themselves, the others in turn for the characters from U+0100 on.
    """
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(b if b in shown else next(spare)) for b in range(256)]


@dataclass(frozen=True)
class ByteRows:
    """The ids of a checkpoint's vocabulary whose rows are taken: one for each byte, and for special ids."""

    of_bytes: tuple[int, ...]
    of_specials: Mapping[int, int]

    def transplant(self, shards: Shards, name: str) -> Tensor:
        """Return the rows of matrix `name` [V, D] for our vocabulary, [320, D], reading no other rows."""
        byte_rows = shards.read_rows(name, self.of_bytes)
        # The mean of 256 values in half precision would lose most of its bits.
        exact = torch.promote_types(byte_rows.dtype, torch.float32)
        mean = byte_rows.to(exact).mean(0).to(byte_rows.dtype)
        out = mean.expand(VOCAB_SIZE, -1).clone()
        out[:256] = byte_rows
        for ours, theirs in self.of_specials.items():
            out[ours] = shards.read_rows(name, [theirs])[0]
        return out


def find_rows(folder: Path, config: Mapping[str, Any], vocab_size: int) -> ByteRows:
    """Return which rows to take, by the tokenizer files of `folder` (tokenizer.json, or vocab.json).

    UserError when there are none, the tokenizer is not byte-level (SentencePiece's byte fallback is not: a model
    hardly ever saw the rows of bytes that have pieces of their own), a byte has no token (names each), or a token's
    id is past the embedding.
    """
    vocabulary, where = _vocabulary(folder)
    characters = byte_characters()
    missing = [f"0x{b:02x}" for b, character in enumerate(characters) if character not in vocabulary]
    if len(missing) == 256 or "<0x00>" in vocabulary:
        raise _not_byte_level(where)
    if missing:
        raise UserError(
            f"{where} has no token for the bytes {', '.join(missing)}; a byte model needs all 256"
        )
    ids = tuple(vocabulary[character] for character in characters)
    wrong = [i for i in ids if not isinstance(i, int) or not 0 <= i < vocab_size]
    if wrong or len(set(ids)) != 256:
        problem = f"the id {wrong[0]!r}" if wrong else "one id for two bytes"
        raise UserError(f"{where} gives {problem}; the embedding has ids 0 to {vocab_size - 1}, one a token")
    return ByteRows(ids, _specials(folder, config, vocab_size))


def _not_byte_level(where: Path) -> UserError:
    return UserError(
        f"{where} is no byte-level BPE: its bytes have no tokens of their own that a model was trained on; Qwen's and"
        " Llama 3's tokenizers are. With --keep-vocabulary the checkpoint converts as it is"
    )


def _vocabulary(folder: Path) -> tuple[Mapping[str, int], Path]:
    """Return token to id by the tokenizer's files, and the file."""
    path = folder / "tokenizer.json"
    if path.exists():
        tokenizer = read_json(path, "a tokenizer")
        model = tokenizer.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        spelt = json.dumps([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")])
        if not isinstance(vocabulary, dict) or '"ByteLevel"' not in spelt:  # a Unigram's vocabulary is a list
            raise _not_byte_level(path)
        return vocabulary, path
    path = folder / "vocab.json"
    if path.exists():
        return read_json(path, "a vocabulary"), path
    raise UserError(
        f"{folder} has neither tokenizer.json nor vocab.json, which say whose rows the bytes take; put the checkpoint's"
        " there, or give --keep-vocabulary"
    )


def _specials(folder: Path, config: Mapping[str, Any], vocab_size: int) -> dict[int, int]:
    """Return our special ids that take a row of the checkpoint's: its end and beginning of text."""
    found = dict(config)
    path = folder / "generation_config.json"
    if path.exists():
        found = {
            **read_json(path, "a generation config"),
            **{k: v for k, v in found.items() if v is not None},
        }
    specials = {}
    for ours, key in ((END_OF_FILE, "eos_token_id"), (BEGIN, "bos_token_id")):
        value = found.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and 0 <= value < vocab_size:
            specials[ours] = value
    return specials
