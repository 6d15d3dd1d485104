"""The benches run and write rows that say what they were taken on."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bytegen.cli import bench_generators
from bytegen.cli.main import cli
from bytegen.config import PRESETS
from bytegen.model import ByteLM
from bytegen.weights import save_model


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("precision", "heads"), [("fp32", 0), ("int8-dynamic", 2)])
def test_bench_generate_splits_the_time(
    tmp_path: Path, precision: str, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_generators, "NEW_BYTES", 8)
    torch.manual_seed(0)
    save_model(ByteLM(dataclasses.replace(PRESETS["nano"], mtp_heads=heads)), tmp_path / "model")
    arguments = [
        "bench",
        "generate",
        "--max-bytes",
        "150",
        "--model",
        str(tmp_path / "model"),
        "--rounds",
        "1",
        "--batch",
        "1",
        "--batch",
        "3",
        "--no-peers",
        "--precision",
        precision,
    ]
    done = CliRunner().invoke(cli, [*arguments, "--json", str(tmp_path / "rows")])
    assert done.exit_code == 0, done.output
    rows = rows_of(tmp_path / "rows")
    assert {r["precision"] for r in rows} == {precision}
    sampled = [r["subject"] for r in rows if r.get("measure") == "every byte sampled"]
    assert sampled == ["bytegen, 1 side by side", "bytegen, 3 side by side"]
    rows = [r for r in rows if "measure" not in r]
    kinds = ["none", "n-grams", *(["heads", "both"] if heads else [])]
    assert [(r["batch"], r["drafts"]) for r in rows] == [(batch, kind) for batch in (1, 3) for kind in kinds]
    assert len({r["bytes"] for r in rows if r["batch"] == 1}) == 1
    for row in rows:
        assert (row["drafted_per_step"] > 0) <= (row["drafts"] != "none")
        named = {"none": set(), "n-grams": {"file", "table"}, "heads": {"heads"}}
        assert row["accepted_per_step_from"].keys() <= named.get(row["drafts"], {"file", "table", "heads"})
        assert sum(row["accepted_per_step_from"].values()) == pytest.approx(row["accepted_per_step"])
        assert row["accepted_per_step"] < row["bytes_per_step"]
        assert 0 < row["constraint"] < row["model"] + row["constraint"] + row["sampling"] <= 1
        assert row["bytes"] > 0
        assert {"cpu", "cores", "versions", "commit", "date"} <= set(row)


def test_bench_generate_stands_beside_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_generators, "NEW_BYTES", 8)
    torch.manual_seed(0)
    save_model(ByteLM(PRESETS["nano"]), tmp_path / "model")
    options = ["--max-bytes", "150", "--model", str(tmp_path / "model"), "--rounds", "1", "--batch", "1"]
    done = CliRunner().invoke(cli, ["bench", "generate", *options, "--json", str(tmp_path / "rows")])
    assert done.exit_code == 0, done.output
    rows = [row for row in rows_of(tmp_path / "rows") if row.get("measure") == "every byte sampled"]
    assert {row["subject"].split(",")[0] for row in rows} == {
        "bytegen",
        "bytegen through torch",
        "transformers",
    }
    assert all(row["bytes_per_second"] > 0 for row in rows)


def test_bench_sandbox_counts_what_it_executes(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "sandbox",
        "--rounds",
        "1",
        "--instructions",
        "60000",
        "--json",
        str(tmp_path / "rows"),
    ]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert {r["program"] for r in rows_of(tmp_path / "rows")} > {"arithmetic", "dec and jnz alone"}


@pytest.mark.parametrize("arguments", [["generate", "--rounds", "0"], ["sandbox", "--instructions", "1"]])
def test_a_bench_of_no_rounds_is_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 2
    assert "at least" in done.stderr
