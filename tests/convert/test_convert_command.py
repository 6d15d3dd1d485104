"""`bytegen convert` and `bytegen export` as a user runs them."""

from pathlib import Path

import pytest
import torch
from checkpoints import random_model, save
from click.testing import CliRunner, Result
from test_transplant import byte_level, small

import bytegen
from bytegen.cli.convert import parse_size
from bytegen.cli.main import cli
from bytegen.errors import UserError
from bytegen.shards import Shards


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = save(random_model(small()), tmp_path / "hf")
    byte_level().save(str(folder / "tokenizer.json"))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_a_checkpoint_becomes_a_byte_model_that_generates_and_goes_back(source: Path, tmp_path: Path) -> None:
    options = ("--max-positions", 4096, "--dtype", "bfloat16", "--max-shard-size", "1KB")
    done = run("convert", source, tmp_path / "ours", *options)
    assert done.exit_code == 0, done.output
    assert "parameters in" in done.stderr
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 1
    assert "byte transplant" in (tmp_path / "ours" / "README.md").read_text()
    out = bytegen.generate(bytegen.load(tmp_path / "ours"), "anything", max_bytes=130)
    assert out.report.ok
    done = run("export", tmp_path / "ours", tmp_path / "back")
    assert done.exit_code == 0, done.output
    assert "model_type qwen3" in done.stderr
    assert Shards(tmp_path / "back").dtype("model.norm.weight") == torch.bfloat16


def test_a_kept_vocabulary_does_not_generate_bytes(source: Path, tmp_path: Path) -> None:
    assert run("convert", source, tmp_path / "kept", "--keep-vocabulary").exit_code == 0
    with pytest.raises(UserError, match=r"vocabulary of 304 ids.*--keep-vocabulary"):
        bytegen.generate(bytegen.load(tmp_path / "kept"), "anything")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["convert", "nowhere", "out"], "no folder"),
        (["convert", "hf", "out", "--max-shard-size", "much"], "500MB"),
        (["convert", "hf", "out", "--pattern", "LX"], "only the letters L"),
        (["convert", "hf", "out", "--window", "0"], "window=0"),
        (["convert", "hf", "hf"], "there already"),
        (["export", "first-flight", "out"], "conv_taps is 4"),
        (["export", "nowhere", "out"], "no model 'nowhere'"),
        (["export", "hf", "out"], "bytegen convert hf OUT"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str], word: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    done = run(*arguments)
    assert done.exit_code == 2
    assert word in done.stderr
    assert done.stderr.startswith("bytegen: ")
    assert done.stderr.count("\n") == 1
    assert [p.name for p in source.parent.iterdir()] == ["hf"]


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5 KB", 1500), ("70", 70)]
)
def test_sizes_have_units_of_a_thousand(text: str, size: int) -> None:
    assert parse_size(text) == size
