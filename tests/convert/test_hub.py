"""Hugging Face's conventions: save_pretrained, from_pretrained, push_to_hub, and the model card."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, ModelHubMixin

import bytegen
from bytegen.config import PRESETS, RopeScaling
from bytegen.decoding.drafts import NGrams
from bytegen.errors import UserError
from bytegen.model import ByteLM

SCALING = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=16)
CONFIG = dataclasses.replace(PRESETS["nano"], rope_scaling=SCALING)
EVALUATION = Path(__file__).parents[2] / "benchmarks" / "eval.jsonl"


@pytest.fixture
def lm() -> ByteLM:
    torch.manual_seed(0)
    return ByteLM(CONFIG)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("limit", [None, 30_000])
def test_a_saved_model_comes_back_sharded_or_not(lm: ByteLM, limit: int | None, tmp_path: Path) -> None:
    lm.save_pretrained(tmp_path / "model", max_shard_bytes=limit)
    back = ByteLM.from_pretrained(tmp_path / "model")
    assert isinstance(back, ModelHubMixin)
    assert back.config == CONFIG
    tokens = torch.randint(0, 320, (1, 30))
    with torch.no_grad():
        assert torch.equal(back(tokens), lm(tokens))
    assert ((tmp_path / "model" / "model.safetensors.index.json").exists()) == (limit is not None)
    assert names(tmp_path) == ["model"]


def test_a_table_of_drafts_goes_along_and_goes_when_it_is_gone(lm: ByteLM, tmp_path: Path) -> None:
    lm.draft_table = NGrams.learn([b"abcdefghijkl" * 20])
    lm.save_pretrained(tmp_path)
    back = ByteLM.from_pretrained(tmp_path)
    assert back.draft_table is not None
    assert back.draft_table.table == lm.draft_table.table != {}
    lm.draft_table = None
    lm.save_pretrained(tmp_path)
    assert ByteLM.from_pretrained(tmp_path).draft_table is None


def test_saving_again_leaves_other_files_and_takes_old_weights_away(lm: ByteLM, tmp_path: Path) -> None:
    lm.save_pretrained(tmp_path, max_shard_bytes=30_000)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    lm.save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert names(tmp_path) == ["README.md", "config.json", "model.safetensors", "notes.txt"]
    assert (tmp_path / "README.md").read_text() == "mine"
    assert ByteLM.from_pretrained(tmp_path, dtype=torch.bfloat16).embed.weight.dtype == torch.bfloat16


def test_a_failure_leaves_the_model_that_was_there(
    lm: ByteLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm.save_pretrained(tmp_path / "model")
    before = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bytegen.shards.save_file", full)
    with pytest.raises(UserError, match=r"model cannot be written: the disk is full.*No space left"):
        lm.save_pretrained(tmp_path / "model")
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == before
    assert names(tmp_path) == ["model"]


def test_the_card_shows_the_funnel_of_the_folder(lm: ByteLM, tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(EVALUATION.read_text())
    lm.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    last = json.loads(EVALUATION.read_text().splitlines()[-1])
    assert last["name"] == "all"
    assert card.data.library_name == "bytegen"
    metrics = {r.metric_type: r.metric_value for r in card.data.eval_results or []}
    assert metrics == {"pass@1": last["pass_at_1"], "pass@8": last["pass_at_n"]}
    row = next(line for line in card.text.splitlines() if line.startswith("| all"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["60", "100.0%", "100.0%", "100.0%"]
    assert f"{last['pass_at_1']:.1%}" in row
    assert sum(line.startswith("| games") for line in card.text.splitlines()) == 1


def test_of_several_evaluations_the_last_is_shown(lm: ByteLM, tmp_path: Path) -> None:
    row = json.loads(EVALUATION.read_text().splitlines()[-1])
    old, new = {**row, "pass_at_1": 0.125}, {**row, "pass_at_1": 0.375}
    (tmp_path / "eval.jsonl").write_text(f"{json.dumps(old)}\n{json.dumps(new)}\n")
    text = str(lm.generate_model_card(evaluation=tmp_path / "eval.jsonl"))
    assert "37.5%" in text
    assert "12.5%" not in text


def test_a_card_without_a_funnel_says_so(lm: ByteLM) -> None:
    assert "Not measured yet" in str(lm.generate_model_card())


@pytest.mark.parametrize("line", ["{", "3", '{"name": "all"}', '{"bench": "generate", "bytes": 3}'])
def test_rows_that_are_no_evaluation_are_refused_and_nothing_is_written(
    line: str, lm: ByteLM, tmp_path: Path
) -> None:
    rows = EVALUATION.read_text().splitlines()[:2]
    (tmp_path / "eval.jsonl").write_text("\n".join([*rows, line]))
    with pytest.raises(UserError, match=r"eval\.jsonl line 3 is no row of `bytegen eval`"):
        lm.save_pretrained(tmp_path)
    assert names(tmp_path) == ["eval.jsonl"]


class Hub:
    """Stands in for the hub: takes what is uploaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[str, bytes] = {}
        monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", lambda **_: self)

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, folder_path: Path, **_: Any) -> str:
        self.files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        return "the commit"


def test_pushing_uploads_weights_config_and_card(
    lm: ByteLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch)
    assert lm.push_to_hub("someone/model", model_card_kwargs={"evaluation": EVALUATION}) == "the commit"
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors"]
    assert b"| games" in hub.files["README.md"]
    hub.files.clear()
    (tmp_path / "eval.jsonl").write_text(EVALUATION.read_text())
    assert lm.save_pretrained(tmp_path, push_to_hub=True, repo_id="someone/model") == "the commit"
    assert b"| games" in hub.files["README.md"]


def test_a_repository_s_files_are_fetched_and_loaded(
    lm: ByteLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm.save_pretrained(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path)
    )
    back = ByteLM.from_pretrained("someone/model", revision="v2")
    assert torch.equal(back.embed.weight, lm.embed.weight)
    assert asked[0][0] == ("someone/model",)
    assert asked[0][1]["revision"] == "v2"
    assert not any("bin" in pattern for pattern in asked[0][1]["allow_patterns"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("no such/na/me", "neither a folder nor the name"), ("someone/model", "cannot be fetched")],
)
def test_a_model_that_is_nowhere_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        ByteLM.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_transformers_is_not_taken_for_a_byte_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(UserError, match="bytegen convert"):
        bytegen.load(tmp_path)
