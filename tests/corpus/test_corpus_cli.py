"""`bytegen corpus` as a user types it."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bytegen.decoding import NGrams
from bytegen.errors import UserError
from bytegen.train.corpus.cli import corpus
from bytegen.train.corpus.program import KINDS, all_programs
from bytegen.train.corpus.shards import read_samples


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(corpus, list(arguments))


def test_build_writes_the_kinds_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke(
        "build", str(out), "--samples", "30", "--kinds", "text, games", "--jobs", "1", "--seed", "3"
    )
    assert done.exit_code == 0, done.output
    assert f"{out}: 30 samples" in done.output
    assert {sample.kind for sample in read_samples(out)} == {"text", "games"}


def test_build_heldout_only(tmp_path: Path) -> None:
    done = invoke("build", str(tmp_path / "out"), "--samples", "20", "--heldout-only", "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert {sample.split for sample in read_samples(tmp_path / "out")} == {"heldout"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "text,opera"], "unknown kind 'opera'; there are: text, sequences"),
        (["--heldout-only", "--train-only"], "exclude each other"),
    ],
)
def test_mistakes_of_a_user_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = invoke("build", str(tmp_path / "out"), *arguments)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_drafts_learns_a_table_from_a_corpus(tmp_path: Path) -> None:
    folder, out = str(tmp_path / "corpus"), tmp_path / "drafts.safetensors"
    built = invoke("build", folder, "--samples", "12", "--kinds", "text", "--train-only", "--jobs", "1")
    assert built.exit_code == 0, built.output
    done = invoke("drafts", folder, "-o", str(out), "--least", "1")
    assert done.exit_code == 0, done.output
    table = NGrams.load(out).table
    data = [sample.data for sample in read_samples(folder)]
    assert len(table) > 50
    for context, byte in table.items():
        assert any(context.to_bytes(8, "little") + bytes((byte,)) in one for one in data)
    assert isinstance(invoke("drafts", str(tmp_path), "-o", str(out)).exception, UserError)


def test_build_refuses_a_used_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = invoke("build", str(tmp_path), "--samples", "1")
    assert isinstance(done.exception, UserError)
    assert "not empty" in str(done.exception)


def test_no_samples_is_bad_usage(tmp_path: Path) -> None:
    assert invoke("build", str(tmp_path / "out"), "--samples", "0").exit_code == 2


def test_show_lists_kinds_and_programs() -> None:
    kinds = invoke("show", "--markdown")
    assert kinds.exit_code == 0
    for kind in KINDS:
        assert f"| {kind} | " in kinds.output
    programs = invoke("show", "--markdown", "--programs")
    for program in all_programs():
        assert f"| {program.kind} | {program.name} | `" in programs.output
    assert "prompt" in invoke("show").output
