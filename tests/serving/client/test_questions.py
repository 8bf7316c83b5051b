"""Both clients ask every signature, and tell what is wrong with a row."""

import asyncio

import pytest
import tensorflow as tf

from bmt_keras.serving.client import (
    AsyncCaptionClient,
    Candidate,
    CaptionClient,
    CaptionResult,
    FilledText,
    TextScore,
)
from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer

PHOTOS = tf.TensorSpec([None], tf.string, name="image_bytes")
TEXTS = tf.TensorSpec([None], tf.string, name="text")
LENGTHS = tf.TensorSpec([None], tf.int32, name="length")


class Interrogated(tf.Module):
    """Answers from its inputs, so that a mix-up of rows or names shows."""

    @tf.function(input_signature=[PHOTOS, LENGTHS])
    def caption_with_length(self, image_bytes, length):
        score = tf.cast(length, tf.float32)
        return {
            "caption": image_bytes + ":" + tf.strings.as_string(length),
            "score": score,
            "token_scores": score[:, None],
            "token_ids": length[:, None],
            "error": tf.zeros_like(image_bytes),
        }

    @tf.function(input_signature=[PHOTOS, TEXTS])
    def fill_mask(self, image_bytes, text):
        count = tf.size(text)
        # Two masks, two candidates; the second mask is padding.
        words = tf.constant([[["dog", "cat"], ["", ""]]])
        chances = tf.constant([[[0.75, 0.25], [0.0, 0.0]]])
        return {
            "text": image_bytes + ":" + text,
            "candidates": tf.repeat(words, count, axis=0),
            "candidate_probabilities": tf.repeat(chances, count, axis=0),
            "error": tf.where(text == "", "no text", ""),
        }

    @tf.function(input_signature=[PHOTOS, TEXTS])
    def score_caption(self, image_bytes, text):
        size = tf.cast(tf.strings.length(text), tf.float32)
        return {
            "score": -size,
            "total_score": -2.0 * size,
            "error": tf.zeros_like(image_bytes),
        }


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    base = tmp_path_factory.mktemp("interrogated")
    model = Interrogated()
    names = ["caption_with_length", "fill_mask", "score_caption"]
    tf.saved_model.save(
        model,
        str(base / "5"),
        signatures={name: getattr(model, name) for name in names},
    )
    with EmbeddedServer(base, port=0) as server:
        yield f"127.0.0.1:{server.port}"


# === Signatures ===


def test_photos_are_captioned_in_order(ask, captions, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"12345")
    nowhere = tmp_path / "nowhere.jpg"
    photos = [b"123", photo, b"BAD", nowhere, str(photo), "no\0name", tmp_path]
    found = ask(captions, "caption", photos)
    assert found[0] == CaptionResult(
        "a photo of 3 bytes", -0.5, (-0.5, 0.0), (3, 0), ""
    )
    assert found[1].caption == "a photo of 5 bytes"
    assert found[2].error == "not a photo; received 3 bytes"
    assert found[3].error == (
        f"{photos[3]}: expected an image, found: No such file or directory"
    )
    assert found[2].caption == found[3].caption == ""
    assert found[4] == found[1]
    assert found[5].error.endswith("found: embedded null byte")
    assert found[6].error.endswith("found: Is a directory")


def test_one_photo_may_end_in_zero_bytes(ask, captions):
    result = ask(captions, "caption_one", b"12\0")
    assert (result.caption, result.token_ids) == ("a photo of 3 bytes", (3, 0))


def test_one_length_is_asked_for_all_photos(ask, target):
    found = ask(target, "caption", [b"a", b"b"], length=9)
    assert [each.caption for each in found] == ["a:9", "b:9"]
    assert ask(target, "caption_one", b"a", length=0).caption == "a:0"


def test_each_photo_may_have_its_length(ask, target, tmp_path):
    nowhere = tmp_path / "nowhere.jpg"
    found = ask(target, "caption", [b"a", nowhere, b"c"], length=[5, 6, 0])
    assert [each.caption for each in found] == ["a:5", "", "c:0"]
    assert found[2].token_ids == (0,)


def test_masks_are_filled_without_padding(ask, target):
    first, second = ask(target, "fill_mask", [b"a", b"b"], ["ä [MASK]", ""])
    dog, cat = Candidate("dog", 0.75), Candidate("cat", 0.25)
    assert first == FilledText("a:ä [MASK]", ((dog, cat),), "")
    assert second.error == "no text"


def test_texts_are_scored(ask, target):
    found = ask(target, "score", [b"a", b"a"], ["abc", "a"])
    assert found == [TextScore(-3.0, -6.0, ""), TextScore(-1.0, -2.0, "")]


def test_no_photos_ask_nothing(ask, target):
    assert ask(target, "caption", []) == []
    assert ask(target, "fill_mask", [], []) == []
    assert ask(target, "stream", []) == []


# === Versions ===


@pytest.mark.parametrize(
    ("client", "match"),
    [
        ({"version": 6}, r"NOT_FOUND: .*Specific\(bmt, 6\)"),
        ({"label": "canary"}, "version label: canary"),
    ],
)
def test_version_or_label_is_asked(ask, target, client, match):
    found = ask(target, "score", [b"a"], ["a"], client={"version": 5})
    assert found[0].score == -1.0
    with pytest.raises(ServingError, match=match):
        ask(target, "score", [b"a"], ["a"], client=client)


# === Errors of rows ===


def test_errors_are_raised_when_asked(ask, captions, tmp_path):
    strict = {"raise_errors": True}
    with pytest.raises(ServingError, match="image of 3 bytes: not a photo"):
        ask(captions, "caption", [b"1", b"BAD"], client=strict)
    nowhere = tmp_path / "nowhere.jpg"
    with pytest.raises(
        ServingError, match=r"^.*nowhere\.jpg: expected an image"
    ):
        ask(captions, "caption_one", nowhere, client=strict)


def test_server_is_not_asked_when_no_photo_can_be_read(ask, tmp_path):
    found = ask("127.0.0.1:9", "caption_one", tmp_path / "nowhere.jpg")
    assert "No such file" in found.error


def test_photos_over_a_message_go_in_several(ask, captions):
    photos = [b"x" * 600_000, b"x" * 500_000, b"x" * 400_000, b"12"]
    found = ask(captions, "caption", photos, client={"max_message_mb": 1})
    assert [each.caption for each in found] == [
        f"a photo of {len(photo)} bytes" for photo in photos
    ]


def test_photo_of_just_the_limit_passes(ask, captions, tmp_path):
    one = {"max_message_mb": 1}
    path = tmp_path / "large.jpg"
    path.write_bytes(b"x" * 2**20)
    found = ask(captions, "caption", [path, b"x" * 2**20, b"12"], client=one)
    assert found[0].error.startswith(f"{path}: expected at most 1048")
    assert found[0].error.endswith(
        "found 1048576; send a smaller image, or raise `max_message_mb` here "
        "and at the server."
    )
    assert found[1].error.startswith("image of 1048576 bytes: expected at most")
    assert found[2].caption == "a photo of 2 bytes"
    limit = int(found[0].error.split("at most ")[1].split(" bytes")[0])
    fits = ask(captions, "caption_one", b"x" * limit, client=one)
    assert fits.caption == f"a photo of {limit} bytes"
    assert ask(captions, "caption_one", b"x" * (limit + 1), client=one).error


# === Arguments ===


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"timeout_s": 0}, r"`timeout_s` must be positive. Received: 0"),
        ({"max_message_mb": 0}, "`max_message_mb` must be positive"),
        ({"backoff_s": -1}, "`backoff_s` must be positive"),
        ({"keepalive_s": 0}, "`keepalive_s` must be positive"),
        ({"max_attempts": 0}, "`max_attempts` must be positive"),
        ({"version": 1, "label": "a"}, "version=1, label='a'"),
    ],
)
def test_bad_options_are_named(ask, options, match):
    with pytest.raises(ValueError, match=match):
        ask("127.0.0.1:9", "caption", [], client=options)


@pytest.mark.parametrize(
    ("method", "arguments", "options", "match"),
    [
        ("caption", ["a.jpg"], {}, "sequence of images. Received: str"),
        ("caption", [b"a"], {}, "`caption_one` takes a single image"),
        ("caption", [[b"a"]], {"length": -1}, "`length` .* Received: -1"),
        ("caption", [[b"a"]], {"length": 2**31}, "Received: .*2147483648"),
        ("caption", [[b"a"]], {"length": [1, 2]}, "2 values, 1 images"),
        ("fill_mask", [[b"a"], "text"], {}, "`texts` must be a sequence"),
        ("fill_mask", ["a.jpg", ["text"]], {}, "of images. Received: str"),
        ("score", [[b"a"], []], {}, "`texts` .* 0 values, 1 images"),
        ("stream", [[b"a"]], {"concurrency": 0}, "`concurrency` must be"),
        ("stream", [[b"a"]], {"images_per_request": 0}, "`images_per_request`"),
        ("stream", [[b"a"]], {"length": -2}, "Received: -2"),
    ],
)
def test_bad_arguments_are_named(ask, method, arguments, options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        ask("127.0.0.1:9", method, *arguments, **options)


def test_asynchronous_client_needs_a_running_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncCaptionClient("127.0.0.1:9")


def test_many_questions_share_a_connection(captions):
    async def run():
        async with AsyncCaptionClient(captions) as client:
            asked = (client.caption_one(b"x" * size) for size in range(1, 20))
            return await asyncio.gather(*asked)

    found = asyncio.run(run())
    assert [each.token_ids[0] for each in found] == list(range(1, 20))


def test_client_is_closed_by_its_block(captions):
    with CaptionClient(captions) as client:
        pass
    with pytest.raises(ValueError, match="Channel closed"):
        client.caption([b"1"])
