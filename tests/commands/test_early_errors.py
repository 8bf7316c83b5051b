"""What is refused at once: in a process that has no TensorFlow."""

import json
import subprocess
import sys

import pytest

from bmt_keras.commands.caption import parse_length
from bmt_keras.errors import InputError

# Runs command lines one after the other: code and what went to stderr of each.
SCRIPT = """
import contextlib, io, json, sys

for name in ("tensorflow", "keras"):
    sys.modules[name] = None  # to import it fails
from bmt_keras.commands import main

results = []
for arguments in json.load(sys.stdin):
    sys.argv = ["bmt", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            main()
        except SystemExit as end:
            results.append([end.code, error.getvalue()])
        except Exception as fault:
            results.append([1, repr(fault)])
print(json.dumps(results))
"""

TRAIN = "train --captions a.json --images photos --out run"
PREPARE = "prepare --captions a.json --images photos --cache cache"
EVALUATE = "evaluate --captions a.json --images photos --out x"
CAPTION = "caption photos/1.jpg --captioner captioner"
VAL = "--val-captions a.json --val-images photos"
NO_SUCH = "found no such file or folder."

# A command line, the option that is refused, and why.
VOID = [
    (f"{TRAIN} {VAL} --val-share 0.2", "--val-share", "with `--val-captions`"),
    (f"{PREPARE} {VAL} --val-share 0.3", "--val-share", "with `--val-captio"),
    (f"{TRAIN} --val-images photos", "--val-images", "without `--val-captio"),
    (f"{PREPARE} --runner-options=--a", "--runner-options", "without `--runn"),
    (
        f"{TRAIN} --order left_to_right --passes 3",
        *("--passes", "with `--order left_to_right`. Received: --passes=3."),
    ),
    (
        f"{TRAIN} --warmup-share 0.1 --schedule constant",
        *("--warmup-share", "with `--schedule constant`."),
    ),
    (f"{TRAIN} --concept-weight 1", "--concept-weight", "without `--concept-d"),
    (f"{TRAIN} --min-token-count 2", "--min-token-count", "without `--prune-"),
    (
        f"{TRAIN} --preset notebook --fusion-num-layers 2",
        *("--fusion-num-layers", "with `--fusion concat`."),
    ),
    (
        f"{EVALUATE} --captioner captioner --order left_to_right --passes 3",
        *("--passes", "with `--order left_to_right`."),
    ),
    (f"{CAPTION} --top-p 0.9", "--top-p", "without `--temperature`."),
    (
        f"{CAPTION} --mbr-samples 8 --temperature 0.7",
        *("--mbr-samples", "with `--temperature`. Received: --mbr-samples=8."),
    ),
    *(
        (f"{CAPTION} --template a[MASK] {x}", x.split()[0], "with `--template`")
        for x in (
            *("--length 4", "--keyword dog", "--num-captions 2", "--seed 3"),
            *("--temperature 0.5", "--length-candidates 2", "--mbr-samples 0"),
        )
    ),
    (f"{CAPTION} --out a.csv --scores", "--scores", "with `--out`."),
    (f"{CAPTION} --out a.csv --grid a.png", "--grid", "with `--out`. Received"),
    (
        f"{CAPTION} --out a.csv --num-captions 2",
        "--num-captions",
        "with `--out",
    ),
    (
        f"{CAPTION} --grid a.png --num-captions 2",
        "--num-captions",
        "with `--gr",
    ),
    ("serve --rest-cors", "--rest-cors", "without `--rest-port`."),
    (
        "serve --model-config-file a.json --models captioner",
        *("--models", "with `--model-config-file`. Received: --models=capt"),
    ),
    (
        "serve --model-config-file a.json --name x",
        *("--name", "with `--model-config-file`."),
    ),
    ("request photos --version 0 --label a", "--version", "with `--label`."),
    ("request photos --key a.json", "--key", "without `--certificate`."),
    (
        "serve --models captioner --tls-key a.json",
        *("--tls-key", "without `--tls-certificate`."),
    ),
]
CHEAP = {
    f"{TRAIN} --preset huge": "`preset` must be one of sample, ",
    f"{TRAIN} --fusion sum": "`fusion` must be one of cross_attention, ",
    f"{TRAIN} --strategy ring": "`strategy` must be one of mirrored, ",
    f"{TRAIN} --tpu-address local": "with the strategy 'tpu' alone",
    f"{TRAIN} --val-captions a.json --val-images gone": (
        f"gone: expected a folder of photos, {NO_SUCH}"
    ),
    f"{TRAIN} --start gone": "gone: expected a captioner's folder with model.k",
    f"{TRAIN} --vocabulary gone.model": (
        f"gone.model: expected a SentencePiece model, {NO_SUCH}"
    ),
    f"{PREPARE} --image-weights gone.h5": (
        f"gone.h5: expected a file of image weights, {NO_SUCH}"
    ),
    "train --captions gone.json --images photos --out run": (
        f"gone.json: expected a captions file, {NO_SUCH}"
    ),
    "prepare --captions a.json --images gone --cache cache": (
        f"gone: expected a folder of photos, {NO_SUCH}"
    ),
    "pretrain --text gone.txt --out run": (
        f"gone.txt: expected a text file of captions, {NO_SUCH}"
    ),
    "pretrain --text a.json --captions gone --out run": "gone: expected a capt",
    f"{EVALUATE} --captioner gone": (
        "gone: expected a captioner's folder with model.keras, found none"
    ),
    "caption gone.jpg --captioner captioner": (
        "gone.jpg: expected an image, found none."
    ),
    "caption photos/1.jpg --captioner gone": "gone: expected a captioner's fo",
    "caption captioner --captioner captioner": "captioner: expected images (",
    f"{CAPTION} --length few": "such as 6-9, 6- (six or more) or -9 (nine at",
    f"{CAPTION} --grid a.jpg": "a.jpg: expected a file name that ends in .png",
    f"{CAPTION} --out a.txt": "a.txt: expected a file name that ends in .jsonl",
    f"{CAPTION} --out a.json": "a.json: expected no such file yet, found one",
    f"{CAPTION} --out begun.csv --passes 3": (
        "whose `captioner` was '/runs/other', not "
    ),
    "export --captioner gone": "gone: expected a captioner's folder with mode",
    "export --captioner captioner --metrics gone.json": (
        f"gone.json: expected figures as `bmt evaluate` writes them, {NO_SUCH}"
    ),
    "serve": f"models/bmt: expected what is to be served, {NO_SUCH}",
    "serve --model-config-file gone": "gone: expected what is to be served, ",
    "serve --models models --tls-key a.json --tls-certificate gone.pem": (
        f"gone.pem: expected a PEM file, {NO_SUCH}"
    ),
    "request photos --ca gone.pem": f"gone.pem: expected a PEM file, {NO_SUCH}",
    "request captioner": "captioner: expected images (",
}


OTHERS = ["request gone.jpg"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    for name in ("photos/1.jpg", "captioner/model.keras", "models/3/x"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    (folder / "a.json").write_text("{}")
    head = json.dumps({"captioner": "/runs/other"})
    (folder / ".begun.csv.partial.jsonl").write_text(f"{head}\n")
    lines = [*(line for line, _, _ in VOID), *CHEAP, *OTHERS]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([line.split() for line in lines]),
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert found.returncode == 0, found.stderr
    return dict(zip(lines, json.loads(found.stdout), strict=True))


@pytest.mark.parametrize(("line", "option", "why"), VOID)
def test_void_option_is_refused(results, line, option, why):
    code, error = results[line]
    assert (code, error.count("\n")) == (2, 1), error
    assert f"`{option}` cannot be given {why}" in error


@pytest.mark.parametrize(("line", "message"), CHEAP.items(), ids=CHEAP)
def test_cheap_mistake_is_refused(results, line, message):
    code, error = results[line]
    assert (code, error.count("\n")) == (2, 1), error
    assert message in error


def test_only_photo_that_is_missing_fails_without_tensorflow(results):
    code, error = results["request gone.jpg"]
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith("gone.jpg: expected a file that can be read")


# === Lengths ===


@pytest.mark.parametrize(
    ("text", "length"),
    [
        *((None, None), ("8", 8), ("6-9", (6, 9)), ("7-7", (7, 7))),
        *(("6-", (6, None)), ("-9", (1, 9))),
    ],
)
def test_length_is_a_number_or_a_range(text, length):
    assert parse_length(text) == length


@pytest.mark.parametrize(
    "text",
    ["few", "", "-", "0", "-0", "0-", "9-6", "6--9", "6-9-", "6.5", " 6"],
)
def test_length_that_is_none_is_refused(text):
    with pytest.raises(InputError, match=r"6-9, 6- \(six or more\) or -9"):
        parse_length(text)
