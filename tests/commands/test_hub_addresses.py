"""Addresses on the Hugging Face hub reach its client as they were given."""

import json

import pytest

ADDRESS = "hf://me/mine@v1"


@pytest.fixture
def asked(monkeypatch):
    """Takes the place of the hub's client, which finds nothing."""
    asked = []

    def download(repo, *, revision, allow_patterns):
        asked.append((repo, revision))
        raise OSError("no such repository")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return asked


@pytest.mark.parametrize(
    "command",
    [
        "caption {photos} --captioner {address}",
        "caption {photos} --captioner {address} --out {out}.csv",
        "evaluate {captions} --captioner {address} --out {out}",
        "export --captioner {address} --out {out}",
        "train {captions} --start {address} --out {out}",
        "train {captions} --text-weights {address} --out {out}",
        "pretrain --preset coco --text {text} --out {out} "
        "--text-weights {address}",
    ],
)
def test_address_arrives_unchanged(
    bmt, asked, write_captions, tmp_path, command
):
    captions = write_captions()
    text = tmp_path / "text.txt"
    text.write_text("a dog\na cat\n")
    line = command.format(
        address=ADDRESS,
        captions=" ".join(map(str, captions)),
        photos=captions[-1],
        text=text,
        out=tmp_path / "out",
    )
    result = bmt(*line.split())
    assert asked == [("me/mine", "v1")]
    assert result.code == 2
    assert f"bmt: {ADDRESS}: cannot be downloaded" in result.err


def test_captions_of_two_commits_do_not_share_a_file(
    bmt, write_captions, tmp_path, monkeypatch
):
    folder = tmp_path / "newer"
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: str(folder)
    )
    begun = {"captioner": ADDRESS, "captioner's hash": "older"}
    journal = tmp_path / ".out.csv.partial.jsonl"
    journal.write_text(f"{json.dumps(begun)}\n")
    result = bmt(
        *("caption", write_captions()[-1], "--captioner", ADDRESS),
        *("--out", tmp_path / "out.csv"),
    )
    assert result.code == 2
    assert "`captioner's hash` was 'older', not 'newer'" in result.err
