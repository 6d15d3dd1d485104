"""The best of many: files for one prompt, written side by side, run in the emulator, and chosen by what they do.

best = bytegen.best_of(lm, "count from 3 to 9", samples=64)
best.winner.data, best.pass_rate, best.votes
"""

from bytegen.best.api import Best, Tally, best_of, choose
from bytegen.best.candidates import Candidate, Example, Judge
from bytegen.best.trials import PROBES, Trial

__all__ = ["PROBES", "Best", "Candidate", "Example", "Judge", "Tally", "Trial", "best_of", "choose"]
