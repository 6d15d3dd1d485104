"""The peers of `bytegen bench formats`: llguidance and xgrammar on a far simpler task over the same bytes.

They get a byte vocabulary and a one-line grammar that allows any text. Neither can say "any byte" (their grammars
are over UTF-8), so they are fed the bytes' low seven bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PEERS = ("llguidance", "xgrammar")
Steps = Callable[[bytes, int], float]
# Processor time: one thread computes, and what else the machine does shall not count.
_clock = time.thread_time


def peer_steps(peer: str) -> Steps | None:
    """Seconds for mask + consume over data[skip:] by a peer, as a function; None if it is not installed."""
    try:
        return _llguidance_steps() if peer == "llguidance" else _xgrammar_steps()
    except ImportError:
        return None


def _llguidance_steps() -> Steps:
    import llguidance
    import llguidance.numpy as bitmasks

    tokenizer = llguidance.LLTokenizer("byte")
    bitmask = bitmasks.allocate_token_bitmask(1, tokenizer.vocab_size)
    fill = bitmasks.fill_next_token_bitmask

    def steps(data: bytes, skip: int) -> float:
        matcher = llguidance.LLMatcher(tokenizer, r"start: /(?s:.*)/")
        tokens = [byte & 0x7F for byte in data]
        matcher.consume_tokens(tokens[:skip])
        consume = matcher.consume_token
        start = _clock()
        for token in tokens[skip:]:
            fill(matcher, bitmask, 0)
            consume(token)
        seconds = _clock() - start
        if matcher.is_error():
            raise RuntimeError(f"llguidance stopped: {matcher.get_error()[:200]}")
        return seconds

    return steps


def _xgrammar_steps() -> Steps:
    import xgrammar

    vocabulary = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[256])
    grammar = xgrammar.GrammarCompiler(info).compile_grammar(r"root ::= [\x00-\U0010FFFF]*")
    bitmask = xgrammar.allocate_token_bitmask(1, 257)

    def steps(data: bytes, skip: int) -> float:
        matcher = xgrammar.GrammarMatcher(grammar)
        tokens = [byte & 0x7F for byte in data]
        fill, accept = matcher.fill_next_token_bitmask, matcher.accept_token
        for token in tokens[:skip]:
            accept(token)
        accepted = True
        start = _clock()
        for token in tokens[skip:]:
            fill(bitmask)
            accepted &= accept(token)
        seconds = _clock() - start
        if not accepted:
            raise RuntimeError("xgrammar refused a byte of any text")
        return seconds

    return steps
