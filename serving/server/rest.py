"""The REST port: predict, status, metadata and metrics over HTTP."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec

from bmt_keras.contract import SERVING_DEFAULT

from .grpc_port import SIGNATURE_DEF, listen, unserved
from .json_documents import (
    Document,
    parse_document,
    read_inputs,
    to_json,
    write_outputs,
)
from .metrics import Metrics
from .run_pool import Limits, RunPool
from .servable import Servable
from .served_models import ServedModels
from .status import invalid, to_status

METRICS_PATH = "/monitoring/prometheus/metrics"
# A prediction may take this long, its body's arrival included; and as long may
# a connection wait for the head of its next request.
TIMEOUT_SECONDS = 30

_MODEL = r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?"
_PATHS = {
    "POST": re.compile(_MODEL + ":(classify|regress|predict)", re.IGNORECASE),
    "GET": re.compile(_MODEL + "(?:/(metadata))?", re.IGNORECASE),
}
_HTTP_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass
class RestPort:
    """Answers TensorFlow Serving's REST calls on the loop that opens it.

    `POST /v1/models/M[/versions/N|/labels/L]:predict`, `GET` of the same path
    without a method (status) or with `/metadata`, and Prometheus' metrics.
    """

    models: ServedModels
    metrics: Metrics
    pool: RunPool
    max_message_bytes: int
    cors: bool

    async def open(self, host: str, port: int) -> int:
        """Answers calls at an address; returns the port."""
        listener = listen(host, port)
        server = web.Server(
            self._answer,
            keepalive_timeout=TIMEOUT_SECONDS,
            # A waiting call whose client leaves is dropped.
            handler_cancellation=True,
            access_log=None,
            # It would not bound what a body expands to.
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0)
        await self._runner.setup()
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
        return int(listener.getsockname()[1])

    async def stop_listening(self) -> None:
        """Refuses new connections; calls on open ones end UNAVAILABLE."""
        await self._site.stop()

    async def close(self) -> None:
        """Closes the port and every connection."""
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        kind, status = "application/json", 200
        try:
            if request.raw_path == METRICS_PATH:
                kind, body = "text/plain", self.metrics.render()
            elif request.method == "OPTIONS" and self.cors:
                body = b""
            elif request.method == "POST":
                body = await self._post(request)
            else:
                body = self._get(request)
        except Exception as error:
            failure = to_status(error)
            status = _HTTP_CODES.get(failure.code, 500)
            body = to_json({"error": failure.wire_message})
        headers = _CORS_HEADERS if self.cors else None
        return web.Response(
            status=status, body=body, content_type=kind, headers=headers
        )

    def _get(self, request: web.BaseRequest) -> bytes:
        model_spec, action = _read_path(request)
        self.pool.check_open()
        if not action:
            statuses = self.models.list_statuses(model_spec)
            response = GetModelStatusResponse(model_version_status=statuses)
            return to_json(_to_dict(response))
        with self.models.borrow(model_spec) as servable:
            answered = ModelSpec(name=model_spec.name)
            answered.version.value = servable.version
            signatures = SignatureDefMap(signature_def=servable.signatures)
        metadata = {SIGNATURE_DEF: _to_dict(signatures)}
        return to_json({"model_spec": _to_dict(answered), "metadata": metadata})

    async def _post(self, request: web.BaseRequest) -> bytes:
        model_spec, action = _read_path(request)
        if action != "predict":
            raise unserved(action.capitalize())
        end = time.monotonic() + TIMEOUT_SECONDS
        limits = Limits(self.max_message_bytes, end)
        body = await _read_body(request, limits)
        is_gzip = request.headers.get("Content-Encoding", "").lower() == "gzip"

        def run() -> bytes:
            with self.metrics.watch(model_spec.name, action, "REST"):
                # Before anything else: a body that is no JSON fails first.
                text = limits.expand(body) if is_gzip else body
                document = parse_document(text, limits)
                with self.models.borrow(model_spec) as servable:
                    return _predict(servable, document, limits)

        return await self.pool.run(run, limits)


async def _read_body(request: web.BaseRequest, limits: Limits) -> bytes:
    limits.check_bytes(request.content_length or 0)
    if request.headers.get("Expect", "").lower() == "100-continue":
        # curl waits a second for it.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout_ms / 1000):
            async for chunk in request.content.iter_any():
                body += chunk
                limits.check_bytes(len(body))
    except web.RequestPayloadError as error:
        raise invalid(f"Broken body: {error}") from error
    return bytes(body)


def _predict(servable: Servable, document: Document, limits: Limits) -> bytes:
    name = json.loads(document.get("signature_name", b'""')) or SERVING_DEFAULT
    if name not in servable.signatures:
        raise invalid(
            f'Serving signature name: "{name}" not found in signature def'
        )
    signature = servable.signatures[name]
    outputs = servable.run(
        signature,
        read_inputs(document, signature.inputs, limits),
        sorted(signature.outputs),
        timeout_ms=limits.timeout_ms,
    )
    return to_json(write_outputs(outputs, in_rows="instances" in document))


def _read_path(request: web.BaseRequest) -> tuple[ModelSpec, str]:
    """Returns the model and "predict", "metadata", ..., or "" for status."""
    path = request.raw_path
    pattern = _PATHS.get(request.method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None or (request.method == "POST" and not match[1]):
        raise invalid(f"Malformed request: {request.method} {path}")
    name, version, label, action = match.groups()
    if not name:
        raise invalid("Missing model name in request.")
    model_spec = ModelSpec(name=unquote(name))
    if version is not None:
        # More than 64 bits are a ValueError.
        model_spec.version.value = int(version)
    elif label is not None:
        model_spec.version_label = unquote(label)
    return model_spec, (action or "").lower()


def _to_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
