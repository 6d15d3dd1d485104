"""`bytegen generate --best-of` as a user runs it: one file or none, the account, one line for each mistake."""

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

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


def generate(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        cli, ["generate", "-o", str(out / "best"), "--best-of", "--max-bytes", "400", *arguments]
    )


def test_the_best_file_is_written_and_the_pass_rate_told(tmp_path: Path) -> None:
    done = generate(
        tmp_path, "count from 3 to 9", "--samples", "3", "--expect", "3\n4\n5\n6\n7\n8\n9", "--run"
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == "3\n4\n5\n6\n7\n8\n9\n"
    assert "3 of 3 files give what is expected (1 of 1), 100%; 3 behave as this one does" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert os.access(tmp_path / "best", os.X_OK)


def test_where_none_passes_nothing_is_written_and_the_account_says_why(tmp_path: Path, model: str) -> None:
    (tmp_path / "in").write_bytes(b"5")
    (tmp_path / "want").write_bytes(b"25\n")
    given = ["--stdin", "4", "--expect", "16", "--stdin-file", str(tmp_path / "in")]
    given += ["--expect-file", str(tmp_path / "want")]
    done = generate(
        tmp_path, "the square", "--samples", "4", "--model", model, "--seed", "3", *given, "--json"
    )
    assert done.exit_code == 1
    assert "0 of 4 files give what is expected (2 of 2), 0%; the closest gives 0; nothing" in done.stderr
    assert not (tmp_path / "best").exists()
    told = json.loads(done.stdout)
    assert told["file"] is None
    assert told["inputs"][:2] == ["4\n", "5"]
    assert [c["seed"] for c in told["candidates"]] == [3, 4, 5, 6]
    for c in told["candidates"]:
        assert c["well_formed"]
        assert c["loads"]
        assert len(c["runs"]) == len(told["inputs"])
        assert c["exits"] == all(run["exit_code"] is not None for run in c["runs"])
        assert not c["passes"]


def test_inputs_without_expectations_are_what_files_are_told_apart_by(tmp_path: Path) -> None:
    done = generate(tmp_path, "count from 3 to 9", "--samples", "2", "--stdin", "", "--stdin", "1", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["inputs"] == ["", "1\n"]
    assert told["pass_rate"] == 1
    assert told["file"] == str(tmp_path / "best")
    assert told["winner_seed"] in (0, 1)
    assert "2 of 2 files run to an end on every input" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["x", "--samples", "1"], "2 samples"),
        (["x", "--temperature", "0"], "temperature 0"),
        (["x", "--stdin", "1", "--stdin", "2", "--expect", "1"], "2 of --stdin and 1 of --expect"),
        (["x", "--expect", "1", "--expect", "2"], "0 of --stdin and 2 of --expect"),
        (["x", "--stdin-file", "in", "--expect", "1"], "1 of --stdin-file and 0 of --expect-file"),
        (["x", "--expect-file", "missing"], "missing"),
        (["x", "--run", "--json"], "leave one of them out"),
        (["x", "--format", "pe32-i386"], "elf64-x86_64"),
        (["x", "--particles", "3"], "without"),
        (["--prompts", "in"], "without"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_no_file(
    arguments: list[str], word: str, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("x\n")
    done = generate(tmp_path, *arguments, "--model", model)
    assert done.exit_code == 2
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("given", [["--stdin", "1"], ["--expect", "1"], ["--expect-file", "x"], ["--json"]])
def test_options_of_the_best_of_many_mean_nothing_without_it(given: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["generate", "x", "-o", str(tmp_path / "best"), *given])
    assert done.exit_code == 2
    assert done.stderr.strip() == f"bytegen: {given[0]} is for --best-of, which is not there"
