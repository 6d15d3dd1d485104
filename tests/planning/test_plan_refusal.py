"""Work that runs out of memory says in one line what a plan would have said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from click.testing import CliRunner

from bytegen import cpu, generation, limits, weights
from bytegen.cli.generate import default_precision
from bytegen.cli.main import cli
from bytegen.config import preset
from bytegen.errors import UserError
from bytegen.limits import memory_errors
from bytegen.planning import refusal
from bytegen.planning.decoding import generation_memory
from bytegen.planning.refusal import of_generation, of_training
from bytegen.train import trainer


def runs_out(kind: type[Exception]) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise kind("CUDA out of memory. Tried to allocate 20.00 GiB")

    return fail


@pytest.fixture(autouse=True)
def two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "total_memory", lambda: 2 * 10**9)


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_generation_says_what_it_needs(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "generate_many", runs_out(kind))
    target = tmp_path / "file"
    done = CliRunner().invoke(
        cli, ["generate", "count from 3 to 9", "-o", str(target), "--max-bytes", "4096"]
    )
    assert done.exit_code == 2
    line = done.stderr.strip()
    assert "\n" not in line
    config = weights.read_config(weights.model_folder(None))
    default = default_precision(None, "cpu")
    lm = cpu.LightLM.load(precision=default)
    needed = generation_memory(
        config, 4096 + len("count from 3 to 9") + 3, precision="float32" if default == "fp32" else "int8",
        cached=lm.decoder.cache_bytes_a_number if lm is not None else None,
    ).total  # fmt: skip
    assert f"ran out of memory; bytegen plan counts {limits.gigabytes(needed)} (" in line
    assert "cpu has 2.0 GB" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_training_says_what_it_needs(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "Trainer", runs_out(kind))
    config = tmp_path / "config.toml"
    config.write_text(
        f"[model]\npreset = 'nano'\n[data]\nshards = '{tmp_path}'\n[run]\nout = '{tmp_path / 'out'}'\nsteps = 1\n"
    )
    done = CliRunner().invoke(cli, ["train", str(config)])
    if "No such command" in done.output:  # the commands of training are entry points of an installed package
        pytest.skip("bytegen is not installed here")
    assert done.exit_code == 2
    assert "training ran out of memory; bytegen plan counts " in done.stderr
    assert "activations" in done.stderr
    assert "cpu has 2.0 GB" in done.stderr


def test_conversion_and_loading_say_what_the_model_takes_and_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(weights.model_folder(None), tmp_path / "lm")
    monkeypatch.setattr(weights, "read_weights", runs_out(MemoryError))
    with pytest.raises(
        UserError, match=r"ran out of memory; 2\.7M parameters are .*; cpu has 2\.0 GB"
    ) as refused:
        weights.load(folder)
    assert "\n" not in str(refused.value)


def test_the_parts_are_named_by_size() -> None:
    line = of_generation(preset("7b"), length=143_360, batch=1, device="cpu")
    assert line.index("weights 26.1 GB") < line.index("cache 4.8 GB")
    half = of_generation(preset("7b"), length=143_360, batch=1, device="cpu", cached=2)
    assert "cache 2.4 GB" in half  # as the C decoder keeps them
    assert "weights 26.1 GB" in half
    training = of_training(preset("nano"), tokens=100_000, device="cpu", precision="float32")
    assert training.index("activations") < training.index("in the backward of")


def test_other_errors_are_left_alone_and_advice_is_asked_for_only_then() -> None:
    def never() -> str:
        raise AssertionError

    with pytest.raises(RuntimeError, match="shapes differ"), memory_errors("work", never):
        raise RuntimeError("shapes differ")
    with memory_errors("work", never):
        pass
