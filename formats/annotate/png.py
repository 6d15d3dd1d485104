"""The account as a picture: a map of the file coloured by kind of field, by choice, and by a model's surprise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bytegen.formats.annotate.account import Account
from bytegen.formats.annotate.colours import FORCED, FREE, HEAT, HEX, REFUSED, UNREACHED, rgb

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

PANEL = 512
MOST_ROWS = 1024
MOST_BITS = 12.0
_MARGIN, _LINE = 16, 18
_GROUND, _INK, _EMPTY = (255, 255, 255), (26, 29, 33), (34, 38, 44)
_Legend = list[tuple[tuple[int, int, int], str]]


def picture(account: Account, data: bytes, name: str, bits: Sequence[float] | None = None) -> bytes:
    """PNG bytes: one panel for the kinds, one for forced bytes, and one for `bits` (one number a byte).

    A cell is one byte, or several of a long file; rows run from left to right. Needs Pillow.
    """
    panels: list[tuple[str, np.ndarray, _Legend]] = [("kind of field", *_by_kind(account, data))]
    if account.forced:
        panels.append(("bytes with one choice only", *_by_choice(account)))
    if bits is not None:
        panels.append(("bits a byte, by the model", *_by_bits(bits)))
    drawn = [_panel(title, cells, legend) for title, cells, legend in panels]
    return _sheet(_heading(account, name), drawn)


def _by_kind(account: Account, data: bytes) -> tuple[np.ndarray, _Legend]:
    """uint8[size, 3], and what the colours mean. Neighbouring fields differ in shade; zeros are darker."""
    cells = np.zeros((account.size, 3), dtype=np.uint8)
    for area in account.areas:
        cells[area.start : area.end] = rgb(HEX.get(area.kind, HEX["unknown"]))
    odd = np.zeros(account.size, dtype=bool)
    for span in account.spans[1::2]:
        odd[span.start : span.end] = True
    for instruction in account.code[1::2]:
        odd[instruction.offset : instruction.offset + instruction.size] = True
    cells[odd] = _mix(cells[odd], (255, 255, 255), 0.2)
    zeros = np.frombuffer(data, dtype=np.uint8) == 0
    cells[zeros] = _mix(cells[zeros], _EMPTY, 0.35)
    legend = [(rgb(HEX[kind]), kind) for kind in HEX if kind in {area.kind for area in account.areas}]
    if account.refusal is not None:
        offset = account.refusal[0]
        for span in account.spans:
            if span.start <= offset < span.end:
                cells[span.start : span.end] = rgb(REFUSED)
        legend.append((rgb(REFUSED), f"refused at byte {offset}"))
    return cells, legend


def _by_choice(account: Account) -> tuple[np.ndarray, _Legend]:
    cells = np.empty((account.size, 3), dtype=np.uint8)
    cells[:] = rgb(UNREACHED)
    at = 0
    for i, length in enumerate(account.forced):
        cells[at : at + length] = rgb(FORCED if i % 2 else FREE)
        at += length
    legend = [(rgb(FREE), "free to choose"), (rgb(FORCED), "forced")]
    return cells, legend if at == account.size else [*legend, (rgb(UNREACHED), "not reached")]


def _by_bits(bits: Sequence[float]) -> tuple[np.ndarray, _Legend]:
    stops = np.array([rgb(stop) for stop in HEAT], dtype=float)
    places = np.clip(np.asarray(bits, dtype=float) / MOST_BITS, 0, 1) * (len(stops) - 1)
    channels = [np.interp(places, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    legend: _Legend = []
    for level in (0, 2, 4, 8, 12):
        place = level / MOST_BITS * (len(stops) - 1)
        colour = [round(float(np.interp(place, np.arange(len(stops)), stops[:, c]))) for c in range(3)]
        legend.append(((colour[0], colour[1], colour[2]), f"{level} bits"))
    return np.stack(channels, axis=1).round().astype(np.uint8), legend


def _mix(cells: np.ndarray, other: tuple[int, int, int], share: float) -> np.ndarray:
    return (cells * (1 - share) + np.array(other) * share).astype(np.uint8)


def _panel(title: str, cells: np.ndarray, legend: _Legend) -> Image:
    from PIL import Image, ImageDraw

    columns = 64 if len(cells) <= 4096 else 128 if len(cells) <= 65536 else 256
    unit = -(-len(cells) // (columns * MOST_ROWS)) or 1
    cells = cells[::unit]
    rows = -(-len(cells) // columns) or 1
    grid = np.empty((rows * columns, 3), dtype=np.uint8)
    grid[:] = _GROUND
    grid[: len(cells)] = cells
    scale = PANEL // columns
    map_ = Image.fromarray(grid.reshape(rows, columns, 3)).resize(
        (PANEL, rows * scale), Image.Resampling.NEAREST
    )
    height = map_.height + _LINE * (2 + len(legend)) + 8
    panel = Image.new("RGB", (PANEL, height), _GROUND)
    pen, font = ImageDraw.Draw(panel), _font(14)
    pen.text((0, 0), f"{title}; {columns * unit} bytes a row", fill=_INK, font=font)
    panel.paste(map_, (0, _LINE + 4))
    for i, (colour, text) in enumerate(legend):
        top = map_.height + _LINE * (i + 1) + 12
        pen.rectangle((0, top + 2, 12, top + 14), fill=colour)
        pen.text((20, top), text, fill=_INK, font=font)
    return panel


def _heading(account: Account, name: str) -> list[str]:
    held = f"; held to {account.format} at level {account.level}" if account.format else ""
    lines = [name, f"{account.what}, {account.size} bytes{held}"]
    if account.refusal is not None:
        offset, path, rule = account.refusal
        lines.append(f"refused at byte {offset} ({offset:#x}), {path}: {rule}")
    return [line.encode("ascii", "replace").decode() for line in lines]


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL.ImageFont import load_default

    return load_default(size)


def _sheet(heading: list[str], panels: list[Image]) -> bytes:
    from PIL import Image, ImageDraw

    top = _MARGIN + len(heading) * (_LINE + 2) + 8
    width = _MARGIN + sum(panel.width + _MARGIN for panel in panels)
    sheet = Image.new("RGB", (width, top + max(panel.height for panel in panels) + _MARGIN), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for i, line in enumerate(heading):
        room = (width - 2 * _MARGIN) // 7
        pen.text((_MARGIN, _MARGIN + i * (_LINE + 2)), line[:room], fill=_INK, font=_font(14))
    left = _MARGIN
    for panel in panels:
        sheet.paste(panel, (left, top))
        left += panel.width + _MARGIN
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
