"""A colour for each kind of area and for what else a map shows, the same in the terminal, the page and the PNG."""

from __future__ import annotations

HEX = {
    "header": "#e6a700", "table": "#c77f00", "names": "#5fb05f", "symbols": "#2f8f8f", "relocations": "#b05fa0",
    "dynamic": "#d0638a", "hash": "#9a7bd0", "versions": "#7a6bb0", "notes": "#a8b04a", "imports": "#d9703f",
    "exports": "#c04f4f", "resources": "#6fa8dc", "unwind": "#7f9fb0", "debug": "#8f8f6f", "code": "#3f7fd9",
    "data": "#6f8f6f", "padding": "#5a5a5a", "appended": "#a06040", "unknown": "#808080",
}  # fmt: skip
"""Colours by kind, of middling lightness so that they stand on light and on dark ground."""
REFUSED, FORCED, FREE, UNREACHED = "#ff2040", "#e6a700", "#3f7fd9", "#4a4f57"
HEAT = ("#12183c", "#463c96", "#be466e", "#fa963c", "#fff5be")
"""From little to much, even in lightness."""


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour "#rrggbb" as red, green and blue, 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
