"""What is shipped, and which part may import which."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]

BASE = ("atomic", "contract", "errors", "progress")
FILES = (*BASE, "image_files")
LIBRARY = (*FILES, "data", "layers", "models", "presets", "settings")
CAPTIONER = (*LIBRARY, "captioner", "decoding")
# The parts, and those that each may import: imports run one way.
MAY_IMPORT = {
    **dict.fromkeys(BASE, ()),
    "image_files": BASE,
    "settings": BASE,
    "presets": (*BASE, "settings"),
    "layers": (),
    "data": FILES,
    "models": (*BASE, "data", "layers", "settings"),
    "decoding": (*BASE, "data", "settings"),
    "captioner": (*LIBRARY, "decoding"),
    "evaluation": CAPTIONER,
    "sample": BASE,
    "training": (*CAPTIONER, "evaluation"),
    "export": CAPTIONER,
    "serving": FILES,
    "commands": (
        *CAPTIONER,
        *("evaluation", "export", "sample", "serving", "training"),
    ),
}


def imported_names(path):
    """Names that a file imports absolutely, each with its module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(part):
    """(file, imported name) of all files of a part."""
    top = ROOT if part in ("export", "serving") else ROOT / "bmt_keras"
    paths = sorted((top / part).rglob("*.py")) or [top / f"{part}.py"]
    files = [(p.relative_to(ROOT).as_posix(), p) for p in paths]
    return [(file, name) for file, p in files for name in imported_names(p)]


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


def test_every_part_has_its_place_and_none_is_in_a_circle():
    paths = (ROOT / "bmt_keras").glob("[!_]*")
    parts = {p.stem for p in paths if p.suffix in ("", ".py")}
    assert parts | {"export", "serving"} == set(MAY_IMPORT)
    TopologicalSorter(MAY_IMPORT).prepare()  # raises for a circle


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_part_imports_only_the_parts_below_it(part):
    # The package itself stands for its version.
    allowed = {"", "__version__", part, *MAY_IMPORT[part]}
    beyond = [
        (file, name)
        for file, name in imports_of(part)
        if within(name, "bmt_keras")
        and [*name.split("."), ""][1] not in allowed
    ]
    assert beyond == []


def test_evaluation_needs_no_captioner_at_its_import():
    for path in (ROOT / "bmt_keras" / "evaluation").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [
            node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            and within(node.module, "bmt_keras.captioner")
        ]


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


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("layers", "tensorflow"),  # to run on every backend of Keras
        *(("serving", f"keras{end}") for end in ("", "_nlp", "_hub")),
    ],
)
def test_part_does_without(part, module):
    assert not [x for x in imports_of(part) if within(x[1], module)]


def test_beam_is_imported_by_one_file_alone():
    files = {
        file
        for part in MAY_IMPORT
        for file, name in imports_of(part)
        if within(name, "apache_beam")
        or within(name, "bmt_keras.training.beam")
    }
    assert files == {
        "bmt_keras/training/beam.py",
        "bmt_keras/commands/prepare.py",
    }


KERAS = ("keras", "keras_hub", "tensorflow", "transformers")


@pytest.mark.parametrize(
    ("module", "costly"),
    [
        ("bmt_keras", KERAS),
        ("bmt_keras.commands", KERAS),
        ("bmt_keras.progress", (*KERAS, "numpy")),
        ("bmt_keras.image_files", (*KERAS, "numpy", "PIL", "pi_heif")),
        # Neither models nor the packages of extras.
        (
            "bmt_keras.evaluation",
            (*KERAS, "pycocoevalcap", "matplotlib", "jinja2"),
        ),
        ("bmt_keras.evaluation.plots", (*KERAS, "matplotlib.pyplot")),
        ("bmt_keras.evaluation.report", (*KERAS, "matplotlib.pyplot")),
    ],
)
def test_import_does_without(module, costly):
    code = (
        f"import {module}, sys\nprint(sorted({set(costly)} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
    # Matplotlib says so when it first lists the fonts of a machine.
    assert "matplotlib.pyplot" in costly or not found.stderr
