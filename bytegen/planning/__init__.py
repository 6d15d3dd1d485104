"""Memory, time and money of training and generation before anything runs: formulas of this library's own code.

    from bytegen import planning
    found = planning.plan("7b", context=143_360, gpus=4)
    found.fits, found.training[0].needed, found.training_offers[0].cost

Nothing here imports torch. Memory is held to torch's own accounting in the tests; times are as good as their rates.
"""

from bytegen.planning.plan import Plan, plan
from bytegen.planning.rates import Calibration, Rates, calibration, read_calibration
from bytegen.planning.search import GenerationOption, Offer, TrainingOption
from bytegen.planning.shapes import shape_of
from bytegen.planning.training import Layout

__all__ = [
    "Calibration",
    "GenerationOption",
    "Layout",
    "Offer",
    "Plan",
    "Rates",
    "TrainingOption",
    "calibration",
    "plan",
    "read_calibration",
    "shape_of",
]
