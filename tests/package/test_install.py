"""A wheel holds all four packages and the packaged weights, and imports from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git would give, without a network or a compiler: the build tools are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"BYTEGEN_PURE": "1"})
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {
        "bytegen": "bytegen",
        "bytegen/kernels": "kernels",
        "bytegen/formats": "formats",
        "bytegen/train": "train",
    }
    for inside, folder in folders.items():
        for path in (ROOT / folder).rglob("*"):
            if (
                path.suffix in {".py", ".toml", ".safetensors", ".h", ".ld"}
                and "__pycache__" not in path.parts
            ):
                assert f"{inside}/{path.relative_to(ROOT / folder)}" in names
    assert not any(name.split("/")[0] in {"kernels", "formats", "train", "tests"} for name in names)


def test_the_wheel_imports_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import bytegen, bytegen.kernels, bytegen.formats, bytegen.train\n"
        "for m in (bytegen, bytegen.kernels, bytegen.formats, bytegen.train): print(m.__file__)\n"
        "print(bytegen.load().config.n_layers)"
    )
    # -I: neither this folder nor the environment's editable install comes first; the rest of site-packages stays.
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *files, layers = done.stdout.split()
    assert all(f.startswith(str(site)) for f in files)
    assert int(layers) > 0
