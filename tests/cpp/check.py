"""Compares the roads to an export: `python tests/cpp/check.py [FOLDER...]`.

A tiny captioner is exported; the C++ loader, `saved_model_cli run` and the
embedded server must give the captions of the one in memory.
Each FOLDER is that of a tensorflow package, such as `site-packages/tensorflow`,
against which the C++ loader is tried, too; the installed one comes first.
"""

import math
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from roads import CheckError, Row, run_by_cli, run_by_cpp, run_by_server

INSTALLED = Path(sysconfig.get_path("purelib"), "tensorflow")
TOLERANCE = 1e-4


def make_export(folder: Path) -> tuple[Path, list[Path], list[Row]]:
    """Exports a tiny captioner; returns the version, photos and captions."""
    import keras

    from bmt_keras.captioner import Captioner
    from bmt_keras.data.captions import read_coco_captions
    from bmt_keras.data.tokenizer import CaptionTokenizer
    from bmt_keras.export import export_captioner
    from bmt_keras.models import build_image_tower, build_masked_lm
    from bmt_keras.sample import write_sample
    from bmt_keras.settings import Settings

    keras.utils.set_random_seed(0)
    sample = folder / "sample"
    write_sample(sample, num_train=8, num_val=4, seed=0)
    photos = read_coco_captions(
        sample / "captions_train.json", sample / "images" / "train"
    )
    tokenizer = CaptionTokenizer.from_captions(
        caption for photo in photos for caption in photo.captions
    )
    settings = Settings().replace(
        text_hidden_dim=32, text_intermediate_dim=32, text_embedding_dim=16
    )
    encoder = build_image_tower(settings)
    captioner = Captioner(
        build_masked_lm(settings, tokenizer, image_tower=encoder),
        tokenizer,
        settings=settings,
        image_tower=encoder,
    )
    # The wheel's libraries lack tensorflow_text's ops, the server has them.
    version = export_captioner(captioner, folder / "bmt", text_inputs=False)
    paths = [photo.path for photo in photos]
    return (
        version,
        paths,
        [Row(c.text, c.score, "") for c in captioner.caption(paths)],
    )


def compare(rows: list[Row], expected: list[Row]) -> None:
    """Compares rows; the last one is that of a broken photo."""
    if len(rows) != len(expected) + 1:
        raise CheckError(f"Expected {len(expected) + 1} rows, found {rows}.")
    for found, wanted in zip(rows, expected, strict=False):
        close = math.isclose(found.score, wanted.score, abs_tol=TOLERANCE)
        if (found.caption, found.error) != (wanted.caption, "") or not close:
            raise CheckError(f"Expected {wanted}, found {found}.")
    broken = rows[-1]
    if broken.caption or "not a decodable image" not in broken.error:
        raise CheckError(
            f"Expected an error of a broken photo, found {broken}."
        )


def main() -> None:
    packages = [INSTALLED, *map(Path, sys.argv[1:])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version, photos, expected = make_export(folder)
        broken = folder / "broken.jpg"
        broken.write_bytes(photos[0].read_bytes()[:200])
        roads = {
            f"C++ loader of {package}": lambda *asked, package=package: (
                run_by_cpp(package.resolve(), *asked)
            )
            for package in packages
        }
        roads["saved_model_cli run"] = run_by_cli
        roads["embedded server"] = run_by_server
        for road, run in roads.items():
            try:
                compare(run(version, [*photos, broken]), expected)
            except CheckError as error:
                sys.exit(f"check_cpp: {road}: {error}")
            print(f"{road}: as the captioner in memory")
    print(
        f"{len(expected)} captions, such as {expected[0].caption!r}, are equal "
        "by every road; the broken photo has its error"
    )


if __name__ == "__main__":
    main()
