"""The client turns photos into captions and failures into sentences."""

import socket

import pytest
import tensorflow as tf

from bmt_keras.serving.client import CaptionClient, CaptionResult
from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer


@pytest.fixture
def client(captioner_server):
    with CaptionClient(f"127.0.0.1:{captioner_server.port}") as client:
        yield client


def test_bytes_and_paths_are_captioned_in_order(client, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"12345")
    results = client.caption([b"123", photo, str(photo)])
    assert results[0] == CaptionResult(
        caption="a photo of 3 bytes",
        score=-0.5,
        token_scores=(-0.5, 0.0),
        token_ids=(3, 0),
        error="",
    )
    assert results[1].caption == "a photo of 5 bytes"
    assert results[2] == results[1]


def test_bad_photo_leaves_the_others_alone(client):
    bad, good = client.caption([b"BAD", b"good"])
    assert (bad.caption, bad.error) == ("", "Unknown image file format")
    assert (good.caption, good.error) == ("a photo of 4 bytes", "")


def test_photo_may_end_in_zero_bytes(client):
    (result,) = client.caption([b"12\0"])
    assert result.caption == "a photo of 3 bytes"


def test_no_photos_give_no_results(client):
    assert client.caption([]) == []


def test_missing_file_is_the_error_of_its_row(client, tmp_path):
    bad, good = client.caption([tmp_path / "nowhere.jpg", b"123"])
    assert bad.caption == ""
    assert "nowhere.jpg: No such file" in bad.error
    assert good.caption == "a photo of 3 bytes"


def test_unreachable_server_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        CaptionClient(f"127.0.0.1:{port}") as client,
        pytest.raises(
            ServingError, match=rf"No server answers at 127.0.0.1:{port}; "
        ),
    ):
        client.caption([b"photo"])


def test_waiting_ends_when_the_server_is_there(captioner_server):
    with CaptionClient(f"127.0.0.1:{captioner_server.port}") as client:
        client.wait_until_reachable(30.0)
        assert client.caption([b"123"])[0].caption == "a photo of 3 bytes"


def test_waiting_in_vain_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        CaptionClient(f"127.0.0.1:{port}") as client,
        pytest.raises(ServingError, match=rf"at 127.0.0.1:{port} after 0.2 s"),
    ):
        client.wait_until_reachable(0.2)


def test_silent_server_runs_into_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            CaptionClient(target, timeout_s=0.2) as client,
            pytest.raises(ServingError, match=r"no answer within 0\.2 s"),
        ):
            client.caption([b"photo"])


def test_refusal_tells_code_and_details(captioner_server):
    target = f"127.0.0.1:{captioner_server.port}"
    with (
        CaptionClient(target, model_name="m") as client,
        pytest.raises(
            ServingError, match=r"NOT_FOUND: Servable not found .*Latest\(m\)"
        ),
    ):
        client.caption([b"photo"])


def test_photo_over_the_limit_is_the_error_of_its_row(captioner_server):
    target = f"127.0.0.1:{captioner_server.port}"
    with CaptionClient(target, max_message_mb=1) as client:
        bad, good = client.caption([b"p" * 2**21, b"123"])
    assert bad.error.startswith("A photo must have at most 1048")
    assert "Received: 2097152 bytes; raise `max_message_mb`" in bad.error
    assert good.caption == "a photo of 3 bytes"


def test_model_without_the_agreed_outputs_is_told(tmp_path):
    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    def caption(image_bytes):
        return {"caption": image_bytes, "score": tf.zeros(1)}

    model = tf.Module()
    model.caption = caption
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=caption)
    with (
        EmbeddedServer(tmp_path, "half", port=0) as server,
        CaptionClient(f"127.0.0.1:{server.port}", model_name="half") as client,
        pytest.raises(ServingError, match="lacks token_scores, token_ids, er"),
    ):
        client.caption([b"photo"])
