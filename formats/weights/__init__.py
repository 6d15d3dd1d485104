"""Weights for the choices of random files: what real files put into each field, so that random ones look alive."""

from bytegen.formats.weights.draw import draw_lively
from bytegen.formats.weights.table import Weights, load_weights

__all__ = ["Weights", "draw_lively", "load_weights"]
