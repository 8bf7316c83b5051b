"""What is shipped, and which part may import which."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]

# A part of the library, and the parts of the library that it may import.
MAY_IMPORT = {
    "bmt_keras/data": ("atomic", "data", "errors"),
    "bmt_keras/layers": ("layers",),
    "bmt_keras/models": ("data", "errors", "layers", "models", "settings"),
    "bmt_keras/sample": ("errors", "sample"),
    "serving": ("contract",),
}


def imported_names(path):
    """Names that a file imports absolutely, each with its module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(folder):
    """(file, imported name) of all files of a folder."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    return [(p.name, name) for p in paths for name in imported_names(p)]


def within(name, module):
    return name == module or name.startswith(f"{module}.")


# === What is shipped ===


def test_packages_are_the_folders_on_disk():
    found = []
    for package, folder in SETUPTOOLS["package-dir"].items():
        for path in (ROOT / folder).rglob("__init__.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            found.append(".".join((package, *parts)))
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)


def test_every_folder_of_code_is_a_package():
    for folder in SETUPTOOLS["package-dir"].values():
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_type_hints_are_shipped():
    assert (ROOT / "bmt_keras" / "py.typed").is_file()
    assert SETUPTOOLS["package-data"]["bmt_keras"] == ["py.typed"]


# === Which part may import which ===


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_part_imports_only_the_parts_below_it(part):
    allowed = [f"bmt_keras.{name}" for name in MAY_IMPORT[part]]
    beyond = [
        (file, name)
        for file, name in imports_of(part)
        if within(name, "bmt_keras")
        and not any(within(name, module) for module in allowed)
    ]
    assert beyond == []


@pytest.mark.parametrize("part", ["export", "serving"])
def test_siblings_are_imported_relatively(part):
    absolute = [
        (file, name)
        for file, name in imports_of(part)
        for module in ("export", "serving", f"bmt_keras.{part}")
        if within(name, module)
    ]
    assert absolute == []


def test_server_and_client_share_their_error_alone():
    for part in ("server", "client"):
        above = {
            node.module
            for path in (ROOT / "serving" / part).glob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level > 1
        }
        assert above == {"errors"}


def test_library_imports_neither_export_nor_serving():
    beyond = [
        (path.name, name)
        for path in (ROOT / "bmt_keras").rglob("*.py")
        if path.parent.name not in ("bench", "commands")
        for name in imported_names(path)
        if within(name, "bmt_keras.export") or within(name, "bmt_keras.serving")
    ]
    assert beyond == []


def test_layers_run_on_every_backend_of_keras():
    assert [
        (file, name)
        for file, name in imports_of("bmt_keras/layers")
        if within(name, "tensorflow")
    ] == []


def test_beam_is_imported_by_one_file_alone():
    files = {
        path.name
        for path in (ROOT / "bmt_keras").rglob("*.py")
        for name in imported_names(path)
        if within(name, "apache_beam")
        or name.startswith("bmt_keras.training.beam")
    }
    assert files == {"beam.py", "prepare.py"}


@pytest.mark.parametrize("module", ["bmt_keras", "bmt_keras.commands"])
def test_import_costs_neither_keras_nor_tensorflow(module):
    code = (
        f"import {module}, sys\n"
        "heavy = {'keras', 'keras_nlp', 'tensorflow', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (found.stdout, found.stderr) == ("[]\n", "")
