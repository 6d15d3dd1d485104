"""What cannot be converted: one clear line that names what is wrong, and nothing half-written."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import random_model, save
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import bytegen
from bytegen import limits
from bytegen.convert import convert
from bytegen.convert.architectures import model_config
from bytegen.errors import UserError

SIZES: dict[str, Any] = {
    "hidden_size": 8, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 64,
}  # fmt: skip
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA = {"model_type": "llama", **SIZES}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    return save(random_model(values), tmp_path_factory.mktemp("saved") / "hf", max_shard_size="2KB")


@pytest.fixture
def source(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint of several shards that converts."""
    return Path(shutil.copytree(saved, tmp_path / "hf"))


def refused(source: Path, **options: Any) -> str:
    """Return the one line of the refusal; nothing may lie beside the checkpoint then."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(UserError) as error:
        convert(source, source.parent / "out", keep_vocabulary=True, **options)
    assert sorted(source.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def shard_of(source: Path, name: str) -> Path:
    index = json.loads((source / "model.safetensors.index.json").read_text())
    return source / index["weight_map"][name]


def test_tensors_that_are_missing_extra_or_misshapen_are_each_named(source: Path) -> None:
    (source / "model.safetensors.index.json").unlink()
    tensors = {k: v for shard in source.glob("*.safetensors") for k, v in load_file(shard).items()}
    del tensors["model.layers.0.mlp.up_proj.weight"], tensors["lm_head.weight"]
    tensors["model.layers.1.self_attn.q_norm.weight"] = torch.ones(4)
    tensors["model.norm.weight"] = torch.ones(9)
    save_file(tensors, source / "model.safetensors")
    line = refused(source)
    for part in (
        "missing model.layers.0.mlp.up_proj.weight",
        "missing lm_head.weight",
        "unknown model.layers.1.self_attn.q_norm.weight",
        "model.norm.weight is [9], not [8]",
    ):
        assert part in line


def test_missing_shards_are_each_named(source: Path) -> None:
    gone = sorted(source.glob("*.safetensors"))[1:3]
    for path in gone:
        path.unlink()
    line = refused(source)
    assert "lacks 2 of" in line
    assert all(path.name in line for path in gone)


def test_an_index_must_say_where_tensors_are(source: Path) -> None:
    index = source / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    names = sorted(values["weight_map"])
    values["weight_map"]["lm_head.weight"] = values["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(values))
    assert "not in their shards" in refused(source)
    assert "lm_head.weight" in refused(source)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "../../x.safetensors")}))
    assert "lie beside the index" in refused(source)
    for text in ("{", "[]", '{"weight_map": 3}', "{}"):
        index.write_text(text)
        assert "no index of shards" in refused(source)


def test_a_tensor_that_two_shards_have_is_refused(source: Path) -> None:
    shard = shard_of(source, "lm_head.weight")
    other = next(p for p in source.glob("*.safetensors") if p != shard)
    save_file({**load_file(other), "lm_head.weight": torch.ones(20, 8)}, other)
    assert "lm_head.weight is in" in refused(source)


@pytest.mark.parametrize("length", [0, 7, 100])
def test_a_truncated_shard_is_named(source: Path, length: int) -> None:
    shard = shard_of(source, "lm_head.weight")
    shard.write_bytes(shard.read_bytes()[:length])
    assert f"{shard} cannot be read as safetensors" in refused(source)


def test_pickled_weights_are_refused_with_the_reason(source: Path) -> None:
    for path in source.glob("*.safetensors*"):
        path.unlink()
    assert "is missing" in refused(source)
    (source / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pickled weights (pytorch_model.bin), which can run code" in refused(source)


def test_quantized_weights_are_refused(source: Path) -> None:
    shard = shard_of(source, "lm_head.weight")
    save_file({**load_file(shard), "lm_head.weight": torch.ones(20, 8, dtype=torch.int8)}, shard)
    assert "lm_head.weight" in refused(source)
    assert "is of I8" in refused(source)


@pytest.mark.parametrize("text", [None, "{", "[1]", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_config_that_is_missing_or_damaged_is_refused(source: Path, text: str | bytes | None) -> None:
    path = source / "config.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "config.json" in refused(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; those that convert are qwen2, qwen3, llama, cwm"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_size": None}, "lacks 'hidden_size'"),
        ({"vocab_size": "20"}, "vocab_size is '20'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_attention_heads": 3}, "hidden_size 8 is not a multiple of num_attention_heads 3"),
        ({"num_key_value_heads": 3}, "n_heads=2 is not a multiple of n_kv_heads=3"),
        ({"head_dim": 3}, "odd"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "bias on the output projection"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'; 'default' and 'llama3' are here"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "factor is None"),
        ({"rope_scaling": SCALED, "original_max_position_embeddings": "8"}, "original_max_position_embeddings is '8'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; up to 10000 convert"),
        ({"rope_scaling": 3}, "rotary parameters are 3"),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps is 'x'"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
        ({"model_type": "cwm", "sliding_window": None}, "there is no sliding_window"),
        ({"model_type": "cwm", "layer_types": ["full_attention"]}, "1 entries for 2 layers"),
        ({"model_type": "cwm", "layer_types": ["linear_attention"] * 2}, "layer_types may hold"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2}, "there is no sliding_window"),
        (
            {"model_type": "cwm", "rope_parameters": {"full_attention": {"rope_theta": 1.0}}},
            "rotates sliding and full layers differently",
        ),
    ],
)  # fmt: skip
def test_what_this_model_has_not_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        model_config({**LLAMA, **change})
    assert message in str(error.value)


JSON = st.none() | st.booleans() | st.integers(-3, 1000) | st.floats() | st.text(max_size=4)


@settings(deadline=None)
@given(
    st.sampled_from(["qwen2", "qwen3", "llama", "cwm"]),
    st.dictionaries(
        st.sampled_from(
            [*SIZES, "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "layer_types",
             "sliding_window", "use_sliding_window", "max_window_layers", "tie_word_embeddings", "hidden_act",
             "original_max_position_embeddings"]
        ),
        JSON | st.lists(JSON, max_size=3) | st.dictionaries(st.sampled_from(["rope_type", "factor"]), JSON),
        max_size=4,
    ),
)  # fmt: skip
def test_any_change_of_a_config_is_read_or_refused_in_one_line(
    model_type: str, change: dict[str, Any]
) -> None:
    line = ""
    try:
        model_config({**LLAMA, "model_type": model_type, **change})
    except UserError as error:
        line = str(error)
    assert "\n" not in line


def test_sizes_that_overflow_are_refused(source: Path) -> None:
    values = {**LLAMA, "vocab_size": 1 << 40, "hidden_size": 1 << 40, "head_dim": 4}
    (source / "config.json").write_text(json.dumps(values))
    assert "no model has the sizes of this config" in refused(source)


def test_a_source_that_is_no_folder_or_a_target_that_is_there_is_refused(source: Path) -> None:
    out = source.parent / "out"
    with pytest.raises(UserError, match="no folder; download"):
        convert("Qwen/Qwen2.5-7B", out)
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "is there already" in refused(source)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    convert(source, out, keep_vocabulary=True)
    assert "is there already" in refused(source)


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    """Put this process under a soft limit."""
    old = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, old)


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(source: Path) -> None:
    """A limit on the size of files, a tensor each: the embedding and attention fit, the feed-forward does not."""
    with limited(resource.RLIMIT_FSIZE, 1000):
        line = refused(source, max_shard_bytes=1)
    assert f"{source.parent / 'out'} cannot be written: the disk is full, or a limit was reached" in line


def test_a_disk_without_room_is_refused_before_anything_is_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "are free on its disk" in refused(source)


def test_a_target_that_cannot_be_made_is_refused(source: Path) -> None:
    (source.parent / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        convert(source, source.parent / "file" / "out", keep_vocabulary=True)


def test_too_little_memory_says_what_the_model_takes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(source, source.parent / "ours", keep_vocabulary=True)
    monkeypatch.setattr(limits, "available_memory", lambda: 500)
    line = refused(source)
    assert "needs 0.0 MB of memory; 0.0 MB are free" in line
    assert "0.0M parameters are" in line
    with pytest.raises(UserError, match=r"in float32 and .* in bfloat16"):
        bytegen.load(source.parent / "ours")


def test_memory_that_runs_out_in_the_middle_is_one_line(source: Path) -> None:
    """A limit on addresses, and a shard of 8 GB that is a hole in the disk."""
    wide = {**LLAMA, "vocab_size": 250_000_000, "tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(wide))
    name = "model.embed_tokens.weight"
    index = json.loads((source / "model.safetensors.index.json").read_text())
    for other in ("lm_head.weight", name):
        shard = source / index["weight_map"].pop(other)
        rest = {k: v for k, v in load_file(shard).items() if k != other}
        save_file(rest, shard)
    index["weight_map"][name] = "large.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    n_bytes = 4 * 8 * wide["vocab_size"]
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [wide["vocab_size"], 8], "data_offsets": [0, n_bytes]}}
    )
    with (source / "large.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + n_bytes)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(resource.RLIMIT_AS, size + (1 << 30)):
        line = refused(source)
    assert "memory" in line
    assert "2,000.0M parameters are 8.0 GB in float32 and 4.0 GB in bfloat16" in line


def test_available_memory_is_a_size_or_unknown() -> None:
    free = limits.available_memory()
    assert free is None or 0 < free < 1 << 60
