"""Records the launches that a call makes instead of running them, for any architecture.

So what is compiled ahead of time is what a launch on that GPU would compile: the same signature, the same
divisibility of strides, the same options.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from bytegen.kernels import architectures
from bytegen.kernels.architectures import Architecture


class Launch(NamedTuple):
    """One launch that was asked for."""

    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self.function.__name__)


@contextmanager
def recording(architecture: Architecture) -> Iterator[list[Launch]]:
    """Collect every launch inside the block, as if tensors lay on `architecture`; nothing runs."""
    launches: list[Launch] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        launches.append(Launch(self, args, options))

    with (
        mock.patch.object(JITFunction, "run", run),
        mock.patch.object(architectures, "_pretended", architecture),
    ):
        yield launches


def _sources(name: str, seen: set[str]) -> list[str]:
    """The kernels, helpers and constants of a module, and of those that its helpers come from, as they were loaded."""
    if name in seen:
        return []
    seen.add(name)
    found = []
    for member, value in sorted(vars(sys.modules[name]).items()):
        if isinstance(value, tl.constexpr):
            found.append(f"{member} = {value.value!r}")
        elif isinstance(value, JITFunction) and value.__module__ == name:
            found.append(value.src)
        elif isinstance(value, JITFunction) and value.__module__.startswith("bytegen."):
            found += _sources(value.__module__, seen)
    return found


def _described(argument: Any) -> str:
    """What a compilation sees of an argument."""
    if isinstance(argument, torch.Tensor):
        return str(argument.dtype)
    if hasattr(argument, "block_shape"):
        layout = getattr(argument, "layout", "")  # Gluon's say how a tile lies in shared memory
        return f"{argument.base.dtype} {argument.block_shape}{layout and f' {layout}'}"
    return repr(argument)


def fingerprint(launch: Launch) -> str:
    """SHA-256 of what a launch is compiled from: the kernels of its modules, its arguments and options."""
    digest = hashlib.sha256(repr(_sources(launch.function.__module__, set())).encode())
    digest.update(repr([_described(x) for x in launch.arguments]).encode())
    digest.update(repr(sorted((name, _described(x)) for name, x in launch.options.items())).encode())
    return digest.hexdigest()


def target_of(architecture: Architecture) -> GPUTarget:
    """Triton's name for an architecture."""
    return GPUTarget(architecture.backend, architecture.target, architecture.warp_size)


def compile_launch(launch: Launch, architecture: Architecture) -> Any:
    """The compiled kernel of a launch; triton's errors pass through."""
    target = target_of(architecture)
    backend = make_backend(target)
    function = launch.function
    binder: Callable[..., Any] = create_function_from_signature(function.signature, function.params, backend)
    bound, specialization, options = binder(*launch.arguments, **launch.options, debug=False)
    options, signature, constants, attributes = function._pack_args(
        backend, {**launch.options, "debug": False}, bound, specialization, options
    )
    source_type = ASTSource
    if function.is_gluon():
        from triton.experimental.gluon._runtime import GluonASTSource

        source_type = GluonASTSource
    source = source_type(function, signature, constants, attributes)
    return triton.compile(source, target=target, options=options.__dict__)
