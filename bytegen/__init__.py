"""bytegen: a byte-level language model that writes executables under constraints that make every file load.

    lm = bytegen.load()
    out = bytegen.generate(lm, "count from 3 to 9", max_bytes=4096, seed=0)
    print(out.run().stdout)

Names are resolved on first use, so that `import bytegen.formats` stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Best",
    "ByteLM",
    "ModelConfig",
    "Output",
    "UserError",
    "account",
    "best_of",
    "generate",
    "generate_many",
    "generate_particles",
    "load",
    "plan",
    "stream",
]

if TYPE_CHECKING:
    from bytegen.best import Best, best_of
    from bytegen.config import ModelConfig
    from bytegen.errors import UserError
    from bytegen.generation import Output, generate, generate_many, stream
    from bytegen.model import ByteLM
    from bytegen.particles import generate_particles
    from bytegen.planning import plan
    from bytegen.scoring import account
    from bytegen.weights import load

_HOME = {
    "Best": "bytegen.best",
    "ByteLM": "bytegen.model",
    "ModelConfig": "bytegen.config",
    "Output": "bytegen.generation",
    "UserError": "bytegen.errors",
    "account": "bytegen.scoring",
    "best_of": "bytegen.best",
    "generate": "bytegen.generation",
    "generate_many": "bytegen.generation",
    "generate_particles": "bytegen.particles",
    "load": "bytegen.weights",
    "plan": "bytegen.planning",
    "stream": "bytegen.generation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bytegen' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
