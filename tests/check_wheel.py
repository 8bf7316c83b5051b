"""Checks a built wheel: `python tests/check_wheel.py dist`."""

import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE_PACKAGES = ("purelib", "platlib")


class WheelError(Exception):
    """The wheel is not what it should be."""


def find_wheel(folder: Path) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        found = ", ".join(wheel.name for wheel in wheels) or "none"
        raise WheelError(f"{folder}: expected one wheel, found {found}.")
    return wheels[0]


def check_content(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top_level = {name.split("/")[0] for name in names}
    packages = {name for name in top_level if not name.endswith(".dist-info")}
    if packages != {"bmt_keras"}:
        raise WheelError(
            f"{wheel.name}: expected bmt_keras alone at the top level, found "
            f"{', '.join(sorted(packages))}."
        )
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    expected = {
        f"{package.replace('.', '/')}/__init__.py"
        for package in pyproject["tool"]["setuptools"]["packages"]
    }
    missing = sorted((expected | {"bmt_keras/py.typed"}) - names)
    if missing:
        raise WheelError(f"{wheel.name}: {', '.join(missing)} missing.")


def check_mapped_packages(wheel: Path) -> None:
    """Imports those of the wheel, away from the source tree."""
    with tempfile.TemporaryDirectory() as folder:
        target, elsewhere = Path(folder, "target"), Path(folder, "elsewhere")
        elsewhere.mkdir()
        pip = ["pip", "install", "--quiet", "--no-deps", "--no-index"]
        pip += ["--disable-pip-version-check", "--target", str(target)]
        run_python("-m", *pip, str(wheel.resolve()), cwd=elsewhere)
        # Without `site`, an editable install cannot lend what the wheel lacks.
        run_python(
            *("-S", "-c", "import bmt_keras.export, bmt_keras.serving.client"),
            cwd=elsewhere,
            path=[str(target), *map(sysconfig.get_path, SITE_PACKAGES)],
        )


def run_python(*arguments: str, cwd: Path, path: Sequence[str] = ()) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise WheelError(
            f"`python {' '.join(arguments)}` ended with code "
            f"{done.returncode}:\n{done.stderr}"
        )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Usage: python tests/check_wheel.py FOLDER")
    try:
        wheel = find_wheel(Path(sys.argv[1]))
        check_content(wheel)
        check_mapped_packages(wheel)
    except (WheelError, zipfile.BadZipFile) as err:
        sys.exit(f"check_wheel: {err}")
    print(f"{wheel}: bmt_keras alone, whole, and runs away from its sources")


if __name__ == "__main__":
    main()
