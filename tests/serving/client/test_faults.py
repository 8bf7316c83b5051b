"""Retries, deadlines, TLS and keep-alive, against servers that misbehave."""

import socket
import threading
from collections import Counter

import grpc
import pytest

from bmt_keras.serving.client import CaptionClient, Tls
from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer

PATIENCE = 20.0  # seconds that no good run needs
QUICK = {"backoff_s": 0.01}


@pytest.fixture
def fail_first(serve_answers, answer_captions):
    """Serves captions once some calls have failed; counts the calls."""

    def serve(times, code=grpc.StatusCode.UNAVAILABLE):
        calls = Counter()

        def answer(request, context):
            calls["all"] += 1
            if calls["all"] <= times:
                context.abort(code, "the queue is full")
            return answer_captions(request)

        return serve_answers(answer), calls

    return serve


# === Retries ===


@pytest.mark.parametrize("method", ["caption", "stream"])
def test_unavailable_server_is_asked_again(ask, fail_first, method):
    target, calls = fail_first(2)
    # More than gRPC keeps for another attempt by default.
    photo = b"x" * 2_000_000
    (found,) = ask(target, method, [photo], client=QUICK)
    result = found[1] if method == "stream" else found
    assert result.caption == "a photo of 2000000 bytes"
    assert calls["all"] == 3


def test_attempts_are_as_many_as_asked(ask, fail_first):
    for most in (1, 2, 7):
        target, calls = fail_first(9)
        with pytest.raises(ServingError, match="the queue is full"):
            client = QUICK | {"max_attempts": most}
            ask(target, "caption", [b"1"], client=client)
        assert calls["all"] == most


@pytest.mark.parametrize("code", ["INTERNAL", "INVALID_ARGUMENT", "ABORTED"])
def test_other_failures_are_final(ask, fail_first, code):
    target, calls = fail_first(1, grpc.StatusCode[code])
    with pytest.raises(ServingError, match=f"{code}: the queue is full"):
        ask(target, "caption", [b"1"], client=QUICK)
    assert calls["all"] == 1


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "CANCELLED"])
def test_full_server_is_asked_again(ask, fail_first, code):
    target, calls = fail_first(2, grpc.StatusCode[code])
    assert ask(target, "caption_one", b"1", client=QUICK).caption
    assert calls["all"] == 3


def test_server_that_is_full_for_a_photo_does_not_end_a_stream(ask, fail_first):
    target, calls = fail_first(1, grpc.StatusCode.RESOURCE_EXHAUSTED)
    (_, bad), (_, good) = ask(
        target,
        "stream",
        [b"1", b"2"],
        images_per_request=1,
        concurrency=1,
        client={"max_attempts": 1},
    )
    assert "RESOURCE_EXHAUSTED: the queue is full" in bad.error
    assert good.caption == "a photo of 1 bytes"
    assert calls["all"] == 2


def test_server_that_is_away_costs_no_photo(
    ask, serve_answers, answer_captions, caplog
):
    target = serve_answers(answer_captions)

    def photos():
        for size in range(1, 13):
            if size == 4:
                serve_answers.stop()
                again = (answer_captions, None, target)
                threading.Timer(3.0, serve_answers, again).start()
            yield b"x" * size

    options = {"images_per_request": 1, "concurrency": 3}
    found = ask(target, "stream", photos(), **options)
    assert [result.caption for _, result in found] == [
        f"a photo of {size} bytes" for size in range(1, 13)
    ]
    assert f"No server answers at {target}" in caplog.text
    assert "Trying again for 5" in caplog.text


def test_deadline_holds_for_all_attempts_together(ask, fail_first):
    target, calls = fail_first(999)
    client = {"backoff_s": 60.0, "timeout_s": 0.5}
    with pytest.raises(ServingError, match=r"queue is full|no answer within"):
        ask(target, "caption", [b"1"], client=client)
    assert 1 < calls["all"] < 5


def test_clients_of_other_deadlines_share_a_connection(fail_first):
    target, _ = fail_first(9)
    with CaptionClient(target, backoff_s=60.0) as client:
        with pytest.raises(
            ServingError, match=r"queue is full|no answer within"
        ):
            client.with_timeout(0.3).caption_one(b"1")
        with pytest.raises(ValueError, match="`seconds` must be positive"):
            client.with_timeout(0)


@pytest.mark.parametrize("method", ["caption", "stream"])
def test_photo_over_the_servers_limit_fails_alone(ask, captioner_path, method):
    photos = [b"x" * size for size in (9, 700_000, 2_000_000, 8, 7, 500_000)]
    with EmbeddedServer(
        captioner_path, port=0, max_message_bytes=2**20
    ) as server:
        target = f"127.0.0.1:{server.port}"
        found = ask(target, method, photos)
        alone = ask(target, method, photos[2:3])
    results = [x[1] if method == "stream" else x for x in (*found, *alone)]
    for photo, result in zip([*photos, photos[2]], results, strict=True):
        if len(photo) > 2**20:
            assert "RESOURCE_EXHAUSTED" in result.error
            assert "larger than max" in result.error
        else:
            assert result.caption == f"a photo of {len(photo)} bytes"


def resize(output, size):
    return lambda outputs: setattr(
        outputs[output].tensor_shape.dim[0], "size", size
    )


UNREADABLE = "The output score of model bmt .* cannot be read"


@pytest.mark.parametrize(
    ("count", "spoil", "match"),
    [
        (
            1,
            lambda outputs: outputs["error"].tensor_shape.ClearField("dim"),
            r"error of model bmt .* row per image. .* shape \(\), 1 images",
        ),
        (2, resize("score", 3), UNREADABLE),
        (2, resize("caption", 3), r"shape \(3,\), 2 images"),
        (1, lambda outputs: setattr(outputs["score"], "dtype", 99), UNREADABLE),
        (
            1,
            lambda outputs: [outputs.pop(n) for n in ("token_scores", "error")],
            "lacks token_scores, error; serve a model written by `bmt export`",
        ),
    ],
    ids=["scalar", "other size", "more rows", "unknown dtype", "missing"],
)
def test_answers_of_another_form_are_refused(
    ask, serve_answers, answer_captions, count, spoil, match
):
    def answer(request, context):
        response = answer_captions(request)
        spoil(response.outputs)
        return response

    with pytest.raises(ServingError, match=match):
        ask(serve_answers(answer), "caption", [b"1"] * count)


# === Addresses ===


def test_addresses_take_turns_and_stand_in_for_each_other(
    ask, serve_answers, answer_captions, nowhere
):
    asked = Counter()

    def answer_as(name):
        def answer(request, context):
            asked[name] += 1
            return answer_captions(request)

        return answer

    targets = [serve_answers(answer_as(name)) for name in "ab"]
    both = f"ipv4:{','.join([*targets, nowhere])}"
    # The second server's connection may come after the first answers.
    for _ in range(50):
        found = ask(both, "stream", [b"1"] * 8, images_per_request=1)
        assert [result.error for _, result in found] == [""] * 8
        if len(asked) == 2:
            break
    assert set(asked) == {"a", "b"}


def test_waiting_ends_when_the_server_is_there(ask, fail_first):
    target, _ = fail_first(0)
    assert ask(target, "wait_until_reachable", PATIENCE) is None


@pytest.mark.parametrize(
    ("method", "argument", "match"),
    [
        ("wait_until_reachable", 0.2, "after 0.2 s"),
        ("caption", [b"1"], "; .*refused"),
    ],
)
def test_unreachable_server_is_told(ask, nowhere, method, argument, match):
    with pytest.raises(
        ServingError, match=f"No server answers at {nowhere}.*{match}"
    ):
        ask(nowhere, method, argument, client=QUICK | {"max_attempts": 2})


def test_silent_server_runs_into_the_deadline(ask):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServingError, match=r"no answer within 0\.2 s"):
            ask(target, "caption", [b"1"], client={"timeout_s": 0.2})


# === Keep-alive ===


@pytest.fixture
def cut_line():
    """A line to a server, on which nothing passes any more once it is cut."""
    cut = threading.Event()
    sockets = []

    def pump(source, sink):
        while data := source.recv(65536):
            if cut.is_set():
                return
            sink.sendall(data)

    def carry(listener, target):
        near, _ = listener.accept()
        host, port = target.split(":")
        far = socket.create_connection((host, int(port)))
        sockets.extend([near, far])
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=ends, daemon=True).start()

    def lay(target):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)
        ends = (listener, target)
        threading.Thread(target=carry, args=ends, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield lay, cut
    for each in sockets:
        each.close()


def test_keepalive_notices_a_dead_connection(
    ask, serve_answers, answer_captions, cut_line
):
    lay, cut = cut_line
    ended = threading.Event()

    def answer(request, context):
        cut.set()
        context.add_callback(ended.set)
        ended.wait(PATIENCE)
        return answer_captions(request)

    target = lay(serve_answers(answer))
    # Without it the call would end at its deadline, with another message.
    client = {"keepalive_s": 0.2, "max_attempts": 1, "timeout_s": PATIENCE}
    with pytest.raises(ServingError, match=r"No server .*ping timeout"):
        ask(target, "caption", [b"1"], client=client)
    ended.set()


# === TLS ===


@pytest.fixture
def serve_tls(serve_answers, answer_captions, certificates):
    def serve(mutual):
        key, chain, ca = (
            (certificates / name).read_bytes()
            for name in ("server.key", "server.pem", "ca.pem")
        )
        return serve_answers(
            answer_captions,
            grpc.ssl_server_credentials(
                [(key, chain)],
                root_certificates=ca if mutual else None,
                require_client_auth=mutual,
            ),
        )

    return serve


def test_tls_encrypts_towards_a_known_server(ask, serve_tls, certificates):
    target = serve_tls(mutual=False)
    tls = Tls(ca=certificates / "ca.pem", server_name="captions.test")
    (result,) = ask(target, "caption", [b"1"], client={"tls": tls})
    assert result.caption == "a photo of 1 bytes"


@pytest.mark.parametrize(
    ("tls", "match"),
    [
        (Tls(), "cannot be verified"),
        ({"ca": "stranger.pem"}, "cannot be verified"),
        ({"ca": "ca.pem", "server_name": "elsewhere.test"}, "another name"),
        ({"ca": "ca.pem", "server_name": None}, "another name"),
        ({"ca": "ca.key"}, "these PEM files"),
    ],
    ids=["public roots", "other ca", "other name", "no name", "no ca"],
)
@pytest.mark.parametrize("method", ["caption", "wait_until_reachable"])
def test_failure_of_tls_is_final_and_said(
    ask, serve_tls, certificates, tls, match, method
):
    if isinstance(tls, dict):
        tls = {"server_name": "captions.test", **tls}
        tls = Tls(**tls | {"ca": certificates / tls["ca"]})
    asked = [b"1"] if method == "caption" else 999
    target = serve_tls(mutual=False)
    with pytest.raises(ServingError, match=f"{target} .*{match}"):
        ask(target, method, asked, client={"tls": tls, "timeout_s": 999})


def test_server_without_tls_is_told(ask, fail_first, certificates):
    target, _ = fail_first(0)
    tls = {"tls": Tls(ca=certificates / "ca.pem"), "timeout_s": 999}
    with pytest.raises(ServingError, match=f"{target} speaks no TLS"):
        ask(target, "caption", [b"1"], client=tls)


def test_server_with_tls_is_told(ask, serve_tls):
    target = serve_tls(mutual=False)
    once = QUICK | {"max_attempts": 2}
    with pytest.raises(ServingError, match=f"{target} .* may want TLS"):
        ask(target, "caption", [b"1"], client=once)


def test_mutual_tls_asks_for_the_clients_certificate(
    ask, serve_tls, certificates
):
    target = serve_tls(mutual=True)

    def tls(name=None):
        own = [certificates / f"{name}.{end}" for end in ("pem", "key")]
        files = own if name else [None, None]
        known = Tls(certificates / "ca.pem", *files, "captions.test")
        return QUICK | {"tls": known, "max_attempts": 1}

    (result,) = ask(target, "caption", [b"1"], client=tls("client"))
    assert result.caption == "a photo of 1 bytes"
    for unknown in (None, "stranger"):
        with pytest.raises(ServingError, match="`certificate` that it trusts"):
            ask(target, "caption", [b"1"], client=tls(unknown))


def test_certificate_and_key_belong_together():
    with pytest.raises(ServingError, match=r"certificate=a\.pem, key=None"):
        Tls(certificate="a.pem")


def test_missing_certificate_is_named(ask, tmp_path):
    tls = Tls(ca=tmp_path / "nowhere.pem")
    with pytest.raises(ServingError, match=r"nowhere\.pem: .* No such file"):
        ask("127.0.0.1:9", "caption", [], client={"tls": tls})
