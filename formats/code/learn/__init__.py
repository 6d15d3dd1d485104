"""Learns the instruction tables of `bytegen.formats.code` from capstone and from what processors refuse.

    python -m bytegen.formats.code.learn x86_64 -o x86_64.npz

Offline only: nothing here is imported when a table is used.
"""
