"""A process that runs programs for another one: `python -m bytegen.sandbox.worker`, messages on stdin and
stdout.
"""

from __future__ import annotations

import os
import signal
import sys

from bytegen.errors import UserError
from bytegen.sandbox.runner import run_here
from bytegen.sandbox.wire import pack_result, receive, send


def main() -> None:
    """Serve runs until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interrupt ends
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may write between the messages
    requests = sys.stdin.buffer
    while True:
        try:
            options, (data, stdin, *texts) = receive(requests)
        except EOFError:
            return
        arguments = options.pop("arguments")
        del options["blobs"]
        try:
            result = run_here(data, stdin=stdin, argv=texts[:arguments], env=texts[arguments:], **options)
        except UserError as error:
            send(answers, {"error": str(error)}, [])
        else:
            send(answers, *pack_result(result))


if __name__ == "__main__":
    main()
