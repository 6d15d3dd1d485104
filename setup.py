"""Maps the top-level folders into the `bytegen` package; metadata lives in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = {
    "bytegen": "bytegen",
    "bytegen.kernels": "kernels",
    "bytegen.formats": "formats",
    "bytegen.train": "train",
}

packages = [
    name
    for package, folder in FOLDERS.items()
    for name in [package, *(f"{package}.{sub}" for sub in find_packages(folder))]
]

setup(packages=packages, package_dir=FOLDERS)
