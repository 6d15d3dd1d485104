"""The decoding engine: sequences that join and leave a batch, drafts that change nothing but the time."""

from bytegen.decoding.drafts import Lookup, NGrams
from bytegen.decoding.engine import Engine, Timing
from bytegen.decoding.sequence import Sampling, Sequence
from bytegen.decoding.together import decode

__all__ = ["Engine", "Lookup", "NGrams", "Sampling", "Sequence", "Timing", "decode"]
