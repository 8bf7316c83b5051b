"""The REST port: predict, status, metadata and metrics over HTTP."""

import asyncio
import re
import time
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec

from bmt_keras.contract import SERVING_DEFAULT

from .addresses import listen
from .catalog import Catalog
from .json_requests import Document, parse_document, read_inputs
from .json_tensors import to_json, write_outputs
from .metrics import Metrics
from .predict import find_signature
from .run_pool import RunPool, remaining_ms
from .services import (
    SIGNATURE_DEF,
    describe_model,
    list_versions,
    unserved,
)
from .status import StatusError, invalid

METRICS_PATH = "/monitoring/prometheus/metrics"
TIMEOUT_SECONDS = 30
# What a compressed body may expand to, as in TensorFlow Serving.
MAX_EXPANDED_BYTES = 100 << 20

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


class RestPort:
    """Answers TensorFlow Serving's REST calls on the loop that opens it.

    `POST /v1/models/M[/versions/N|/labels/L]:predict`, `GET` of the same path
    without a method (status) or with `/metadata`, and Prometheus' metrics. A
    prediction may take 30 seconds, its body's arrival included.

    Args:
        catalog: The versions that are served.
        metrics: Where calls are counted.
        pool: The threads in which JSON is read and models run.
        max_message_bytes: The largest request body; -1 for no limit.
        cors: Whether scripts of any web page may call.
    """

    def __init__(
        self,
        catalog: Catalog,
        metrics: Metrics,
        pool: RunPool,
        *,
        max_message_bytes: int,
        cors: bool,
    ) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._pool = pool
        self._max_bytes = max_message_bytes
        self._headers = _CORS_HEADERS if cors else {}

    async def open(self, host: str, port: int) -> int:
        """Answers calls at an address; port 0 picks a free one.

        Returns:
            The port.

        Raises:
            ServingError: If the address cannot be used.
        """
        listener = listen(host, port)
        server = web.Server(
            self._answer,
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
                kind, body = "text/plain", self._metrics.render()
            elif request.method == "OPTIONS" and self._headers:
                body = b""
            elif request.method == "POST":
                body = await self._post(request)
            else:
                body = self._get(request)
        except StatusError as error:
            status = _HTTP_CODES.get(error.code, 500)
            body = to_json({"error": error.wire_message})
        return web.Response(
            status=status, body=body, content_type=kind, headers=self._headers
        )

    def _get(self, request: web.BaseRequest) -> bytes:
        asked = _read_path(request)
        self._pool.check_open()
        if not asked.action:
            statuses = GetModelStatusRequest(model_spec=asked.model_spec)
            response = list_versions(self._catalog, statuses)
            return to_json(
                MessageToDict(
                    response, always_print_fields_with_no_presence=True
                )
            )
        return to_json(self._write_metadata(asked.model_spec))

    def _write_metadata(self, model_spec: ModelSpec) -> Mapping[str, Any]:
        request = GetModelMetadataRequest(
            model_spec=model_spec, metadata_field=[SIGNATURE_DEF]
        )
        response = describe_model(self._catalog, request)
        signatures = SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        model, written = (
            MessageToDict(
                message,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for message in (response.model_spec, signatures)
        )
        return {"model_spec": model, "metadata": {SIGNATURE_DEF: written}}

    async def _post(self, request: web.BaseRequest) -> bytes:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        asked = _read_path(request)
        if asked.action != "predict":
            raise unserved(asked.action.capitalize())
        body = await self._read_body(request)
        is_gzip = request.headers.get("Content-Encoding", "").lower() == "gzip"

        def run() -> bytes:
            name = asked.model_spec.name
            with self._metrics.watch(name, asked.action, "REST"):
                text = self._expand(body) if is_gzip else body
                document = parse_document(text)
                return self._predict(asked.model_spec, document, deadline)

        return await self._pool.run(run)

    def _predict(
        self, model_spec: ModelSpec, document: Document, deadline: float
    ) -> bytes:
        name = document.get("signature_name") or SERVING_DEFAULT
        with self._catalog.borrow(model_spec) as servable:
            if name not in servable.signatures:
                raise invalid(
                    f'Serving signature name: "{name}" not found in signature '
                    "def"
                )
            signature = find_signature(servable, name)
            arrays = read_inputs(document, signature.inputs)
            feeds = {signature.inputs[k].name: v for k, v in arrays.items()}
            names = sorted(signature.outputs)
            values = servable.run(
                feeds,
                [signature.outputs[name].name for name in names],
                timeout_ms=remaining_ms(deadline),
            )
        outputs = dict(zip(names, values, strict=True))
        return to_json(write_outputs(outputs, in_rows="instances" in document))

    # === Bodies ===

    async def _read_body(self, request: web.BaseRequest) -> bytes | bytearray:
        self._check_size(request.content_length or 0)
        body = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async for chunk in request.content.iter_any():
                    body += chunk
                    self._check_size(len(body))
        except TimeoutError as error:
            raise StatusError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"The body must arrive within {TIMEOUT_SECONDS} seconds.",
            ) from error
        except web.RequestPayloadError as error:
            raise invalid(f"Broken body: {error}") from error
        return body

    def _expand(self, body: bytes | bytearray) -> bytes:
        limit = MAX_EXPANDED_BYTES
        if self._max_bytes >= 0:
            limit = min(limit, self._max_bytes)
        # 16: with the header and the checksum of gzip.
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            expanded = inflate.decompress(body, limit + 1)
        except zlib.error as error:
            raise invalid(f"Broken gzip body: {error}") from error
        if len(expanded) > limit:
            raise _too_large(f"over {limit}", limit)
        if not inflate.eof:
            raise invalid("Broken gzip body: its end is missing")
        return expanded

    def _check_size(self, size: int) -> None:
        if 0 <= self._max_bytes < size:
            raise _too_large(str(size), self._max_bytes)


class _AskedPath(NamedTuple):
    model_spec: ModelSpec
    # "predict", "classify", "regress", "metadata", or empty for the status.
    action: str


def _read_path(request: web.BaseRequest) -> _AskedPath:
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
        # Python refuses to read thousands of digits.
        if len(version) > 19 or int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        model_spec.version.value = int(version)
    elif label is not None:
        model_spec.version_label = unquote(label)
    return _AskedPath(model_spec, (action or "").lower())


def _too_large(size: str, limit: int) -> StatusError:
    return StatusError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"Received message larger than max ({size} vs. {limit})",
    )
