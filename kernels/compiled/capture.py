"""Records the launches that a call makes instead of running them, for any architecture.

So what is compiled ahead of time is what a launch on that GPU would compile: the same signature, the same
divisibility of strides, the same options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import triton
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
    source = ASTSource(function, signature, constants, attributes)
    return triton.compile(source, target=target, options=options.__dict__)
