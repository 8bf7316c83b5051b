"""Streams: in order, a bounded number of requests, nothing left behind."""

import asyncio
import threading

import grpc
import pytest
from PIL import Image

from bmt_keras.errors import InputError
from bmt_keras.image_files import read_image
from bmt_keras.serving.client import AsyncCaptionClient, CaptionClient
from bmt_keras.serving.errors import ServingError

PATIENCE = 20.0  # seconds that no good run needs


def sizes(found):
    return [int(result.caption.split()[3]) for _, result in found]


def test_folder_is_streamed_in_the_order_of_names(ask, captions, tmp_path):
    (tmp_path / "sub").mkdir()
    for name, content in {
        "b.jpg": b"12",
        "a.PNG": b"1",
        "sub/c.webp": b"123",
        "broken.jpeg": b"BAD",
        "notes.txt": b"no photo",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = ask(captions, "stream", tmp_path, images_per_request=2)
    assert [(path.name, result.caption) for path, result in found] == [
        ("a.PNG", "a photo of 1 bytes"),
        ("b.jpg", "a photo of 2 bytes"),
        ("broken.jpeg", ""),
        ("c.webp", "a photo of 3 bytes"),
    ]
    assert found[2][1].error == "not a photo; received 3 bytes"
    assert ask(captions, "stream", str(tmp_path)) == found


def test_photo_that_the_server_cannot_decode_is_converted(
    ask, captions, tmp_path
):
    Image.new("RGB", (9, 9)).save(tmp_path / "scan.tif")
    png, _ = read_image(tmp_path / "scan.tif")
    ((_, result),) = ask(captions, "stream", tmp_path)
    assert result.caption == f"a photo of {len(png)} bytes"


def test_folder_without_photos_is_told(ask, tmp_path):
    with pytest.raises(InputError, match=r"expected images .*found none"):
        ask("127.0.0.1:9", "stream", tmp_path)


def test_requests_on_their_way_are_as_many_as_asked(
    ask, serve_answers, answer_captions
):
    together = threading.Barrier(3)
    lock = threading.Lock()
    running, most = 0, 0

    def answer(request, context):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE)  # fails unless three are on their way
        response = answer_captions(request)
        with lock:
            running -= 1
        return response

    photos = [b"x" * size for size in range(1, 19)]
    options = {"concurrency": 3, "images_per_request": 2}
    found = ask(serve_answers(answer), "stream", iter(photos), **options)
    assert most == 3
    assert [photo for photo, _ in found] == photos
    assert sizes(found) == list(range(1, 19))


def test_photos_are_taken_as_their_turn_comes(captions):
    taken = 0

    def photos():
        nonlocal taken
        for size in range(1, 1000):
            taken += 1
            yield b"x" * size

    with CaptionClient(captions) as client:
        stream = client.stream(photos(), concurrency=2, images_per_request=3)
        for done, (photo, result) in zip(range(1, 31), stream, strict=False):
            assert result.caption == f"a photo of {len(photo)} bytes"
            assert taken <= done + 2 * 3
        stream.close()


def test_slow_request_is_the_error_of_its_photos(
    ask, serve_answers, answer_captions
):
    ended = threading.Event()

    def answer(request, context):
        if b"slow" in request.inputs["image_bytes"].string_val:
            ended.wait(PATIENCE)
        return answer_captions(request)

    target = serve_answers(answer)
    photos = [b"1", b"slow", b"123"]
    quick = {"timeout_s": 0.5}
    found = ask(target, "stream", photos, images_per_request=1, client=quick)
    with pytest.raises(ServingError, match=r"within 0\.5 s"):
        ask(target, "caption", photos, client=quick)
    quick["raise_errors"] = True
    with pytest.raises(ServingError, match=r"image of 4 bytes: .* 0\.5 s"):
        ask(target, "stream", photos, images_per_request=1, client=quick)
    ended.set()
    assert "no answer within 0.5 s" in found[1][1].error
    assert [found[0][1].error, found[2][1].error] == ["", ""]


def test_refusal_ends_the_stream(ask, captions):
    match = r"NOT_FOUND: Servable not found .*Latest\(other\)"
    with pytest.raises(ServingError, match=match):
        ask(captions, "stream", [b"1"] * 9, client={"model_name": "other"})


def test_call_that_the_server_gives_up_is_told(ask, serve_answers):
    def answer(request, context):
        context.abort(grpc.StatusCode.CANCELLED, "given up")

    with pytest.raises(ServingError, match="CANCELLED: given up"):
        once = {"max_attempts": 1}
        ask(serve_answers(answer), "stream", [b"1"], client=once)


@pytest.fixture
def stalling(serve_answers, answer_captions):
    """A server that answers the first photo, and tells of cancelled calls."""
    cancelled = threading.Semaphore(0)
    arrived = threading.Semaphore(0)

    def answer(request, context):
        if request.inputs["image_bytes"].string_val[0] == b"first":
            # A request that never came would tell of nothing.
            for _ in range(2):
                arrived.acquire(timeout=PATIENCE)
        else:
            arrived.release()
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(PATIENCE)
            cancelled.release()
        return answer_captions(request)

    return serve_answers(answer), cancelled


def test_stream_that_is_left_cancels_its_requests(stalling):
    target, cancelled = stalling
    with CaptionClient(target) as client:
        for _, result in client.stream(
            [b"first", *[b"next"] * 9], concurrency=3, images_per_request=1
        ):
            assert result.caption == "a photo of 5 bytes"
            break
        # The generator is gone, and its two other requests with it.
        assert cancelled.acquire(timeout=PATIENCE)
        assert cancelled.acquire(timeout=PATIENCE)


def test_task_that_is_cancelled_cancels_its_requests(stalling):
    target, cancelled = stalling

    async def run():
        first = asyncio.Event()

        async def consume(client):
            photos = [b"first", *[b"next"] * 9]
            async for _ in client.stream(
                photos, concurrency=3, images_per_request=1
            ):
                first.set()

        async with AsyncCaptionClient(target) as client:
            task = asyncio.create_task(consume(client))
            await asyncio.wait_for(first.wait(), PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(2):
                assert await asyncio.to_thread(
                    cancelled.acquire, timeout=PATIENCE
                )

    asyncio.run(run())
