"""Constraints in other libraries' sampling loops."""

from bytegen.formats.adapters.transformers import ConstraintLogitsProcessor

__all__ = ["ConstraintLogitsProcessor"]
