"""Training: loss only where it belongs, and a killed run that resumes to the same curve, bit for bit."""

import dataclasses
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bytegen import formats, tokenizer
from bytegen.config import PRESETS
from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.train.config import load_config
from bytegen.train.corpus.build import build
from bytegen.train.data import Cursor, Encoder, Example, Stream, batches, load_examples, pack
from bytegen.train.optim import Muon, lr_scale, orthogonalise
from bytegen.train.trainer import Trainer, train
from bytegen.weights import save_model


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from concurrent.futures import ThreadPoolExecutor

    from bytegen.train.corpus.program import programs_of

    out = tmp_path_factory.mktemp("corpus") / "shards"
    with ThreadPoolExecutor(1) as executor:
        build(out, samples=300, seed=3, programs=programs_of(["sequences", "text"]), executor=executor)
    return out


@pytest.fixture
def config_path(corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        [model]
        preset = "nano"
        [data]
        shards = "{corpus}"
        heldout_examples = 8
        [curriculum]
        short_share = [[4, 0.5], [8, 0.0]]
        [optim]
        warmup = 2
        decay = 4
        [run]
        out = "{tmp_path / "run"}"
        steps = 12
        tokens_per_batch = 1024
        threads = 1
        evaluate_every = 5
        checkpoint_every = 3
        """
    )
    return path


def curve(folder: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = (
        "step",
        "loss",
        "bits_per_byte",
        "gradient_norm",
        "lr_scale",
        "documents",
        "heldout_loss",
        "heldout_exact",
    )
    return [tuple(row.get(name) for name in names) for row in rows]


def test_the_loss_lies_on_the_choices_of_the_file_and_nowhere_else(corpus: Path) -> None:
    encoder = Encoder(level="load", parameter_weight=3.0)
    for example in load_examples(corpus, "train")[:40]:
        ids, weights, on = encoder.file(example)
        head = len(ids) - len(example.data) - 1
        assert decode(ids[head:]) == example.data
        assert not weights[:head].any()
        c = formats.constraint(example.format, level="load", static=True)
        for i, symbol in enumerate([*example.data, tokenizer.END_OF_FILE]):
            choices = int(c.mask().sum())  # the constraint itself, asked byte by byte
            expected = 0.0 if choices == 1 else 3.0 if on[head + i] else 1.0
            assert weights[head + i] == expected
            c.advance(symbol)
        assert decode([i for i, flag in zip(ids, on, strict=True) if flag]) == example.parameters


def test_a_dynamic_program_weighs_where_a_constraint_that_takes_it_leaves_a_choice() -> None:
    name = "elf64-x86_64"
    files = (formats.sample(name, seed, 2_000, "load", "lively") for seed in range(100))
    static = formats.constraint(name, static=True)
    data = next(data for data in files if formats.replay(static.fork(), data) is not None)
    ids, weights, _ = Encoder(level="load").file(Example("anything", data, name, "", b""))
    forced = formats.forced_bytes(name, data, level="load")
    assert (weights[len(ids) - len(data) - 1 :] == ~forced).all()


def decode(ids: list[int]) -> bytes:
    return tokenizer.decode_bytes(ids)


def test_packing_keeps_whole_documents_and_shifts_targets_by_one(corpus: Path) -> None:
    encoder = Encoder(level="load")
    examples = load_examples(corpus, "train")[:7]
    documents = [encoder.file(e) for e in examples]
    batch = pack(documents, 4096)
    bounds = sorted(set(batch.cu_seqlens.tolist()))
    for (ids, weights, _), a, b in zip(documents, bounds, bounds[1:], strict=False):
        assert batch.tokens[0, a:b].tolist() == ids[:-1]
        assert batch.targets[0, a:b].tolist() == ids[1:]
        np.testing.assert_array_equal(batch.weights[0, a:b].numpy(), weights[1:])
    assert not batch.weights[0, bounds[len(documents)] :].any()
    assert batch.file_bytes == sum(len(e.data) for e in examples)


def test_a_stream_takes_every_example_once_an_epoch_and_goes_on_from_its_cursor(corpus: Path) -> None:
    encoder = Encoder(level="load")
    examples = load_examples(corpus, "train")
    stream = Stream(examples, encoder, length=2048, seed=5)
    seen: list[bytes] = []
    while stream.cursor.epoch == 0:
        batch = stream.next_batch()
        cursor = Cursor(stream.cursor.epoch, stream.cursor.index)
        bounds = sorted(set(batch.cu_seqlens.tolist()))[: batch.documents + 1]
        seen += [bytes(batch.tokens[0, a:b].numpy().astype(np.uint16)) for a, b in itertools.pairwise(bounds)]
    assert len(set(seen[: len(examples)])) == len({(e.prompt, e.data) for e in examples})
    again = Stream(examples, encoder, length=2048, seed=5, cursor=cursor)
    for _ in range(3):
        a, b = stream.next_batch(0.3), again.next_batch(0.3)
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.weights, b.weights)


def test_evaluation_batches_hold_every_example_once(corpus: Path) -> None:
    examples = load_examples(corpus, "heldout")
    assert sum(b.documents for b in batches(examples, Encoder(level="load"), 2048)) == len(examples)


def test_no_heldout_behaviour_is_in_the_training_split(corpus: Path) -> None:
    train_files = {e.data for e in load_examples(corpus, "train")}
    assert not train_files & {e.data for e in load_examples(corpus, "heldout")}


def test_a_run_repeats_itself_and_its_loss_falls(config_path: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(load_config(config_path, (f"run.out={tmp_path / name}",)))
    first = curve(tmp_path / "a")
    assert first == curve(tmp_path / "b")
    assert len(first) == 12
    assert first[-1][1] < 0.8 * first[0][1]


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_curve(config_path: Path, tmp_path: Path) -> None:
    train(load_config(config_path, (f"run.out={tmp_path / 'whole'}",)))
    code = (
        "from bytegen.train.config import load_config\n"
        "from bytegen.train.trainer import train\n"
        f"train(load_config({str(config_path)!r}))"
    )
    killed = 0
    rng = random.Random(0)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", code])
        metrics = tmp_path / "run" / "metrics.jsonl"
        lines = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        deadline = time.monotonic() + 120
        # Wait until it has gone on by a few steps, then strike at a moment of no regard to what it is doing.
        while process.poll() is None and time.monotonic() < deadline and killed < 3:
            time.sleep(0.01)
            if metrics.exists() and len(metrics.read_text().splitlines()) >= min(
                lines, 3 * killed
            ) + rng.randint(2, 4):
                time.sleep(rng.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
        if process.wait(timeout=120) == 0:
            break
    assert killed >= 2
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    final = [(tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert final[0] == final[1]


def test_a_damaged_checkpoint_is_a_clear_error(config_path: Path, tmp_path: Path) -> None:
    config = load_config(config_path, ("run.steps=3",))
    train(config)
    checkpoint = max((tmp_path / "run").glob("step-*"))
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        Trainer(config).resume()


def test_muon_makes_updates_of_equal_singular_values() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 24), (2, 16, 48), (2, 48, 16)):
        singular = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).double())
        # The quintic trades accuracy for steepness: only what was near zero stays below one.
        assert float(singular.max()) < 1.3
        assert float(singular.median()) == pytest.approx(0.9, abs=0.2)
    p = torch.nn.Parameter(torch.zeros(8, 32))
    optimizer = Muon([p], lr=1.0)
    p.grad = torch.randn(8, 32)
    optimizer.step()
    assert float(p.detach().pow(2).mean().sqrt()) == pytest.approx(
        0.2, rel=0.3
    )  # AdamW's usual size of an update


@pytest.mark.parametrize("stacked", [1, 600, 10_000])
def test_muon_gives_the_same_whatever_is_stacked(monkeypatch: pytest.MonkeyPatch, stacked: int) -> None:
    """Against one matrix at a time, by torch's own Muon with the same coefficients."""
    shapes = [(12, 20), (20, 12), (12, 20), (12, 20), (12, 20)]
    torch.manual_seed(1)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    monkeypatch.setattr("bytegen.train.optim.STACKED", stacked)
    optimizers = (
        Muon(ours, lr=0.1, weight_decay=0.5),
        torch.optim.Muon(
            theirs, lr=0.1, weight_decay=0.5, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
        ),
    )
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0.02, atol=0.02)  # torch's multiplies in bfloat16


def test_training_in_bfloat16_follows_training_in_float32(config_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(load_config(config_path, [f'run.precision="{precision}"']))
        losses.append([trainer.train_step()["loss"] for _ in range(4)])
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    scales = [lr_scale(s, steps=100, warmup=10, decay=20) for s in range(101)]
    assert scales[0] == pytest.approx(0.1)
    assert all(s == 1.0 for s in scales[9:81])
    assert scales[90] == pytest.approx(0.5)
    assert scales[100] == 0.0


def test_a_run_starts_from_weights_that_are_there(config_path: Path, tmp_path: Path) -> None:
    """With biases and an untied head, as Qwen2's checkpoints have them; what gives no tensor its shape may change."""
    shape = dataclasses.replace(PRESETS["nano"], qkv_bias=True, tied=False, conv_taps=0, qk_norm=False)
    start = ByteLM(shape)
    save_model(start, tmp_path / "weights")
    text = config_path.read_text()
    config_path.write_text(text.replace('preset = "nano"', f'weights = "{tmp_path / "weights"}"'))
    trainer = Trainer(load_config(config_path, ("model.window=100", "run.tokens_per_batch=512")))
    assert trainer.model.config == dataclasses.replace(shape, window=100)
    pairs = list(zip(trainer.model.parameters(), start.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    trainer.train_step()
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("run.steps=0", "run.steps"),
        ("run.stepz=1", "run.stepz"),
        ("curriculum.short_share=[[5,0.1],[3,0.2]]", "rising"),
        ("model.preset=none", "none"),
        ("model.window=0", "window"),
        ("model.weights=nowhere", "preset and weights"),
        ("data.level=nonsense", "nonsense"),
        ("steps=1", "section.field=value"),
        ("data.shards=nowhere", "corpus build"),
    ],
)
def test_a_config_that_is_wrong_says_where(config_path: Path, override: str, word: str) -> None:
    with pytest.raises((UserError, formats.FormatError), match=word):
        Trainer(load_config(config_path, (override,)))
