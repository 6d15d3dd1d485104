"""Building corpora: what is kept, in which order, and what is refused."""

import hashlib
import json
import random
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from bytegen.errors import UserError
from bytegen.train.corpus.build import build
from bytegen.train.corpus.check import OracleMismatch, agrees, observe
from bytegen.train.corpus.compile import assemble, template
from bytegen.train.corpus.program import (
    KINDS,
    Behaviour,
    Params,
    Program,
    all_programs,
    program_named,
    split_of,
)
from bytegen.train.corpus.shards import (
    read_manifest,
    read_samples,
    read_table,
    schema,
    shard_paths,
)

each_program = pytest.mark.parametrize("program", all_programs(), ids=lambda program: program.name)


@each_program
def test_sandbox_shows_the_oracles_behaviour(program: Program) -> None:
    rng = random.Random(f"sandbox {program.name}")
    compiled = template(program)
    for _ in range(8):
        params = program.draw(rng)
        data = assemble(compiled, program, params)
        for stdin in program.stdins(rng, params, 2):
            expected = program.oracle(params, stdin)
            seen = observe(data, stdin)
            assert agrees(seen, expected), (params, stdin, expected, seen)
            if program.kind == "animations":
                assert expected.slept_ns


@pytest.mark.parametrize("program", [p for p in all_programs() if p.inputs], ids=lambda program: program.name)
def test_tools_end_by_themselves_on_an_empty_input(program: Program) -> None:
    rng = random.Random(program.name)
    params = program.draw(rng)
    seen = observe(assemble(template(program), program, params), b"")
    assert agrees(seen, program.oracle(params, b"")), seen


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "small"
    with ThreadPoolExecutor(1) as pool:
        build(folder, samples=500, seed=7, executor=pool, shard_rows=200)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("pool", [lambda: ThreadPoolExecutor(3), lambda: ProcessPoolExecutor(2)])
def test_the_executor_does_not_change_a_byte(pool: type[Executor], corpus: Path, tmp_path: Path) -> None:
    with pool() as executor:
        build(tmp_path / "again", samples=500, seed=7, executor=executor, shard_rows=200)
    assert digests(tmp_path / "again") == digests(corpus)


def test_another_seed_gives_another_corpus(corpus: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        build(tmp_path / "other", samples=100, seed=8, executor=pool)
    ours = {sample.prompt for sample in read_samples(corpus)}
    theirs = {sample.prompt for sample in read_samples(tmp_path / "other")}
    assert len(theirs) == 100
    assert len(ours & theirs) < 5


def test_rows_hold_what_they_say(corpus: Path) -> None:
    samples = list(read_samples(corpus))
    assert len(samples) == 500
    assert len({(sample.prompt, sample.data) for sample in samples}) == 500
    assert {sample.kind for sample in samples} == set(KINDS)
    for sample in samples:
        program = program_named(sample.program)
        assert sample.prompt in program.prompts(sample.params)
        assert sample.data == assemble(template(program), program, sample.params)
        assert sample.split == split_of(sample.program, sample.params)
        assert len(sample.examples) == (2 if program.inputs else 1)
        for example in sample.examples:
            shown = Behaviour(example.stdout, example.exit_code, example.slept_ns)
            assert shown == program.oracle(sample.params, example.stdin)
        assert sample.provenance.compiler.startswith("ziglang ")
        assert sample.licence == "Apache-2.0"
        assert sample.format == "elf64-x86_64"


def test_kinds_get_equal_shares(corpus: Path) -> None:
    kinds = read_manifest(corpus)["kinds"]
    for kind in KINDS:
        assert 25 <= sum(kinds[kind].values()) <= 80, kind


def test_splits_lie_in_files_of_their_own(corpus: Path) -> None:
    behaviours: dict[str, set[tuple[str, Params]]] = {}
    for split in ("train", "heldout"):
        samples = list(read_samples(corpus, split))
        assert {sample.split for sample in samples} == {split}
        behaviours[split] = {(sample.program, sample.params) for sample in samples}
    assert not behaviours["train"] & behaviours["heldout"]


def test_shards_and_manifest_agree(corpus: Path) -> None:
    manifest = read_manifest(corpus)
    rows = 0
    for shard in manifest["shards"]:
        path = corpus / shard["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        table = pyarrow.parquet.read_table(path)
        assert table.schema == schema()
        assert table.num_rows == shard["rows"] <= 200
        rows += table.num_rows
    assert rows == 500 == sum(manifest["splits"].values())
    assert sorted(path.name for path in corpus.iterdir()) == sorted(
        [*(shard["file"] for shard in manifest["shards"]), "manifest.json"]
    )
    counted = [row["train"] + row["heldout"] for row in manifest["programs"].values()]
    assert sum(counted) == 500
    assert read_table(corpus, columns=["prompt"]).num_rows == 500


def test_only_heldout_behaviours(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        manifest = build(tmp_path / "held", samples=60, split="heldout", executor=pool)
    assert manifest["splits"] == {"train": 0, "heldout": 60}
    assert [path.name for path in shard_paths(tmp_path / "held")] == ["heldout-00000.parquet"]
    with pytest.raises(UserError, match=r"no corpus here.*train-"):
        shard_paths(tmp_path / "held", "train")


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with ThreadPoolExecutor(1) as pool:
        build(
            tmp_path / "few",
            samples=40,
            executor=pool,
            programs=[program_named("say")],
            progress=lambda done, total: steps.append((done, total)),
        )
    assert steps == [(done, 40) for done in range(1, 41)]


def test_a_program_that_does_not_do_as_its_oracle_says_stops_the_build(tmp_path: Path) -> None:
    program = program_named("count_up")
    cases = {
        r"expected Behaviour\(stdout=b'no'": replace(program, oracle=lambda params, stdin: Behaviour(b"no")),
        "exit_code=3": replace(program, source=program.source.replace("quit(0)", "quit(3)")),
        "trouble='.+'": replace(program, source="MAIN { *(volatile int *)64 = 1; quit(0); }"),
        "slept_ns=5": replace(
            program, oracle=lambda params, stdin: replace(program.oracle(params, stdin), slept_ns=5)
        ),
    }
    for message, wrong in cases.items():
        with (
            ThreadPoolExecutor(1) as pool,
            pytest.raises(OracleMismatch, match=rf"count_up\('\d+.*{message}"),
        ):
            build(tmp_path / "wrong", samples=3, programs=[wrong], executor=pool, cache=tmp_path / "cache")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_two_meanings_of_a_prompt_stop_the_build(tmp_path: Path) -> None:
    program = program_named("count_up")
    other = replace(program_named("count_down"), phrasings=program.phrasings, draw=lambda rng: ("5", "5"))
    same = replace(program, draw=lambda rng: ("5", "5"))
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match=r"means both .*count_.*and .*count_"):
        build(tmp_path / "twice", samples=20, programs=[same, other], executor=pool)


def test_an_exhausted_program_gives_way_to_the_others(tmp_path: Path) -> None:
    small = replace(program_named("say"), draw=lambda rng: ("hello",))
    with ThreadPoolExecutor(1) as pool:
        manifest = build(
            tmp_path / "some", samples=80, programs=[small, program_named("count_up")], executor=pool
        )
        assert manifest["programs"]["say"]["train"] + manifest["programs"]["say"]["heldout"] == 9
        with pytest.raises(UserError, match="only 9 distinct samples, 10 were asked for"):
            build(tmp_path / "none", samples=10, programs=[small], executor=pool)
    assert not (tmp_path / "none").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        build(used, samples=1)
    with pytest.raises(UserError, match="this is a file"):
        build(used / "notes", samples=1)
    assert (used / "notes").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    with ThreadPoolExecutor(1) as pool:
        build(tmp_path / "empty", samples=2, executor=pool, programs=[program_named("say")])
    assert json.loads((tmp_path / "empty" / "manifest.json").read_text())["settings"]["samples"] == 2


def test_reading_what_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus here"):
        list(read_samples(tmp_path))
    with pytest.raises(UserError, match=r"is .* a corpus"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match="unknown split 'test'; there are: train, heldout"):
        list(read_samples(tmp_path, "test"))
    (tmp_path / "train-00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="train-00000"):
        read_table(tmp_path)
    with pytest.raises(UserError, match="train-00000"):
        list(read_samples(tmp_path))
    with pytest.raises(UserError, match="unknown split"):
        build(tmp_path / "x", samples=1, split="test")
