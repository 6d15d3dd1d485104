"""`bytegen generate` as a user runs it: outputs, exit codes, one line for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bytegen.cli.main import cli
from bytegen.config import PRESETS
from bytegen.model import ByteLM
from bytegen.weights import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "nano"
    save_model(ByteLM(PRESETS["nano"]), folder)
    return str(folder)


def test_the_readme_s_prompt_counts_from_3_to_9(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["generate", "count from 3 to 9", "-o", str(tmp_path / "count"), "--run"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "3\n4\n5\n6\n7\n8\n9\n"
    assert os.access(tmp_path / "count", os.X_OK)


def test_many_prompts_and_samples_go_to_a_folder_with_an_index(tmp_path: Path, model: str) -> None:
    (tmp_path / "prompts.txt").write_text("first\n\nsecond\n")
    arguments = ["generate", "--prompts", str(tmp_path / "prompts.txt"), "--samples", "2", "--model", model]
    done = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "out"), "--max-bytes", "300", "--run"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "index.jsonl").read_text().splitlines()]
    assert [(r["prompt"], r["seed"]) for r in rows] == [
        ("first", 0),
        ("first", 1),
        ("second", 0),
        ("second", 1),
    ]
    assert all((tmp_path / "out" / r["file"]).stat().st_size == r["bytes"] for r in rows)
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_a_file_of_exactly_so_many_bytes(tmp_path: Path, model: str) -> None:
    lengths = ["--min-bytes", "333", "--max-bytes", "333"]
    for options in ([], ["--no-drafts"], ["--particles", "2"]):
        out = tmp_path / f"file{len(options)}{'-'.join(options)}"
        done = CliRunner().invoke(
            cli, ["generate", "x", "-o", str(out), "--model", model, *lengths, *options]
        )
        assert done.exit_code == 0, done.output
        assert out.stat().st_size == 333
    drafted, alone = (tmp_path / name for name in ("file0", "file1--no-drafts"))
    assert drafted.read_bytes() == alone.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([""], "empty"),
        (["x", "--format", "coff"], "elf64-x86_64"),
        (["x", "--level", "best"], "load"),
        (["x", "--max-bytes", "5"], "smallest"),
        (["x", "--max-bytes", "200000"], "context"),
        (["x", "--min-bytes", "5000"], "max_bytes, which is 4096"),
        (["x", "--temperature", "-2"], "temperature"),
        (["x", "--model", "nowhere"], "nowhere"),
        (["x", "--device", "abacus"], "abacus"),
        (["x", "--stdin-file", "missing.txt"], "missing.txt"),
        (["x", "--prompts", "missing.txt"], "either"),
        ([], "either"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_no_file(
    arguments: list[str], word: str, tmp_path: Path, model: str
) -> None:
    if "--model" not in arguments:
        arguments = [*arguments, "--model", model]
    done = CliRunner().invoke(cli, ["generate", "-o", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_comes_without_torch() -> None:
    code = (
        "import sys; from bytegen.cli.main import cli\n"
        "cli.main(['generate', '--help'], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
