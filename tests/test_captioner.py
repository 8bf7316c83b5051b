import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.captioner.photos import photos_at_once
from bmt_keras.errors import InputError


@pytest.fixture
def paths(sample_photos):
    return [photo.path for photo in sample_photos[1]]


@pytest.mark.parametrize(
    "kind",
    ["tiny_captioner", "frozen_tower_captioner"],
)
def test_saved_captioner_captions_identically(kind, request, tmp_path, paths):
    captioner = request.getfixturevalue(kind)
    captioner.save(tmp_path / "captioner")
    again = Captioner.load(tmp_path / "captioner")
    assert again.caption(paths) == captioner.caption(paths)


def test_paths_bytes_and_arrays_give_the_same_captions(tiny_captioner, paths):
    as_bytes = [path.read_bytes() for path in paths]
    as_arrays = [
        tf.io.decode_jpeg(one, dct_method="INTEGER_ACCURATE").numpy()
        for one in as_bytes
    ]
    expected = tiny_captioner.caption(paths)
    assert tiny_captioner.caption(as_bytes) == expected
    assert tiny_captioner.caption(as_arrays) == expected


@pytest.mark.parametrize(
    ("rows", "photos"), [(1, 32), (8, 32), (56, 4), (1000, 1)]
)
def test_the_more_captions_of_a_photo_the_fewer_photos_at_once(rows, photos):
    assert photos_at_once(32, rows) == photos


def test_batch_size_does_not_change_captions(tiny_captioner, paths):
    one_by_one = tiny_captioner.caption(paths, batch_size=1)
    together = tiny_captioner.caption(paths, batch_size=5)
    assert [c.text for c in one_by_one] == [c.text for c in together]


def test_caption_tells_tokens_and_their_scores(tiny_captioner, paths):
    (caption,) = tiny_captioner.caption(paths[:1])
    assert len(caption.tokens) == len(caption.token_scores) > 0
    assert caption.text == "".join(caption.tokens).replace("▁", " ").strip()
    assert caption.score == pytest.approx(np.mean(caption.token_scores))
    assert max(caption.token_scores) <= 0
    assert (
        len(caption.token_ids) == tiny_captioner.settings.text.sequence_length
    )


def test_features_and_photos_give_the_same_captions(tiny_captioner, paths):
    encoded = tf.constant([path.read_bytes() for path in paths])
    pixels, _ = tiny_captioner.graph.read_pixels(encoded)
    texts = [c.text for c in tiny_captioner.caption_features(pixels.numpy())]
    assert texts == [c.text for c in tiny_captioner.caption(paths)]


def test_length_counts_choose_the_lengths_without_a_length_head(
    frozen_tower_captioner, paths
):
    captions = frozen_tower_captioner.caption(paths)
    # The fixture's training captions have 3 or 4 tokens most often.
    assert {len(caption.tokens) for caption in captions} <= {3, 4}


def test_no_photos_give_no_captions(tiny_captioner):
    assert tiny_captioner.caption([]) == []


def test_broken_photo_is_named(tiny_captioner, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"broken\.jpg: not a decodable image"):
        tiny_captioner.caption([path])
    with pytest.raises(InputError, match=r"images\[1\]: not a decodable"):
        tiny_captioner.caption(
            [np.zeros((4, 4, 3), np.uint8), b"neither is this"]
        )
    with pytest.raises(InputError, match=r"absent\.jpg: expected a photo"):
        tiny_captioner.caption([tmp_path / "absent.jpg"])


def test_float_array_is_refused(tiny_captioner):
    with pytest.raises(InputError, match=r"uint8 .*found float64"):
        tiny_captioner.caption([np.zeros((4, 4, 3))])


def test_folder_without_a_captioner_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a captioner's folder"):
        Captioner.load(tmp_path)


def test_broken_model_file_is_named(tiny_captioner, tmp_path):
    tiny_captioner.save(tmp_path / "captioner")
    (tmp_path / "captioner" / "model.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"model\.keras: expected a saved"):
        Captioner.load(tmp_path / "captioner")


def test_save_replaces_a_captioner_but_no_other_folder(
    tiny_captioner, tmp_path
):
    tiny_captioner.save(tmp_path / "captioner")
    tiny_captioner.save(tmp_path / "captioner")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="found something else"):
        tiny_captioner.save(tmp_path / "photos")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "captioner",
        "photos",
    ]


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
