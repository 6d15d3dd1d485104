"""An account of any file, byte for byte: what each place holds, which rule it obeys, and where it fails.

    from bytegen.formats.annotate import annotate, account_of
    account = annotate(open("a.out", "rb").read())      # in this process
    account = account_of(untrusted_bytes)               # in a child process with limits

The account of a file that replays comes from the constraint that also generates; what the constraint leaves
free, and what lies behind its first refusal, is named by a tolerant reader.
"""

from __future__ import annotations

from bytegen.formats.annotate.account import Account, Area, Instruction, Mark, Span
from bytegen.formats.annotate.fields import annotate
from bytegen.formats.annotate.isolation import account_of

__all__ = ["Account", "Area", "Instruction", "Mark", "Span", "account_of", "annotate"]
