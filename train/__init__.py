"""Corpora of programs, training of byte models, evaluation."""
