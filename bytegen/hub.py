"""Models by Hugging Face's conventions: `save_pretrained`, `from_pretrained`, `push_to_hub`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import ModelCard, ModelHubMixin

from bytegen.errors import UserError
from bytegen.folders import DRAFTS, HEADS, INDEX, SINGLE

if TYPE_CHECKING:
    import torch

    from bytegen.model import ByteLM


class HubModel(
    ModelHubMixin, library_name="bytegen", tags=["bytes", "executables"], pipeline_tag="text-generation"
):
    """The hub's half of `ByteLM`: huggingface_hub's mixin, with files written whole or not at all."""

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, config: Any = None, repo_id: str | None = None,
        push_to_hub: bool = False, model_card_kwargs: dict[str, Any] | None = None,
        dtype: torch.dtype | None = None, max_shard_bytes: int | None = None, **push_to_hub_kwargs: Any,
    ) -> str | None:  # fmt: skip
        """Write weights, config.json and, where there is none, a model card into a folder; other files there stay.

        The card takes the funnel from `eval.jsonl` in the folder, or from the file that
        `model_card_kwargs["evaluation"]` names. With `push_to_hub` the folder's model goes to the repository
        `repo_id` (by default the folder's name); returns the commit's address then. `config` is there for the
        mixin's sake: the model's own is written. Raises UserError when files cannot be written or read.
        """
        from bytegen.card import EVALUATION
        from bytegen.shards import MAX_SHARD_BYTES
        from bytegen.weights import files_in_place, write_model

        target = Path(save_directory).absolute()
        card_options = {
            "repo_id": repo_id,
            **({} if repo_id else {"name": target.name}),
            **(model_card_kwargs or {}),
        }
        if "evaluation" not in card_options and (target / EVALUATION).exists():
            card_options["evaluation"] = target / EVALUATION
        card = None if (target / "README.md").exists() else self.generate_model_card(**card_options)
        with files_in_place(target) as scratch:
            write_model(
                cast("ByteLM", self), scratch, dtype=dtype, max_shard_bytes=max_shard_bytes or MAX_SHARD_BYTES
            )
            if card is not None:
                (scratch / "README.md").write_text(str(card))
        if not push_to_hub:
            return None
        options = {**(model_card_kwargs or {})}
        if "evaluation" in card_options:
            options["evaluation"] = card_options["evaluation"]
        return self.push_to_hub(repo_id or target.name, model_card_kwargs=options, **push_to_hub_kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *, force_download: bool = False,
        token: str | bool | None = None, cache_dir: str | Path | None = None, local_files_only: bool = False,
        revision: str | None = None, device: str | torch.device = "cpu", dtype: torch.dtype | None = None,
    ) -> ByteLM:  # fmt: skip
        """Load a model from a folder, or from a repository of the hub.

        Weights are held in float32 unless `dtype` is given. Raises UserError when there is no such model, the hub
        cannot be reached, or the files are damaged.
        """
        import torch

        from bytegen.weights import load

        folder = str(pretrained_model_name_or_path)
        if not Path(folder).is_dir():
            folder = _download(
                folder, force_download=force_download, token=token, cache_dir=cache_dir,
                local_files_only=local_files_only, revision=revision,
            )  # fmt: skip
        return load(folder, device=device, dtype=dtype or torch.float32)

    def generate_model_card(  # type: ignore[override]
        self, *, name: str | None = None, repo_id: str | None = None, evaluation: str | Path | None = None,
        origin: str = "",
    ) -> ModelCard:  # fmt: skip
        """Return the card: shape, use, and the funnel from the rows of the file `evaluation`."""
        from bytegen.card import model_card, read_evaluation

        rows = read_evaluation(Path(evaluation)) if evaluation is not None else None
        name = name or (repo_id or "byte-model").split("/")[-1]
        data = self._hub_mixin_info.model_card_data
        return model_card(
            cast("ByteLM", self).config, name=name, origin=origin, rows=rows, card_data=data, repo_id=repo_id
        )


def _download(repo_id: str, **options: Any) -> str:
    """Fetch a model's files from the hub into its cache and return the folder; UserError says why not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = ["config.json", SINGLE, "model-*.safetensors", INDEX, DRAFTS, HEADS]
    try:
        return snapshot_download(repo_id, allow_patterns=files, **options)
    except HFValidationError:
        raise UserError(
            f"{repo_id!r} is neither a folder nor the name of a repository, such as 'user/model'"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{repo_id!r} cannot be fetched: {str(error).strip().splitlines()[0]}") from None
