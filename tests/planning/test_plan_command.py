"""`bytegen plan` on the command line, and `bytegen.plan`: the cases that were asked about, and bad usage."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bytegen
from bytegen.cards import CARDS
from bytegen.cli.main import cli
from bytegen.cli.plan import plan as command
from bytegen.config import preset
from bytegen.errors import UserError
from bytegen.planning import Plan, shape_of

CASE = ["--context", "143360", "--gpus", "4"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", *arguments])


def found(*arguments: str) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json").stdout)


def test_seven_billion_parameters_train_on_four_cards_of_80_gb_when_layers_are_recomputed() -> None:
    done = run("--model", "7b", *CASE)
    assert done.exit_code == 0, done.output
    assert "an estimate, not calibrated" in done.output
    said = found("--model", "7b", *CASE)
    by_recompute = {option["recompute"]: option for option in said["training"]}
    assert by_recompute[True]["fits"] and not by_recompute[False]["fits"]  # noqa: PT018
    assert by_recompute[True]["layout"] == {"length": 143_360, "batch": 1, "data": 1, "context": 4}
    # Shards of float32: weights and gradients are 26 GB each, momenta as much.
    assert said["parameters"] == preset("7b").n_params()
    backward = by_recompute[True]["moments"]["the backward of layer 27"]
    assert backward["parameters"] == pytest.approx(said["parameters"], rel=1e-6)
    # Inputs of 28 layers and one layer in full, a quarter of the sequence each.
    assert backward["activations"] > 28 * 143_360 // 4 * 3584 * 2
    assert said["training_clusters"]
    assert said["generation_clusters"]


def test_32_billion_parameters_do_not_train_there_and_write_there() -> None:
    done = run("--model", "cwm", *CASE)
    assert done.exit_code == 1, done.output
    said = found("--model", "cwm-32b", *CASE)
    assert not any(option["fits"] for option in said["training"])
    assert {o["precision"]: o["fits"] for o in said["generation"]} == {
        "bfloat16": True, "float32": False, "int8": True
    }  # fmt: skip
    assert found("--model", "cwm", *CASE, "--for", "generate")["fits"]
    shards = 3 * 4 * preset("cwm-32b").n_params()  # weights, gradients, momenta
    assert all(o["gpus"] * CARDS[o["card"]].memory > shards for o in said["training_clusters"])


def test_clusters_come_by_cost_and_a_rent_of_ones_own_changes_it() -> None:
    usual = found("--model", "1b", "--for", "train")["training_clusters"]
    assert [o["cost"] for o in usual] == sorted(o["cost"] for o in usual)
    assert {o["card"] for o in usual} == set(CARDS)
    dear = found("--model", "1b", "--for", "train", "--price", f"{usual[0]['card']}=1000")[
        "training_clusters"
    ]
    assert dear[0]["card"] != usual[0]["card"]
    twice = found("--model", "1b", "--for", "train", "--tokens", "2e9")["training_clusters"]
    assert twice[0]["cost"] == pytest.approx(2 * usual[0]["cost"])


def test_from_python_a_plan_takes_a_config() -> None:
    config = dataclasses.replace(preset("nano"), window=100)
    answer = bytegen.plan(config, context=1000, batch=4, gpus=2)
    assert isinstance(answer, Plan)
    assert answer.fits
    assert {(o.layout.data, o.layout.context) for o in answer.training} == {(1, 2), (2, 1)}
    assert answer.to_json()["config"]["window"] == 100


def test_a_folder_or_a_packaged_model_gives_its_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(preset("nano").to_json())
    assert shape_of(tmp_path)[1] == preset("nano")
    assert shape_of("first-flight")[1].n_layers == 6
    assert shape_of("Qwen2.5-7B") == ("7b", preset("7b"))
    values = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 40, "num_hidden_layers": 2,
              "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 64,
              "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert shape_of(tmp_path)[1].ffn_dim == 40
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        shape_of(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--model", "8b"], "no model '8b'"),
        (["--model", "7b", "--context", "0"], "1 to 163840"),
        (["--model", "7b", "--context", "163841"], "1 to 163840"),
        (["--model", "7b", "--gpus", "0"], "--gpus 0"),
        (["--model", "7b", "--batch", "0"], "--batch 0"),
        (["--model", "7b", "--files", "-1"], "--files -1"),
        (["--model", "7b", "--tokens", "nan"], "--tokens nan"),
        (["--model", "7b", "--bytes-per-step", "0.5"], "--bytes-per-step"),
        (["--model", "7b", "--context", "4", "--gpus", "5"], "fewer GPUs"),
        (["--model", "7b", "--gpu", "v100"], "h100, h200"),
        (["--model", "7b", "--gpu", "cpu"], "--calibrate"),
        (["--model", "7b", "--precision", "int4"], "int8"),
        (["--model", "7b", "--optimizer", "sgd"], "muon, adamw"),
        (["--model", "7b", "--for", "fun"], "both, train, generate"),
        (["--model", "7b", "--price", "h100"], "h100=2.50"),
        (["--model", "7b", "--price", "h100=-1"], "more than 0"),
        (["--model", "7b", "--price", "v100=1"], "kinds of GPU"),
        (["--model", "7b", "--calibrate", "none.jsonl"], "cannot be read"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], word: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    line = done.stderr.strip()
    assert "\n" not in line
    assert line.startswith("bytegen: ")
    assert word in line


def test_a_plan_needs_no_torch() -> None:
    code = "import bytegen, sys; bytegen.plan('7b', context=143_360, gpus=4); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_help_says_what_exit_codes_mean() -> None:
    assert "1 when not" in CliRunner().invoke(command, ["--help"]).output
