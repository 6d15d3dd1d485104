"""Benchmark helpers: quantiles, rounds, the environment stamp, JSON lines; and `bytegen bench formats`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bytegen.benchmark import (
    environment,
    git_commit,
    interleave,
    measure,
    quantile,
    summarise,
    write_json_lines,
)
from bytegen.cli.bench_formats import PEERS, formats_bench, peer_steps

numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=1), st.floats(0, 1))
def test_quantiles_lie_between_the_extremes_and_grow(values: list[float], share: float) -> None:
    assert min(values) <= quantile(values, share) <= max(values) + 1e-6
    timing = summarise(values)
    assert timing.p20 <= timing.median <= timing.p80
    assert timing.rounds == len(values)


def test_quantile_interpolates() -> None:
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([0, 10], 0.25) == 2.5
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_measure_calls_as_often_as_asked_and_once_before() -> None:
    calls: list[int] = []
    timing = measure(lambda: calls.append(1), rounds=3, calls=4)
    assert len(calls) == 13
    assert timing.rounds == 3
    assert timing.median >= 0
    assert timing.scaled(2.0).median == 2 * timing.median


def test_interleave_asks_in_turn_and_drops_the_first_round() -> None:
    asked: list[str] = []
    figures = iter([100.0, 200.0, 1.0, 2.0, 3.0, 4.0])

    def subject(name: str) -> float:
        asked.append(name)
        return next(figures)

    timings = interleave({"a": lambda: subject("a"), "b": lambda: subject("b")}, rounds=2)
    assert asked == ["a", "b"] * 3
    assert (timings["a"].median, timings["b"].median) == (2.0, 3.0)


def test_environment_says_what_a_figure_depends_on() -> None:
    stamp = environment(("numpy", "no-such-package"))
    assert {"cpu", "cores", "load", "system", "python", "versions", "commit", "date"} == set(stamp)
    assert isinstance(stamp["versions"], dict)
    assert "numpy" in stamp["versions"]
    assert "no-such-package" not in stamp["versions"]
    json.dumps(stamp)


def test_commit_is_marked_when_there_are_changes_and_empty_without_git(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "file").write_text("one")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "one")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = git_commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == clean + "+"


def test_json_lines_replace_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_json_lines(path, [{"a": 1}, {"a": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"a": 2}]
    with pytest.raises(TypeError):
        write_json_lines(path, [{"a": object()}])
    assert len(path.read_text().splitlines()) == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("peer", PEERS)
def test_peers_take_every_byte_of_the_task_they_are_timed_on(peer: str) -> None:
    steps = peer_steps(peer)
    if steps is None:
        pytest.skip(f"{peer} is not installed")
    data = bytes(range(256)) * 4
    assert steps(data, 0) > 0
    assert steps(data, 1_000) > 0


@pytest.mark.slow
def test_bench_formats_prints_a_table_and_writes_a_line_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bytegen import formats

    monkeypatch.setattr("bytegen.cli.bench_formats.PROGRAMS", ("gcc-free",))
    monkeypatch.setattr("bytegen.cli.bench_formats.WALK_BYTES", (300, 4_096))
    monkeypatch.setattr("bytegen.cli.bench_formats.of_this_system", lambda: iter(()))

    walk = tmp_path / "walk"
    walk.write_bytes(formats.sample("elf64-x86_64", 3, 500))
    rows_file = tmp_path / "rows.jsonl"
    result = CliRunner().invoke(
        formats_bench,
        ["--rounds", "1", "--files", str(walk), "--json", str(rows_file)],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    subjects = {row["subject"] for row in rows}
    assert "bytegen" in subjects
    measures = {row["measure"] for row in rows if row["subject"] == "bytegen"}
    assert measures >= {"mask+advance", "advance_many", "construct", "fork", "rollback 1"}
    assert {row["input"] for row in rows} >= {"all of real", "all of walk", "real walk"}
    assert all(row["median"] > 0 and row["p20"] <= row["median"] <= row["p80"] for row in rows)
    assert all(row["cpu"] and row["unit"] in ("us", "us/byte", "times") for row in rows)
