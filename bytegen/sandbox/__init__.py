"""Runs generated programs in an emulator, with limits; nothing runs natively.

from bytegen.sandbox import run
result = run(open("hello", "rb").read(), stdin=b"")
result.stdout, result.exit_code, result.fault, result.limit, result.instructions
"""

from bytegen.sandbox.result import Fault, Result, Syscall
from bytegen.sandbox.runner import run, run_many

__all__ = ["Fault", "Result", "Syscall", "run", "run_many"]
