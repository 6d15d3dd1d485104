"""Model cards: a README.md that says what a model is, how it did in the funnel, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bytegen.config import ModelConfig
from bytegen.errors import UserError

EVALUATION = "eval.jsonl"
"""Beside the weights: the rows that `bytegen eval --json` writes. The card takes its funnel from there."""

_TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

{{ summary }}{% if origin %} {{ origin }}{% endif %}

## Use
```python
import bytegen

lm = bytegen.ByteLM.from_pretrained("{{ repo_id }}")
{{ use }}
```

## Shape
{{ shape }}

## Funnel
{{ funnel }}
"""


def read_evaluation(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the last `bytegen eval` in a JSONL file; UserError names the line that is no such row.

    One evaluation ends with its row "all"; rows of runs before it in the same file are left out.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            _cells(row)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{path} line {number} is no row of `bytegen eval` ({type(error).__name__}: {error})"
            ) from None
        if rows and rows[-1]["name"] == "all":
            rows = []
        rows.append(row)
    return rows


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the funnel as the cells of its table."""

    def share(value: float, interval: Iterable[float]) -> str:
        low, high = interval
        return f"{value:.1%} ({low:.0%}-{high:.0%})"

    stages = [f"{row[stage]:.1%}" for stage in ("well_formed", "loads", "exits")]
    first = share(row["pass_at_1"], row["pass_at_1_interval"])
    best = share(row["pass_at_n"], row["pass_at_n_interval"])
    return [str(row["name"]), f"{row['prompts']:d}", *stages, first, best]


def funnel_table(rows: list[dict[str, Any]]) -> str:
    """Return the funnel as a table in Markdown, with what it was measured under."""
    n = rows[-1]["samples"]
    head = ["", "prompts", "well formed", "loads", "exits", "behaves, pass@1 (95%)", f"pass@{n} (95%)"]
    lines = [head, ["---"] * len(head), *map(_cells, rows)]
    last = rows[-1]
    temperature = last.get("temperature")
    version = last.get("versions", {}).get("bytegen", "?")
    about = (
        f"`bytegen eval`, held-out prompts, {n} files each, seed {last.get('seed', '?')}, temperature"
        f" {'the default' if temperature is None else temperature}, bytegen {version}"
    )
    return about + ":\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shape_table(config: ModelConfig) -> str:
    """Return the shape as a table in Markdown."""
    local = sum(w is not None for w in config.windows())
    layers = f"{config.n_layers}"
    if local:
        layers += f", {local} of them local with a window of {config.window:,} (pattern `{config.pattern}`)"
    parts = [
        ("parameters", f"{config.n_params():,}"),
        ("layers", layers),
        ("width, feed-forward", f"{config.dim:,}, {config.ffn_dim:,}"),
        ("heads", f"{config.n_heads} of {config.head_dim}, {config.n_kv_heads} for keys and values"),
        (
            "vocabulary",
            f"{config.vocab_size:,} ids" + (" (256 bytes and marks)" if config.of_bytes else ""),
        ),
        ("context", f"{config.max_positions:,} positions"),
    ]
    if config.conv_taps > 1:
        parts.append(("convolution before attention", f"{config.conv_taps} taps"))
    if config.mtp_heads:
        parts.append(("multi-token prediction heads", f"{config.mtp_heads}, for drafts"))
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in parts)])


def model_card(
    config: ModelConfig, *, name: str, origin: str = "", rows: list[dict[str, Any]] | None = None,
    card_data: Any = None, repo_id: str | None = None,
) -> Any:  # fmt: skip
    """Return a `huggingface_hub.ModelCard` for a model of this shape.

    `rows` are those of an evaluation (`read_evaluation`), `origin` says where the weights come from, and `card_data`
    is Hugging Face's metadata (`ModelCardData`), to which the overall pass@1 is added.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    data = (
        ModelCardData(**card_data.to_dict())
        if card_data is not None
        else ModelCardData(library_name="bytegen")
    )
    if rows:
        overall = rows[-1]
        data.model_name = name
        data.eval_results = [
            EvalResult(
                task_type="text-generation", dataset_type="bytegen", dataset_name="bytegen eval, held-out prompts",
                metric_type=kind, metric_name=kind, metric_value=overall[key],
            )
            for kind, key in (("pass@1", "pass_at_1"), (f"pass@{overall['samples']}", "pass_at_n"))
        ]  # fmt: skip
    return ModelCard.from_template(
        card_data=data, template_str=_TEMPLATE, name=name, origin=origin, shape=shape_table(config),
        repo_id=repo_id or name,
        summary="A byte language model for executables, for the library `bytegen`." if config.of_bytes
        else "A language model in the layout of the library `bytegen`.",
        use='out = bytegen.generate(lm, "count from 3 to 9", max_bytes=4096, seed=0)' if config.of_bytes
        else "logits = lm(tokens)  # ids of the checkpoint's tokenizer",
        funnel=funnel_table(rows) if rows else f"Not measured yet: `bytegen eval --json {EVALUATION}` beside the"
        " weights, and saving again, puts it here.",
    )  # fmt: skip


def write_card(path: Path, config: ModelConfig, **options: Any) -> None:
    """Write a model card to `path`; options are those of `model_card`."""
    path.write_text(str(model_card(config, **options)))
