"""Imports point one way: train -> bytegen -> kernels, formats; formats stays free of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "bytegen": "bytegen",
    "bytegen.kernels": "kernels",
    "bytegen.formats": "formats",
    "bytegen.train": "train",
}
MAY_IMPORT = {
    "bytegen.train": {"bytegen.train", "bytegen", "bytegen.kernels", "bytegen.formats"},
    "bytegen": {"bytegen", "bytegen.kernels", "bytegen.formats"},
    "bytegen.kernels": {"bytegen.kernels"},
    "bytegen.formats": {"bytegen.formats"},
}
MODULES = [
    (package, path) for package, folder in FOLDERS.items() for path in sorted((ROOT / folder).rglob("*.py"))
]


def package_of(module: str) -> str | None:
    if module != "bytegen" and not module.startswith("bytegen."):
        return None
    head = ".".join(module.split(".")[:2])
    return head if head in FOLDERS else "bytegen"


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from bytegen import formats` counts as bytegen.formats."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole if node.module == "bytegen" else {node.module}
    return found


@pytest.mark.parametrize(("package", "path"), MODULES, ids=[str(p.relative_to(ROOT)) for _, p in MODULES])
def test_imports_point_one_way(package: str, path: Path) -> None:
    ours = {p for p in map(package_of, imported(path)) if p is not None}
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize(
    ("package", "barred"),
    [
        ("bytegen.formats", ["torch", "triton", "pyarrow", "click"]),
        ("bytegen.kernels", ["lief", "capstone", "unicorn", "click"]),
        ("bytegen", ["torch", "lief", "numpy"]),
    ],
)  # fmt: skip
def test_importing_a_package_brings_in_only_what_it_needs(
    package: str, barred: list[str], tmp_path: Path
) -> None:
    """From another folder, so that it is the installed package that is imported."""
    code = f"import sys, {package}; print([m for m in {barred!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
