"""Weights on disk: round trip, damage, and nothing half-written."""

import json
from pathlib import Path

import pytest
import torch

import bytegen
from bytegen.config import PRESETS
from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.weights import folder_in_place, packaged_models, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_model(ByteLM(PRESETS["nano"]), tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_gives_the_same_logits(folder: Path) -> None:
    torch.manual_seed(1)
    lm = ByteLM(PRESETS["nano"])
    tokens = torch.randint(0, 256, (1, 30))
    with torch.no_grad():
        assert torch.equal(bytegen.load(folder)(tokens), lm(tokens))


@pytest.mark.parametrize("length", [0, 7, 100, 20_000])
def test_truncated_weights_are_a_clear_error(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="truncated"):
        bytegen.load(folder)


def test_tensors_that_do_not_fit_the_config_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "ffn_dim": 96, "n_layers": 3}))
    with pytest.raises(
        UserError, match=r"missing blocks\.2.*ffn\.gate\.weight is \[160, 64\], not \[96, 64\]"
    ):
        bytegen.load(folder)


def test_a_config_that_is_no_json_is_a_clear_error(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        bytegen.load(folder)


def test_an_unknown_model_lists_the_packaged_ones() -> None:
    with pytest.raises(UserError, match="first-flight"):
        bytegen.load("no-such-model")


def test_the_packaged_model_is_at_most_16_megabytes() -> None:
    names = packaged_models()
    assert "first-flight" in names
    import bytegen.weights

    for name in names:
        size = (bytegen.weights.PACKAGED / name / "model.safetensors").stat().st_size
        assert size <= 16 << 20


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def write() -> None:
        with folder_in_place(target) as scratch:
            (scratch / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []
