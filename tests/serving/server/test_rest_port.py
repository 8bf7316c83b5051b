"""HTTP on the REST port: bodies, connections, headers and metrics."""

import gzip
import http.client
import json
import re
import socket
import urllib.request
from contextlib import contextmanager

import pytest

from bmt_keras.serving.server import rest

PATH = "/v1/models/toolbox:predict"
BODY = json.dumps({"signature_name": "shout", "inputs": ["a"]}).encode()
LOUD = {"outputs": {"loud": ["a!"], "loud_bytes": [{"b64": "YSE="}]}}
GZIP = {"Content-Encoding": "gzip"}


@pytest.fixture
def connect(serve_toolbox):
    """Serves the toolbox; opens a connection to its REST port."""

    @contextmanager
    def open_connection(**options):
        with serve_toolbox(rest_port=0, **options) as (server, *_):
            connection = http.client.HTTPConnection(
                "127.0.0.1", server.rest_port, timeout=30
            )
            yield connection
            connection.close()

    return open_connection


def _post(connection, body, headers=None, path=PATH):
    connection.request("POST", path, body, headers or {})
    with connection.getresponse() as answer:
        return answer.status, json.load(answer)


# === Bodies ===


def test_connection_serves_bodies_of_every_kind(connect):
    with connect() as connection:
        sockets = set()
        for body, headers in (
            (BODY, {}),
            (iter([BODY[:9], BODY[9:]]), {}),
            (gzip.compress(BODY, mtime=0), GZIP),
        ):
            assert _post(connection, body, headers) == (200, LOUD)
            sockets.add(connection.sock)
    # It was kept open.
    assert len(sockets) == 1


@pytest.mark.parametrize(
    ("body", "code", "part"),
    [
        (b"no gzip", 400, "Broken gzip body"),
        (gzip.compress(BODY, mtime=0)[:-1], 400, "Broken gzip body"),
        (gzip.compress(bytes(10**6), mtime=0), 429, "message larger than max"),
    ],
)
def test_compressed_body_that_cannot_be_read_is_refused(
    connect, body, code, part
):
    with connect(max_message_bytes=10**5) as connection:
        status, answer = _post(connection, body, GZIP)
        assert status == code
        assert part in answer["error"]
        assert _post(connection, BODY) == (200, LOUD)


def test_body_is_bounded_however_it_comes(connect):
    with connect(max_message_bytes=1000) as connection:
        for body, headers in (
            (bytes(2000), {}),
            (iter([bytes(2000)]), {}),
            (gzip.compress(bytes(2000), mtime=0), GZIP),
        ):
            status, answer = _post(connection, body, headers)
            assert (status, list(answer)) == (429, ["error"])
            connection.close()
        assert _post(connection, BODY) == (200, LOUD)


def test_body_that_never_comes_is_given_up(connect, monkeypatch):
    monkeypatch.setattr(rest, "TIMEOUT_SECONDS", 0.1)
    with connect() as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Content-Length", "9")
        connection.endheaders(b"{")
        with connection.getresponse() as answer:
            assert answer.status == 504


def test_client_that_leaves_harms_no_other(connect):
    with connect() as connection:
        address = (connection.host, connection.port)
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
        for part in (b"POST", head % PATH.encode()):
            with socket.create_connection(address) as client:
                client.sendall(part)
        assert _post(connection, BODY) == (200, LOUD)


def test_body_waits_for_a_word_where_it_is_asked_for(connect):
    head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
    head += b"Expect: 100-continue\r\n\r\n"
    with connect(max_message_bytes=10**5) as connection:
        for size, code in ((len(BODY), b" 100 "), (10**6, b" 429 ")):
            connection.connect()
            connection.sock.sendall(head % (PATH.encode(), size))
            with connection.sock.makefile("rb") as answer:
                assert code in answer.readline()
                if code == b" 100 ":
                    connection.sock.sendall(BODY)
                    assert answer.readline() == b"\r\n"
                    assert b" 200 " in answer.readline()
            connection.close()


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        ("Content-Length: abc", b"{}", 400),
        ("Content-Length: -1", b"{}", 400),
        ("Content-Length: " + "9" * 19, b"{}", 429),
        ("Content-Length: " + "9" * 30, b"{}", 400),
        ("Content-Length: 2\r\nContent-Length: 3", b"{}", 400),
        ("Content-Length: 0", b"", 400),
        ("A: b", b"", 400),
        ("Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", b"2\r\n{}?\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", b"9" * 30 + b"\r\n{}", 400),
        ("A: " + "b" * 10**5, b"", 400),
    ],
)
def test_nonsense_about_a_body_gets_an_answer(connect, head, body, code):
    start = f"POST {PATH} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"
    with connect() as connection:
        connection.connect()
        connection.sock.sendall(start.encode() + body)
        with connection.sock.makefile("rb") as answer:
            assert f" {code} ".encode() in answer.readline()
        connection.close()
        assert _post(connection, BODY) == (200, LOUD)


@pytest.mark.parametrize(
    "body",
    [
        b'{"signature_name": "\\ud800", "inputs": ["a"]}',
        b'{"signature_name": "shout", "inputs": ["\\udc00"]}',
        b'{"signature_name": "\xff", "inputs": ["a"]}',
        b'{"signature_name": "to_number", "inputs": "\xff\xfe"}',
        b'{"signature_name": "spin", "inputs": ' + b"7" * 5000 + b"}",
        b'{"signature_name": "spin", "inputs": -1e400}',
        b'{"signature_name": "spin", "inputs": ' + b"[" * 10**5,
        b"\xff\xfe\x00",
    ],
)
def test_values_that_are_none_get_an_answer(connect, body):
    with connect() as connection:
        status, answer = _post(connection, body)
        assert (status, list(answer)) == (400, ["error"])
        assert _post(connection, BODY) == (200, LOUD)


def test_head_that_never_comes_is_given_up(connect, monkeypatch):
    monkeypatch.setattr(rest, "TIMEOUT_SECONDS", 0.1)
    with connect() as connection:
        connection.connect()
        connection.sock.sendall(b"POST")
        assert connection.sock.recv(1) == b""


# === Other requests ===


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_other_methods_are_served_elsewhere(connect, method):
    with connect() as connection:
        path = f"/v1/models/toolbox:{method}"
        code, answer = _post(connection, b"{}", path=path)
    assert code == 501
    assert "is served by TensorFlow Serving" in answer["error"]


@pytest.mark.parametrize(
    ("method", "version", "message"),
    [
        ("DELETE", "1", "Malformed request: DELETE /v1/models/toolbox"),
        ("OPTIONS", "1", "Malformed request: OPTIONS /v1/models/toolbox"),
        ("GET", str(2**63), ""),
        ("GET", "9" * 5000, ""),
    ],
)
def test_malformed_request_is_reported(connect, method, version, message):
    with connect() as connection:
        connection.request(method, f"/v1/models/toolbox/versions/{version}")
        with connection.getresponse() as answer:
            assert answer.status == 400
            assert json.load(answer)["error"].startswith(message)


def test_what_is_no_http_is_a_bad_request(connect):
    with connect() as connection:
        connection.connect()
        connection.sock.sendall(b"GET / HTTP/one\r\n\r\n")
        with connection.sock.makefile("rb") as answer:
            assert b" 400 " in answer.readline()


@pytest.mark.parametrize("cors", [False, True])
def test_scripts_of_web_pages_may_call_where_it_is_asked_for(connect, cors):
    with connect(rest_cors=cors) as connection:
        connection.request("OPTIONS", PATH)
        with connection.getresponse() as answer:
            assert answer.status == (200 if cors else 400)
            allowed = answer.headers["Access-Control-Allow-Methods"]
            answer.read()
        connection.request("POST", PATH, BODY)
        with connection.getresponse() as answer:
            origin = answer.headers["Access-Control-Allow-Origin"]
            answer.read()
    assert (allowed, origin) == (("GET, POST", "*") if cors else (None, None))


# === Metrics ===


def test_metrics_count_calls_by_model_and_code(
    serve_toolbox, quick, make_request, expect_error, send_rest
):
    with serve_toolbox(rest_port=0) as (server, stub, _):
        for _ in range(2):
            stub.Predict(quick)
        expect_error(stub.Predict, make_request("", model='m"'))
        address = f"127.0.0.1:{server.rest_port}"
        assert send_rest(address, PATH, body=BODY)[0] == 200
        url = f"http://{address}/monitoring/prometheus/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            page = answer.read().decode()
    counter, latency = (
        f":tensorflow:serving:request_{name}" for name in ("count", "latency")
    )
    assert f"# TYPE {counter} counter" in page
    assert f"# TYPE {latency} histogram" in page
    assert f'{counter}{{model_name="toolbox",status="OK"}} 3.0' in page
    assert f'{counter}{{model_name="m\\"",status="NOT_FOUND"}} 1.0' in page
    labels = 'API="Predict",entrypoint="GRPC"'
    buckets = re.findall(
        rf'{latency}_bucket{{{labels},le="(.*)",model_name="toolbox"}} (.*)',
        page,
    )
    limits, counts = zip(*[map(float, each) for each in buckets], strict=True)
    # The limits are 10 * 1.8**n.
    assert limits[0] == 10
    assert limits[19] == pytest.approx(708235.35)
    assert len(limits) == 34
    assert (counts[0], counts[-1]) == (0, 2)
