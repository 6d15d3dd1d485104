"""One process of training: batches in, metrics and checkpoints out, resumable to the bit."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytegen import formats
from bytegen.decoding import NGrams
from bytegen.errors import UserError
from bytegen.folders import DRAFTS, MTP
from bytegen.model import ByteLM
from bytegen.train import checkpoint
from bytegen.train.config import TrainConfig
from bytegen.train.data import Batch, Cursor, Encoder, Stream, batches, load_examples
from bytegen.train.losses import MtpLosses, ask_heads, mtp_losses, nats
from bytegen.train.optim import lr_scale, make_optimizers
from bytegen.weights import read_weights, save_model


class Trainer:
    """Everything a run holds; `train` drives it to the end.

    A checkpoint holds weights, optimiser state, the stream's cursor and the step; together with the config
    they fix the rest of the run, so a resumed run repeats the loss curve exactly.
    """

    def __init__(self, config: TrainConfig) -> None:
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.run.seed)
        self.config = config
        self.device = torch.device(config.run.device)
        self.model = ByteLM(config.shape())
        if config.weights is not None:
            read_weights(self.model, config.weights, new_heads=True)
        self.model.to(self.device)
        if config.mtp.only:  # the model stays what it is, and so does what guesses beside the heads
            if config.weights is not None and (config.weights / DRAFTS).exists():
                self.model.draft_table = NGrams.load(config.weights / DRAFTS)
            for name, p in self.model.named_parameters():
                p.requires_grad_(name.startswith(MTP))
        mtp = config.mtp
        shares = [mtp.weight * mtp.falloff**k for k in range(len(self.model.mtp))]
        self.mtp_shares = torch.tensor(shares, device=self.device)
        self.optimizers = make_optimizers(
            self.model, lr=config.optim.lr, embed_lr=config.optim.embed_lr, weight_decay=config.optim.weight_decay,
            momentum=config.optim.momentum, betas=config.optim.betas,
        )  # fmt: skip
        data = config.data
        self.encoder = Encoder(level=data.level, parameter_weight=data.parameter_weight)
        self.heldout = load_examples(data.shards, "heldout", kinds=data.kinds)[: data.heldout_examples]
        for name in {example.format for example in self.heldout}:
            formats.least_bytes(name, data.level)  # complains of a level there is none of, before training
        self.stream = Stream(
            load_examples(data.shards, "train", kinds=data.kinds), self.encoder,
            length=config.run.tokens_per_batch, seed=config.run.seed,
        )  # fmt: skip
        self.step = 0
        self.seconds = 0.0
        self.hidden = self._compiled() if config.run.compile else self.model.hidden

    def _compiled(self) -> Callable[..., Tensor]:
        compiler = os.environ.get("CXX", "g++")
        if self.device.type == "cpu" and shutil.which(compiler) is None:
            raise UserError(
                f"run.compile = true needs the C++ compiler {compiler}; install it or set run.compile=false"
            )
        return torch.compile(self.model.hidden, dynamic=False)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, MtpLosses | None]:
        """Return the cross-entropy of every target [T], the logits [T, V], and how the heads did, where there are any.

        Where heads alone are trained, only theirs have gradients.
        """
        bf16 = self.config.run.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.mtp.only):
                hidden = self.hidden(batch.tokens, cu_seqlens=batch.cu_seqlens)
                logits = self.model.logits(hidden)[0]
            answers = ask_heads(self.model, batch, hidden[0])
        return nats(logits, batch.targets[0]), logits, mtp_losses(answers) if answers else None

    def train_step(self) -> dict[str, Any]:
        """Take one batch and one update; return the step's metrics."""
        began = time.perf_counter()
        optim, run = self.config.optim, self.config.run
        scale = lr_scale(self.step, steps=run.steps, warmup=optim.warmup, decay=optim.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * scale
        short_share = self.config.curriculum.at(self.step)
        batch = self.stream.next_batch(short_share).to(self.device)
        self.model.train()
        own, _, mtp = self.losses(batch)
        weights = batch.weights[0]
        loss = (own * weights).sum() / weights.sum()
        if mtp is not None:
            further = (mtp.losses * self.mtp_shares).sum()
            loss = further if self.config.mtp.only else loss + further
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(float(loss.detach())):
            raise UserError(
                f"the loss of step {self.step} is {float(loss.detach())}; a lower optim.lr may help"
            )
        self.step += 1
        seconds = time.perf_counter() - began
        self.seconds += seconds
        judged = weights > 0
        total = float(own.detach()[judged].sum())
        return {
            "step": self.step,
            "loss": float(loss.detach()),
            "bits_per_byte": total / math.log(2) / max(1, batch.file_bytes),
            "parameter_loss": float(own.detach()[batch.on_parameters[0]].mean()),
            "gradient_norm": float(norm),
            "lr_scale": scale,
            "short_share": short_share,
            "documents": batch.documents,
            "bytes": batch.file_bytes,
            "bytes_per_second": batch.file_bytes / seconds,
            "tokens_per_second": run.tokens_per_batch / seconds,
            "seconds": self.seconds,
            **({} if mtp is None else {"mtp_losses": mtp.losses.tolist()}),
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Return held-out figures: nats a judged byte, bits a file byte, and the share of files that greedy
        decoding would write exactly as the corpus has them (every judged byte the likeliest); and of each multi-token
        prediction head the share of its judged bytes that are the likeliest."""
        self.model.eval()
        total = judged_bytes = file_bytes = exact = documents = 0.0
        right = asked = torch.zeros(len(self.model.mtp), dtype=torch.int64)
        for batch in batches(self.heldout, self.encoder, self.config.run.tokens_per_batch):
            batch = batch.to(self.device)
            own, logits, mtp = self.losses(batch)
            judged = batch.weights[0] > 0
            wrong = (logits.argmax(-1) != batch.targets[0]) & judged
            total += float(own[judged].sum())
            if mtp is not None:
                right, asked = right + mtp.right.cpu(), asked + mtp.asked
            judged_bytes += int(judged.sum())
            file_bytes += batch.file_bytes
            bounds = batch.cu_seqlens.tolist()
            exact += sum(
                not bool(wrong[a:b].any()) for a, b in itertools.pairwise(bounds) if judged[a:b].any()
            )
            documents += batch.documents
        return {
            "heldout_loss": total / judged_bytes,
            "heldout_bits_per_byte": total / math.log(2) / file_bytes,
            "heldout_exact": exact / documents,
            "heldout_documents": int(documents),
            **({"heldout_mtp": (right / asked).tolist()} if self.model.mtp else {}),
        }

    def save(self) -> Path:
        """Write a checkpoint of this moment and drop all but the newest few."""
        state = {"step": self.step, "cursor": asdict(self.stream.cursor), "seconds": self.seconds}
        return checkpoint.save(
            self.config.run.out, self.model, self.optimizers, state, keep=self.config.run.keep
        )

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the run's folder, if there is one."""
        found = checkpoint.newest(self.config.run.out)
        if found is None:
            return False
        state = checkpoint.load(found, self.model, self.optimizers)
        self.step, self.seconds = state["step"], state["seconds"]
        self.stream = Stream(
            self.stream.examples, self.encoder, length=self.config.run.tokens_per_batch,
            seed=self.config.run.seed, cursor=Cursor(**state["cursor"]),
        )  # fmt: skip
        return True


class Metrics:
    """`metrics.jsonl`: one line a step; lines past the step that a run resumes from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    break  # the line that a kill cut short
                if row["step"] <= step:
                    kept.append(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text("".join(f"{line}\n" for line in kept))
        scratch.replace(path)
        self._file = path.open("a", buffering=1)

    def write(self, row: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def drive(trainer: Trainer, *, on_step: Callable[[dict[str, Any]], None] | None = None) -> ByteLM:
    """Take a trainer from where it stands to its last step; return the model.

    Writes `metrics.jsonl`, `step-*/` checkpoints and, at the end, `final/` (weights and config) under
    `run.out`. `on_step(metrics)` is called after every step.
    """
    run = trainer.config.run
    metrics = Metrics(run.out / "metrics.jsonl", trainer.step)
    try:
        while trainer.step < run.steps:
            row = trainer.train_step()
            last = trainer.step == run.steps
            if last or trainer.step % run.evaluate_every == 0:
                row.update(trainer.evaluate())
            metrics.write(row)
            if last or trainer.step % run.checkpoint_every == 0:
                trainer.save()
            if on_step is not None:
                on_step(row)
    finally:
        metrics.close()
    save_model(trainer.model, run.out / "final")
    return trainer.model


def train(config: TrainConfig) -> ByteLM:
    """Run `config` to its last step, from its newest checkpoint if it has one; return the model."""
    trainer = Trainer(config)
    trainer.resume()
    return drive(trainer)
