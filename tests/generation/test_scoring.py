"""Scores of files and particles of a language model, against the plain forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bytegen
from bytegen import formats, tokenizer
from bytegen.config import ModelConfig
from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.particles import LanguageParticles, generate_particles
from bytegen.scoring import bits_per_byte

FORMAT = "elf64-x86_64"


@pytest.fixture(scope="module")
def lm() -> ByteLM:
    torch.manual_seed(0)
    config = ModelConfig(
        dim=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, ffn_dim=48, pattern="LG", window=64,
        max_positions=2048,
    )  # fmt: skip
    return ByteLM(config).eval()


def plain(lm: ByteLM, prompt: str, data: bytes) -> np.ndarray:
    """Log probabilities [n + 1, 257] by one forward pass over everything."""
    head = tokenizer.encode_prompt(prompt, tokenizer.format_tag(FORMAT))
    with torch.no_grad():
        logits = lm(torch.tensor([[*head, *data]]))[0, len(head) - 1 :, : tokenizer.N_CHOICES]
    return torch.log_softmax(logits.double(), -1).numpy()


def test_bits_and_kept_mass_are_those_of_the_forward_pass(lm: ByteLM) -> None:
    data = formats.sample(FORMAT, 5, 700)
    expected = plain(lm, "do it", data)
    choices = np.array([*data, 256])
    bits = bits_per_byte(lm, data, format=FORMAT, prompt="do it")
    np.testing.assert_allclose(bits, -expected[np.arange(len(choices)), choices] / np.log(2), atol=1e-4)
    account = bytegen.account(lm, data, format=FORMAT, prompt="do it", max_bytes=700, static=False)
    c = formats.constraint(FORMAT, max_bytes=700)
    for place, choice in enumerate(choices.tolist()):
        kept = np.exp(expected[place][c.mask()]).sum()
        assert abs(account.removed[place] - (1 - kept)) < 1e-4
        c.advance(choice)
    rows = account.by_field()
    assert sum(row.bytes for row in rows) == len(data) + 1
    assert abs(sum(row.nats for row in rows) - account.nats) < 1e-6
    assert rows == sorted(rows, key=lambda row: -row.nats)
    assert abs(sum(row.forced_nats for row in rows) - account.forced_nats) < 1e-6
    np.testing.assert_array_equal(account.forced, formats.forced_bytes(FORMAT, data, max_bytes=700))
    assert {"phdr[*].p_type", "ehdr.e_phnum", "end"} <= {row.path for row in rows}


def test_more_is_forced_of_a_program_that_has_to_be_static(lm: ByteLM) -> None:
    data = bytegen.generate(lm, "go", max_bytes=300, temperature=1.0).data
    forced = {
        static: formats.forced_bytes(FORMAT, data, max_bytes=300, static=static) for static in (False, True)
    }
    account = bytegen.account(lm, data, format=FORMAT, prompt="go", max_bytes=300)
    np.testing.assert_array_equal(account.forced, forced[True])
    assert (forced[True] >= forced[False]).all()
    assert forced[True].sum() > forced[False].sum()


def test_a_file_that_does_not_replay_has_no_account(lm: ByteLM) -> None:
    with pytest.raises(formats.FormatError):
        bytegen.account(lm, b"MZ" + bytes(200), format=FORMAT)
    with pytest.raises(formats.FormatError, match="rows of log probabilities"):
        formats.account(formats.constraint(FORMAT), formats.sample(FORMAT, 1, 300), [np.zeros((3, 257))])


def test_particles_of_the_model_follow_their_own_prefixes(lm: ByteLM) -> None:
    """After steps and resampling, each row's distribution is that of its own prefix read from the start."""
    model = LanguageParticles(lm, "go", format=FORMAT, max_bytes=64, temperature=0.7)
    log_probs = model.begin(3)
    prefixes = [b"", b"", b""]
    rng = np.random.default_rng(0)
    for turn in range(9):
        choices = rng.integers(0, 256, 3)
        prefixes = [p + bytes([c]) for p, c in zip(prefixes, choices.tolist(), strict=True)]
        if turn in (3, 6):
            ancestors = rng.integers(0, 3, 3)
            model.select(ancestors)
            # What is selected here has not read the last choice yet.
            prefixes = [prefixes[a][:-1] + prefixes[i][-1:] for i, a in enumerate(ancestors.tolist())]
        log_probs = model.step(choices)
    for row, prefix in zip(log_probs, prefixes, strict=True):
        expected = plain(lm, "go", prefix)[-1] / 0.7
        expected -= np.log(np.exp(expected).sum())
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_particles_write_files_of_the_format(lm: ByteLM) -> None:
    result = generate_particles(lm, "go", particles=4, max_bytes=150, seed=2)
    assert abs(result.weights.sum() - 1) < 1e-9
    for data in result.files:
        assert formats.replay(formats.constraint(FORMAT, max_bytes=150, static=True), data) is None
    with pytest.raises(UserError, match="above 0"):
        generate_particles(lm, "go", temperature=0.0)
