"""Maps the top-level folders into the `bytegen` package; compiles the constraints' inner loop and the CPU decoder.

Metadata lives in pyproject.toml. The modules named here run as Python too: where there is no C compiler, or with
BYTEGEN_PURE=1, they do, and torch decodes. Cython takes the types of their attributes from the .pxd files beside them.
"""

import os
import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup

FOLDERS = {
    "bytegen": "bytegen",
    "bytegen.kernels": "kernels",
    "bytegen.formats": "formats",
    "bytegen.train": "train",
}
COMPILED = ("pieces", "branches", "constraint", "intset", "masks", "records", "steps", "stream", "written")
INLINE = ("octets",)  # its functions are compiled into those that take them from its .pxd
CORE = "bytegen.formats.core"

packages = [
    name
    for package, folder in FOLDERS.items()
    for name in [package, *(f"{package}.{sub}" for sub in find_packages(folder))]
]


def compiler_there() -> bool:
    """Whether the C compiler that Python asks for is on this machine; `optional` is for one that fails."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return os.name == "nt" or shutil.which(command.split()[0]) is not None


def decoder() -> Extension:
    """The CPU decoder, in C; it has a path for each vector set and chooses when it is loaded."""
    flags = [] if os.name == "nt" else ["-O3", "-g0", "-pthread"]
    return Extension(
        "bytegen.cpu._decoder",
        ["bytegen/cpu/decoder.c"],
        depends=[
            f"bytegen/cpu/{name}.h"
            for name in ("attention", "calls", "dots", "draw", "ops", "pool", "rings", "sets", "whole")
        ],
        extra_compile_args=flags,
        extra_link_args=flags[2:],
        libraries=[] if os.name == "nt" else ["m"],
    )


def extensions() -> list[Extension]:
    """What is compiled; nothing where it is not wanted or there is no compiler."""
    if os.environ.get("BYTEGEN_PURE") or not compiler_there():
        return []
    made = [decoder(), *inner_loop()]
    for extension in made:
        extension.optional = True  # Cython forgets it of those it is given
    return made


def inner_loop() -> list[Extension]:
    """The compiled modules of the constraints; none where Cython is missing."""
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    # Cython names a module by the folders it lies in, so it is shown the installed shape.
    shape = Path("build", "compiled")
    core = shape.joinpath(*CORE.split("."))
    core.mkdir(parents=True, exist_ok=True)
    for parent in (core, *core.parents[: len(CORE.split(".")) - 1]):
        (parent / "__init__.py").touch()
    for kind in ("py", "pxd"):
        for source in Path("formats", "core").glob(f"*.{kind}"):
            if source.stem in COMPILED or (source.stem in INLINE and kind == "pxd"):
                shutil.copy2(source, core / source.name)
    flags = [] if os.name == "nt" else ["-O2", "-g0"]
    made = [
        Extension(f"{CORE}.{name}", [str(core / f"{name}.py")], extra_compile_args=flags) for name in COMPILED
    ]
    compiled: list[Extension] = cythonize(
        made,
        include_path=[str(shape)],
        language_level=3,
        # Annotations say what a checker reads; a bytearray may be of a subclass.
        # Plain built-in methods are called fastest; their signatures can still be read.
        compiler_directives={
            "annotation_typing": False,
            "binding": False,
            "embedsignature": True,
            "embedsignature.format": "clinic",
        },
        quiet=True,
    )
    return compiled


setup(packages=packages, package_dir=FOLDERS, ext_modules=extensions())
