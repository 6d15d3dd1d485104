"""Attention in Triton: forward, backward, and decoding over caches."""
