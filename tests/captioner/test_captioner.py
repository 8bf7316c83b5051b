import dataclasses
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bmt_keras.captioner import Captioner
from bmt_keras.captioner.inputs import ImageReader
from bmt_keras.data.images import decode_images
from bmt_keras.errors import InputError

# === Images ===


def test_all_kinds_of_images_give_the_same_captions(tiny_captioner, paths):
    as_bytes = [path.read_bytes() for path in paths]
    as_arrays = [
        tf.io.decode_jpeg(one, dct_method="INTEGER_ACCURATE").numpy()
        for one in as_bytes
    ]
    expected = tiny_captioner.caption(paths)
    assert tiny_captioner.caption(map(str, paths)) == expected
    assert tiny_captioner.caption(as_bytes) == expected
    assert tiny_captioner.caption(tuple(as_arrays)) == expected
    assert tiny_captioner.caption(np.stack(as_arrays)) == expected
    as_pillow = list(map(Image.fromarray, as_arrays))
    assert tiny_captioner.caption(as_pillow) == expected
    mixed = [paths[0], as_bytes[1], as_pillow[2], as_arrays[3]]
    texts = [each.text for each in tiny_captioner.caption(mixed)]
    assert texts == [each.text for each in expected[:4]]
    # A palette or an alpha channel is converted.
    transparent = as_pillow[0].convert("RGBA")
    assert tiny_captioner.caption(transparent).text == expected[0].text


def test_turned_image_is_captioned_upright(tiny_captioner, paths, tmp_path):
    path, turn = tmp_path / "turned.png", Image.Exif()
    turn[0x0112] = 6  # to be turned clockwise
    with Image.open(paths[0]) as upright:
        expected = tiny_captioner.caption(np.asarray(upright))
        lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(path, exif=turn)
    for found in tiny_captioner.caption([path, path.read_bytes()]):
        assert found.text == expected.text
        assert found.score == pytest.approx(expected.score, abs=0.01)
    assert tiny_captioner.caption(np.asarray(lying)).score != pytest.approx(
        expected.score, abs=0.01
    )


def test_one_image_gives_one_result(tiny_captioner, paths):
    captioner, (path, *_) = tiny_captioner, paths
    (caption,) = captioner.caption([path])
    pixels = np.zeros((4, 4, 3), np.uint8)
    for image in (path, str(path), path.read_bytes()):
        assert captioner.caption(image) == caption
    assert captioner.caption(pixels) == captioner.caption(pixels[None])[0]
    assert (
        captioner.caption(path, template="a [MASK]")
        == (captioner.fill_mask([path], ["a [MASK]"])[0])
    )
    assert captioner.score(path, "red") == captioner.score([path], "red")[0]
    assert captioner.rank([path], ["red"]) == [captioner.rank(path, ["red"])]


def test_several_captions_are_a_list_of_their_image(tiny_captioner, paths):
    one = tiny_captioner.caption(paths[0], num_captions=3)
    assert len({caption.text for caption in one}) == 3
    first, second = tiny_captioner.caption(paths[:2], num_captions=3)
    assert [each.text for each in first] == [each.text for each in one]
    assert len(second) == 3


def test_no_images_give_no_captions(tiny_captioner):
    assert tiny_captioner.caption([]) == []
    with pytest.raises(InputError, match="Expected images, found none"):
        tiny_captioner.read_features([])


def test_broken_image_is_named(tiny_captioner, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg: not a decodable image"):
        tiny_captioner.caption(path)
    with pytest.raises(InputError, match=r"images\[1\]: not a decodable"):
        tiny_captioner.caption(
            [np.zeros((4, 4, 3), np.uint8), b"neither is this"]
        )
    with pytest.raises(InputError, match=r"absent\.jpg: expected an image"):
        tiny_captioner.caption([tmp_path / "absent.jpg"])


def test_pixels_take_the_way_of_files(tiny_captioner, paths):
    captioner = tiny_captioner
    rgb = np.asarray(Image.open(paths[0]))[:30]
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    rgba = np.dstack(
        [rgb, np.arange(rgb[..., 0].size).reshape(grey.shape) % 256]
    )
    rgba = rgba.astype(np.uint8)
    for pixels in (rgb, grey, rgba):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        expected = captioner.caption(file.getvalue())
        same = [
            *(pixels, pixels.astype(np.float32), pixels / 255, file),
            *(tf.constant(pixels), Image.fromarray(pixels)),
            *([pixels[..., None]] if pixels.ndim == 2 else []),
        ]
        file.seek(0)
        for image in same:
            assert captioner.caption(image) == expected
        for batch in (np.stack([pixels] * 2), np.stack([pixels / 255] * 2)):
            if pixels.ndim == 3:  # of grey ones a batch has a last axis
                # Scores of a batch differ in their last digits.
                texts = [each.text for each in captioner.caption(batch)]
                assert texts == [expected.text] * 2


def test_format_of_the_extra_is_captioned(tiny_captioner, paths, tmp_path):
    tiff = tmp_path / "photo"
    Image.open(paths[0]).save(tiff, "TIFF")
    pixels = np.asarray(Image.open(paths[0]))
    expected = tiny_captioner.caption(pixels)
    assert tiny_captioner.caption(tiff) == expected
    ((read, errors),) = decode_images([tiff], tiny_captioner.graph.pixel_reader)
    assert errors == [""]
    assert tiny_captioner.caption(read[0]) == expected


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.full((4, 4, 3), 1.5), r"float64 \(4, 4, 3\) from 1.5 to 1.5"),
        (np.linspace(-1, 1, 48).reshape(4, 4, 3), r".* from -1 to 1\."),
        (np.linspace(0, 256, 48).reshape(4, 4, 3), r".* from 0 to 256\."),
        (np.full((4, 4), np.nan), r".* from nan to nan\."),
        (np.zeros((4, 4, 3), np.uint16), r"uint16 \(4, 4, 3\)\."),
        (np.zeros((4, 4, 5), np.uint8), r"uint8 \(4, 4, 5\)"),
        (np.zeros((3, 20, 20), np.uint8), r"uint8 \(3, 20, 20\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
        ([["a.jpg"]], "memoryview: a bytes-like object is required"),
    ],
)
def test_other_images_are_refused(tiny_captioner, image, found):
    with pytest.raises(InputError, match=rf"images\[0\]: .*found:? {found}"):
        tiny_captioner.caption(image)


def test_bad_image_costs_its_own_caption_alone(
    tiny_captioner, paths, tmp_path, caplog
):
    absent = tmp_path / "caf\udce9.jpg"
    images = [paths[0], absent, b"no image", paths[1], paths[2]]
    good = [0, 3, 4]
    for options in (
        *({}, {"batch_size": 2}, {"num_captions": 2}),
        *({"template": "a [MASK]"}, {"temperature": 0.7}),
    ):
        caplog.clear()
        found = tiny_captioner.caption(images, on_error="skip", **options)
        assert [i for i, each in enumerate(found) if each] == good
        assert found[1:3] == [None, None]
        (message,) = caplog.messages
        assert message.startswith("2 of 5 photos cannot be read: ")
        assert f"{absent}: expected an image" in message
        assert "images[2]: not a decodable image" in message
        if not options:
            expected = tiny_captioner.caption([images[i] for i in good])
            assert [found[i].text for i in good] == [c.text for c in expected]
    assert tiny_captioner.caption(b"no image", on_error="skip") is None
    for on_error in ("raise", "Skip"):
        with pytest.raises(InputError, match=r"jpg: expected an image"):
            tiny_captioner.caption(images, on_error=on_error)


# === Captions ===


@pytest.mark.parametrize(
    ("options", "at_once"),
    [
        ({}, 32),
        ({"mbr_samples": 54}, 4),
        ({"mbr_samples": 1000}, 1),
    ],
)
def test_the_more_candidates_the_fewer_images_at_once(
    tiny_captioner, monkeypatch, options, at_once
):
    captioner = Captioner(
        tiny_captioner.model,
        tiny_captioner.tokenizer,
        settings=tiny_captioner.settings.replace(**options),
    )
    asked = []
    monkeypatch.setattr(
        ImageReader,
        "read_batches",
        lambda self, images, batch_size, bad: asked.append(batch_size) or (),
    )
    captioner.caption([])
    assert asked == [at_once]


def test_batch_size_does_not_change_captions(tiny_captioner, paths):
    one_by_one = tiny_captioner.caption(paths, batch_size=1)
    together = tiny_captioner.caption(paths, batch_size=5)
    assert [c.text for c in one_by_one] == [c.text for c in together]


def test_caption_tells_tokens_and_their_scores(tiny_captioner, paths):
    caption = tiny_captioner.caption(paths[0])
    assert len(caption.tokens) == len(caption.token_scores) > 0
    assert caption.text == "".join(caption.tokens).replace("▁", " ").strip()
    assert caption.score == pytest.approx(np.mean(caption.token_scores))
    assert max(caption.token_scores) <= 0
    length = tiny_captioner.settings.text.sequence_length
    assert len(caption.token_ids) == length


@pytest.mark.parametrize("kind", ["tiny_captioner", "frozen_tower_captioner"])
def test_features_and_images_give_the_same(kind, request, paths):
    captioner = request.getfixturevalue(kind)
    features = captioner.read_features(paths, batch_size=3)
    texts = [each.text for each in captioner.caption(features)]
    assert texts == [each.text for each in captioner.caption(paths)]
    assert texts[0] == captioner.caption(features[0]).text
    filled = captioner.fill_mask(features[:2], "a red … [MASK]")
    assert [each.text for each in filled] == [
        each.text for each in captioner.fill_mask(paths[:2], "a red … [MASK]")
    ]
    expected = [each.mean for each in captioner.score(paths, texts)]
    scores = [each.mean for each in captioner.score(features, texts)]
    assert scores == pytest.approx(expected, rel=1e-2)
    scores = captioner.score_features(features, texts)
    assert scores == pytest.approx(expected, rel=1e-2)


def test_length_counts_choose_the_lengths_without_a_length_head(
    frozen_tower_captioner, paths
):
    captions = frozen_tower_captioner.caption(paths)
    # The fixture's training captions have 3 or 4 tokens most often.
    assert {len(caption.tokens) for caption in captions} <= {3, 4}


def test_repr_names_the_parts(tiny_captioner, frozen_tower_captioner):
    shown = repr(tiny_captioner)
    for part in (
        "image_tower=SmallCNN, 16x16 pixels to (",
        "text_tower=AlbertBackbone",
        "fusion=CrossAttentionFusion",
        f"vocabulary_size={tiny_captioner.tokenizer.vocabulary_size}",
        "sequence_length=18",
        "passes=3",
    ):
        assert part in shown
    assert "fusion=BimodalFusion" in repr(frozen_tower_captioner)


# === Folders ===


@pytest.mark.parametrize("kind", ["tiny_captioner", "frozen_tower_captioner"])
def test_saved_captioner_captions_identically(kind, request, tmp_path, paths):
    captioner = request.getfixturevalue(kind)
    captioner.save_to_preset(tmp_path / "captioner")
    again = Captioner.from_preset(tmp_path / "captioner")
    assert again.caption(paths) == captioner.caption(paths)


def test_decoding_may_be_another_than_saved(tiny_captioner, tmp_path):
    folder = tmp_path / "captioner"
    tiny_captioner.save_to_preset(folder)
    saved = tiny_captioner.settings.decoding
    again = Captioner.from_preset(folder, passes=7, mbr_samples=2, order=None)
    assert again.settings.decoding == dataclasses.replace(
        saved, passes=7, mbr_samples=2
    )
    assert again.settings.image == tiny_captioner.settings.image
    with pytest.raises(InputError, match=r"passes, .*Received: image_height"):
        Captioner.from_preset(folder, image_height=8)
    with pytest.raises(InputError, match="`passes` must be at least 1"):
        Captioner.from_preset(folder, passes=0)


def test_captioner_comes_from_the_hub(tiny_captioner, tmp_path, monkeypatch):
    tiny_captioner.save_to_preset(tmp_path / "captioner")
    asked = []

    def download(repo, *, revision, allow_patterns):
        asked.append((repo, revision, allow_patterns))
        if revision == "absent":
            raise OSError("no such revision")
        return str(tmp_path / "captioner")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    captioner = Captioner.from_preset("hf://me/mine@v1", passes=2)
    assert captioner.settings.decoding.passes == 2
    ((repo, revision, files),) = asked
    assert (repo, revision) == ("me/mine", "v1")
    assert set(os.listdir(tmp_path / "captioner")) <= set(files)
    with pytest.raises(InputError, match=r"cannot be downloaded.*no such rev"):
        Captioner.from_preset("hf://me/mine@absent")
    with pytest.raises(InputError, match="hf://organisation/name"):
        Captioner.from_preset("hf://")


def test_folder_without_a_captioner_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a captioner's folder"):
        Captioner.from_preset(tmp_path)


def test_broken_model_file_is_named(tiny_captioner, tmp_path):
    tiny_captioner.save_to_preset(tmp_path / "captioner")
    (tmp_path / "captioner" / "model.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"model\.keras: expected a saved"):
        Captioner.from_preset(tmp_path / "captioner")


def test_save_replaces_a_captioner_but_no_other_folder(
    tiny_captioner, tmp_path
):
    tiny_captioner.save_to_preset(tmp_path / "captioner")
    tiny_captioner.save_to_preset(tmp_path / "captioner")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="found something else"):
        tiny_captioner.save_to_preset(tmp_path / "photos")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["captioner", "photos"]


# === Parts ===


def test_frozen_tower_must_be_given(frozen_tower_captioner):
    captioner = frozen_tower_captioner
    with pytest.raises(ValueError, match="`image_tower` must be given"):
        Captioner(
            captioner.model, captioner.tokenizer, settings=captioner.settings
        )


def test_lengths_must_come_from_a_head_or_from_counts(frozen_tower_captioner):
    captioner = frozen_tower_captioner
    with pytest.raises(ValueError, match="`length_counts` must be given"):
        Captioner(
            captioner.model,
            captioner.tokenizer,
            settings=captioner.settings,
            image_tower=captioner.image_tower,
        )


def test_captioner_imports_neither_evaluation_nor_training():
    code = (
        "import sys, bmt_keras.captioner, bmt_keras.captioner.files\n"
        "parts = ('evaluation', 'training', 'commands')\n"
        "print([name for name in sys.modules for part in parts"
        " if name.startswith(f'bmt_keras.{part}')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
