"""Runs an export by the C++ loader: `python tests/cpp/check.py [FOLDER...]`.

Each FOLDER is that of a tensorflow package, such as `site-packages/tensorflow`;
the installed one comes first. A tiny captioner is exported, a small program is
compiled against each package, and its captions must be the captioner's.
"""

import math
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PROGRAM = Path(__file__).with_name("caption_photos.cc")
INSTALLED = Path(sysconfig.get_path("purelib"), "tensorflow")
TOLERANCE = 1e-4
FLAGS = (
    *("-std=c++17", "-O1", "-w", "-D_GLIBCXX_USE_CXX11_ABI=1"),
    "-DEIGEN_MAX_ALIGN_BYTES=64",
)
# Without the first, the linker drops the library that makes sessions.
LIBRARIES = (
    "-Wl,--no-as-needed",
    "-l:libtensorflow_cc.so.2",
    "-l:libtensorflow_framework.so.2",
)


class CheckError(Exception):
    """The C++ loader does not give the captioner's captions."""


def make_export(
    folder: Path,
) -> tuple[Path, list[Path], list[str], list[float]]:
    """Exports a tiny captioner; gives photos, captions and scores, too."""
    import keras

    from bmt_keras.captioner import Captioner
    from bmt_keras.data.coco import read_coco_captions
    from bmt_keras.data.tokenizer import CaptionTokenizer
    from bmt_keras.export import export_captioner
    from bmt_keras.models import build_image_encoder, build_masked_lm
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
    settings = Settings(hidden_dim=32, intermediate_dim=32, embedding_dim=16)
    encoder = build_image_encoder(settings)
    captioner = Captioner(
        build_masked_lm(settings, tokenizer, image_encoder=encoder),
        tokenizer,
        settings=settings,
        image_encoder=encoder,
    )
    # The wheel's libraries lack tensorflow_text's ops, the server has them.
    version = export_captioner(captioner, folder / "bmt", text_inputs=False)
    paths = [photo.path for photo in photos]
    captions = captioner.caption(paths)
    return (
        version,
        paths,
        [caption.text for caption in captions],
        [caption.score for caption in captions],
    )


def compile_program(tensorflow: Path, program: Path) -> None:
    if not (tensorflow / "libtensorflow_cc.so.2").is_file():
        raise CheckError(
            f"{tensorflow}: expected a tensorflow package with "
            "libtensorflow_cc.so.2, found none."
        )
    command = ["g++", *FLAGS, f"-I{tensorflow / 'include'}", str(PROGRAM)]
    command += [f"-L{tensorflow}", *LIBRARIES, f"-Wl,-rpath,{tensorflow}"]
    run(*command, "-o", str(program))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CheckError(
            f"`{command[0]}` ended with code {done.returncode}:\n{done.stderr}"
        )
    return done.stdout


def compare(lines: list[str], captions: list[str], scores: list[float]) -> None:
    if len(lines) != len(captions) + 1:
        raise CheckError(f"Expected {len(captions) + 1} lines, found {lines}.")
    for line, caption, score in zip(lines, captions, scores, strict=False):
        text, number, error = line.split("\t")
        close = math.isclose(float(number), score, abs_tol=TOLERANCE)
        if (text, error) != (caption, "") or not close:
            raise CheckError(
                f"Expected {caption!r} of score {score:.4f}, found {line!r}."
            )
    text, _, error = lines[-1].split("\t")
    if text or "not a decodable image" not in error:
        raise CheckError(
            f"Expected an error of a broken photo, found {lines[-1]!r}."
        )


def main() -> None:
    packages = [INSTALLED, *map(Path, sys.argv[1:])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version, photos, captions, scores = make_export(folder)
        broken = folder / "broken.jpg"
        broken.write_bytes(photos[0].read_bytes()[:200])
        for package in packages:
            program = folder / "caption_photos"
            try:
                compile_program(package.resolve(), program)
                lines = run(
                    *map(str, (program, version, *photos, broken))
                ).splitlines()
                compare(lines, captions, scores)
            except CheckError as err:
                sys.exit(f"check_cpp: {package}: {err}")
            print(
                f"{package}: {len(captions)} captions are the captioner's, "
                f"such as {captions[0]!r}; the broken photo has its error"
            )


if __name__ == "__main__":
    main()
