"""HTTP on the REST port: clients that do not go by the book."""

import json
import socket

import pytest


def test_request_without_its_length_is_told(serve_toolbox):
    with (
        serve_toolbox(rest_port=0) as (server, *_),
        socket.create_connection(("127.0.0.1", server.rest_port)) as client,
    ):
        client.sendall(
            b"POST /v1/models/toolbox:predict HTTP/1.1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must give its Content-Length" in answer


def test_client_that_leaves_harms_no_other(serve_toolbox, send_rest):
    with serve_toolbox(rest_port=0) as (server, *_):
        address = ("127.0.0.1", server.rest_port)
        for part in (b"POST", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
            with socket.create_connection(address) as client:
                client.sendall(part)
        code, _ = send_rest(
            f"127.0.0.1:{server.rest_port}",
            "/v1/models/toolbox:predict",
            {"signature_name": "shout", "instances": ["a"]},
        )
        assert code == 200


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"DELETE /v1/models/toolbox HTTP/1.1\r\n\r\n", 501),
        (b"GET /v1/models/toolbox HTTP/one\r\n\r\n", 400),
    ],
)
def test_what_http_refuses_is_told_in_json(serve_toolbox, request_, code):
    with (
        serve_toolbox(rest_port=0) as (server, *_),
        socket.create_connection(("127.0.0.1", server.rest_port)) as client,
    ):
        client.sendall(request_)
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert f"HTTP/1.1 {code} ".encode() in head
    assert list(json.loads(body)) == ["error"]
    assert json.loads(body)["error"]
