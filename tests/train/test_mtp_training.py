"""Training of multi-token prediction heads: where their losses lie, and heads for a model that stays as it is."""

from __future__ import annotations

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen import tokenizer
from bytegen.config import PRESETS
from bytegen.decoding import NGrams, Timing
from bytegen.errors import UserError
from bytegen.folders import DRAFTS, HEADS, SINGLE
from bytegen.model import ByteLM
from bytegen.train.config import load_config
from bytegen.train.corpus.build import build
from bytegen.train.corpus.program import programs_of
from bytegen.train.data import pack
from bytegen.train.losses import ask_heads, further, mtp_losses
from bytegen.train.trainer import Trainer, train
from bytegen.weights import save_model

LENGTH = 64


@settings(max_examples=80, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.5]), min_size=3, max_size=15), min_size=1, max_size=4
    ),
    k=st.integers(1, 20),
)
def test_a_head_is_asked_for_judged_bytes_of_the_same_document_from_judged_places(
    documents: list[list[float]], k: int
) -> None:
    """Byte by byte: document d has the ids 258 (the end of the prompt), then d, d + 10, d + 20 ..."""
    packed, expected, start = [], [], 0
    for d, weights in enumerate(documents):
        ids = [258, *((d + 10 * i) % 256 for i in range(len(weights)))]
        packed.append((ids, np.array([0.0, *weights], np.float32), np.zeros(len(ids), bool)))
        # The target of place t is ids[t + 1], of weight weights[t].
        expected += [
            (start + t, ids[t + 1 + k], weights[t + k])
            for t in range(len(weights) - k)
            if weights[t] > 0 and weights[t + k] > 0
        ]
        start += len(weights)
    found = further(pack(packed, LENGTH), k)
    assert list(zip(*(x.tolist() for x in found), strict=True)) == expected


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "shards"
    with ThreadPoolExecutor(1) as executor:
        build(out, samples=200, seed=3, programs=programs_of(["sequences"]), executor=executor)
    return out


@pytest.fixture
def config_path(corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        [model]
        preset = "nano"
        mtp_heads = 3
        [data]
        shards = "{corpus}"
        heldout_examples = 6
        [optim]
        warmup = 2
        decay = 4
        [run]
        out = "{tmp_path / "run"}"
        steps = 8
        tokens_per_batch = 1024
        threads = 1
        evaluate_every = 4
        checkpoint_every = 4
        """
    )
    return path


def test_losses_are_the_weighted_means_of_what_the_logits_say(config_path: Path) -> None:
    trainer = Trainer(load_config(config_path))
    torch.nn.init.normal_(trainer.model.mtp[1].proj.weight, std=0.1)
    batch = trainer.stream.next_batch()
    with torch.no_grad():
        hidden = trainer.model.hidden(batch.tokens, cu_seqlens=batch.cu_seqlens)[0]
        found = mtp_losses(ask_heads(trainer.model, batch, hidden))
        logs = torch.log_softmax(trainer.model.mtp_logits(hidden).double(), -1)
    for k in range(1, 4):
        places, targets, weights = further(batch, k)
        nats = -logs[k - 1, places, targets]
        assert float(found.losses[k - 1]) == pytest.approx(
            float((nats * weights).sum() / weights.sum()), rel=1e-4
        )
        assert int(found.right[k - 1]) == int((logs[k - 1, places].argmax(-1) == targets).sum())
        assert int(found.asked[k - 1]) == len(targets) > 0


def test_all_is_trained_together_with_weights_that_fall_with_the_distance(config_path: Path) -> None:
    trainer = Trainer(load_config(config_path, ("mtp.weight=0.5", "mtp.falloff=0.6")))
    assert trainer.mtp_shares.tolist() == pytest.approx([0.5, 0.3, 0.18])
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    row = trainer.train_step()
    own = Trainer(load_config(config_path, ("model.mtp_heads=0",))).train_step()["loss"]
    further_losses = [0.5 * row["mtp_losses"][0], 0.3 * row["mtp_losses"][1], 0.18 * row["mtp_losses"][2]]
    # Other draws of the same seed, so the losses of two fresh models are near each other and no more.
    assert row["loss"] - sum(further_losses) == pytest.approx(own, rel=0.1)
    assert not any(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_a_run_writes_heads_resumes_to_the_same_curve_and_says_how_often_each_is_right(
    config_path: Path, tmp_path: Path
) -> None:
    train(load_config(config_path))
    whole = load_config(config_path, (f'run.out="{tmp_path / "again"}"',))
    first = Trainer(whole)
    for _ in range(4):
        first.train_step()
    first.save()
    train(whole)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    again = [json.loads(line) for line in (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()]
    assert [r["mtp_losses"] for r in rows[4:]] == [r["mtp_losses"] for r in again]
    assert all(len(r["mtp_losses"]) == 3 for r in rows)
    assert rows[-1]["mtp_losses"][2] < rows[0]["mtp_losses"][2]
    assert all(0 <= share <= 1 for share in rows[-1]["heldout_mtp"])
    assert len(rows[-1]["heldout_mtp"]) == 3
    assert (tmp_path / "run" / "final" / HEADS).read_bytes() == (
        tmp_path / "again" / "final" / HEADS
    ).read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_heads_are_added_to_a_model_that_stays_bit_for_bit(
    config_path: Path, tmp_path: Path, precision: str
) -> None:
    train(load_config(config_path, ("model.mtp_heads=0", "run.steps=6", f'run.out="{tmp_path / "first"}"')))
    trunk = tmp_path / "first" / "final"
    NGrams.learn([b"0123456789" * 3]).save(trunk / DRAFTS)
    text = config_path.read_text().replace('preset = "nano"', f'weights = "{trunk}"')
    config_path.write_text(text)
    settings = ("mtp.only=true", "mtp.weight=1.0", "optim.lr=0.2", f'run.precision="{precision}"')
    trainer = Trainer(load_config(config_path, settings))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    row = trainer.train_step()
    assert row["loss"] == pytest.approx(sum(x * 0.8**k for k, x in enumerate(row["mtp_losses"])), rel=1e-4)
    for name, p in trainer.model.named_parameters():
        assert torch.equal(p, before[name]) != name.startswith("mtp.")
    lm = train(load_config(config_path, settings))
    final = tmp_path / "run" / "final"
    for name in (SINGLE, DRAFTS):
        assert (final / name).read_bytes() == (trunk / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(rows[-1]["mtp_losses"]) < 0.9 * sum(rows[0]["mtp_losses"])
    # More heads than there are: those that are there stay until they are trained on.
    more = load_config(config_path, ("model.mtp_heads=5", *settings, f'model.weights="{final}"'))
    grown = Trainer(more).model
    assert all(torch.equal(a.proj.weight, b.proj.weight) for a, b in zip(grown.mtp, lm.mtp, strict=False))
    assert not grown.mtp[4].proj.weight.any()


def test_heads_of_the_packaged_model_are_asked_for_by_its_name(config_path: Path) -> None:
    config_path.write_text(config_path.read_text().replace('preset = "nano"', 'weights = "first-flight"'))
    config = load_config(config_path, ("mtp.only=true", "model.mtp_heads=9"))
    assert config.shape().dim == 192
    assert config.shape().mtp_heads == 9
    assert config.weights is not None
    assert (config.weights / SINGLE).exists()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        (("model.mtp_heads=0", "mtp.only=true"), "give model.mtp_heads"),
        (("mtp.falloff=0.0",), "mtp.falloff"),
        (("mtp.weight=-1",), "mtp.weight"),
        (("model.mtp_heads=-2",), "mtp_heads=-2"),
    ],
)
def test_a_config_of_heads_that_is_wrong_says_where(
    config_path: Path, override: tuple[str, ...], word: str
) -> None:
    with pytest.raises(UserError, match=word) as refused:
        load_config(config_path, override)
    assert "\n" not in str(refused.value)


def test_heads_trained_on_what_a_model_writes_save_it_steps(tmp_path: Path) -> None:
    """A model that writes one text, by heart: heads fitted to its own hidden states guess it, and few are wrong."""
    torch.manual_seed(0)
    lm = ByteLM(dataclasses.replace(PRESETS["nano"], mtp_heads=4, tied=False))
    options = {"max_bytes": 200, "temperature": 0.0}
    written = bytegen.generate(lm, "a file", drafts=False, **options)
    ids = [*tokenizer.encode_prompt("a file", tokenizer.format_tag("elf64-x86_64")), *written.data]
    with torch.no_grad():
        hidden = lm.hidden(torch.tensor([ids]))[0]
    optimizer = torch.optim.Adam(lm.mtp.parameters(), lr=0.02)
    for _ in range(150):
        logits = lm.mtp_logits(hidden)
        loss = sum(F.cross_entropy(logits[k, : -k - 2], torch.tensor(ids[k + 2 :])) for k in range(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(lm, tmp_path / "model")
    lm = bytegen.load(tmp_path / "model")
    timing = Timing()
    drafted = bytegen.generate(lm, "a file", drafts=("heads",), timing=timing, **options)
    assert drafted.data == written.data
    assert timing.accepted_from["heads"] == timing.accepted > 0.6 * timing.drafted
    assert drafted.turns <= math.ceil(0.5 * written.turns)
