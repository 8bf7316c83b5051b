"""Does whatever people bring end in a right answer or in an error of its own?

python tests/benchmarks/hostile.py --tries 10000 --out benchmarks/hostile.json

Captions, photos, requests and stops of work are tried, each kind in a process
of its own: a crash or a hang is a finding, too, and memory must stay flat. A
try is made from its number: `--kinds photos --first 1234 --tries 1` repeats
one. The exit code is 1 if there are findings.
"""

import argparse
import gzip
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import cv2
import measure
import mutations
import numpy as np

from bmt_keras.atomic import write_atomically, write_folder_atomically
from bmt_keras.data.caption_files import Journal
from bmt_keras.data.captions import read_captions, read_references, read_texts
from bmt_keras.data.store import ShardedRows, open_store
from bmt_keras.errors import InputError
from bmt_keras.evaluation import read_results

RIGHT, REFUSED = "right", "refused"  # all else is a finding, in words
_BATCH = 200
_SECONDS = 120  # that a batch may take
_GROWTH_MB = 200.0
# Kinds whose tries take longer, and how many fewer there are.
_FEWER = {"stops": 5, "checkpoints": 500}

Judge = Callable[[int], str]


# === Captions ===


@contextmanager
def judge_captions() -> Iterator[Judge]:
    with tempfile.TemporaryDirectory() as name:
        photos, folder = Path(name, "photos"), Path(name, "case")
        photos.mkdir()
        for number in range(9):
            (photos / f"{number}.jpg").touch()

        def judge(seed: int) -> str:
            files, expected = mutations.make_captions(Random(seed))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for each, content in files.items():
                (folder / each).write_bytes(content)
            path = folder if len(files) > 1 else next(folder.iterdir(), folder)
            try:
                found = _read_all(path, photos, skip_bad=seed % 2 == 0)
            except InputError as error:
                is_clear = str(path) in str(error) and len(str(error)) < 1_000
                return REFUSED if expected is None and is_clear else str(error)
            return RIGHT if expected in (None, found) else f"read: {found}"

        yield judge


def _read_all(path: Path, photos: Path, *, skip_bad: bool) -> list[Any]:
    if path.stem == "results":
        known = [(number, f"{number}.jpg", ["a"]) for number in range(9)]
        return [*read_results(path, known, skip_missing=True).items()]
    found = read_captions(path, photos, skip_bad=skip_bad)
    _expect(len({each.image_id for each in found}), len(found))
    _expect([each for each in found if not all(each.captions)], [])
    read_texts(path, skip_bad=skip_bad)
    read_references(path)
    return [(each.path.name, *each.captions) for each in found]


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise ArithmeticError(f"found {found}, expected {expected}")


# === Photos ===


@contextmanager
def judge_photos() -> Iterator[Judge]:
    import tensorflow as tf

    from bmt_keras.data.images import PixelReader

    read = tf.function(PixelReader(8, 8).read_batch)
    white = cv2.imencode(".png", np.full((8, 8, 3), 255, np.uint8))[1].tobytes()

    def judge(seed: int) -> str:
        data, grey = mutations.make_photo(Random(seed))
        # A good neighbour keeps its picture.
        images = tf.constant([data, white])
        (pixels, _), (error, other) = (x.numpy() for x in read(images))
        if other:
            return f"another photo is refused: {other}"
        if error:
            is_clear = error.decode().isprintable() and not pixels.any()
            return REFUSED if grey is None and is_clear else str(error)
        worst = 0 if grey is None else np.abs(pixels.astype(int) - grey).max()
        return RIGHT if worst < 13 else f"the colour is {worst} off"

    yield judge


# === Requests ===

PREDICT = "/tensorflow.serving.PredictionService/Predict"
# What TensorFlow Serving answers to a request that does not fit.
CODES = (
    *("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"),
    *("UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE"),
)
STATUSES = (400, 404, 405, 413, 415, 429, 501)
HEAD = "POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nConnection: close\r\n"


@contextmanager
def _serve() -> Iterator[Any]:
    import tensorflow as tf

    from bmt_keras.serving.server import EmbeddedServer

    text = tf.TensorSpec([None], tf.string, "text")
    x = tf.TensorSpec([None, 2], tf.float32, "x")
    model = tf.Module()
    model.run = tf.function(
        lambda text, x: {"text": text + "b", "y": tf.reduce_sum(x, 1)},
        input_signature=[text, x],
    )
    with tempfile.TemporaryDirectory() as name:
        tf.saved_model.save(model, f"{name}/1", model.run)
        with EmbeddedServer(name, "m", port=0, rest_port=0) as server:
            yield server


@contextmanager
def judge_grpc() -> Iterator[Judge]:
    import grpc
    from tensorflow_serving.apis.predict_pb2 import PredictResponse

    with (
        _serve() as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.unary_unary(PREDICT)

        def judge(seed: int) -> str:
            data, spoil = mutations.make_request(Random(seed))
            try:
                answer = PredictResponse.FromString(call(data, timeout=30))
            except grpc.RpcError as error:
                code, details = error.code().name, str(error.details())
                # gRPC itself answers what is no message.
                is_clear = code in CODES or "DecodeError" in details
                is_refused = spoil and is_clear and details
                return REFUSED if is_refused else f"{code}: {details[:300]}"
            sums = [*answer.outputs["y"].float_val]
            return RIGHT if spoil or sums == [3.5, 7] else f"sums of {sums}"

        yield judge


@contextmanager
def judge_rest() -> Iterator[Judge]:
    with _serve() as server:

        def judge(seed: int) -> str:
            rng = Random(seed)
            body, is_sound = mutations.make_body(rng)
            way = rng.choice(["plain", "gzip", "chunks", "unfinished", "head"])
            is_whole = way not in ("unfinished", "head")
            call = _frame(rng, way, body)
            answer = _send(server.rest_port, call, ends=not is_whole)
            if not answer and not is_whole:
                return REFUSED
            head, _, content = answer.partition(b"\r\n\r\n")
            status = int([*head.split(), b"0", b"0"][1])
            if status in STATUSES and not (is_sound and is_whole):
                is_clear = not is_whole or json.loads(content)["error"]
                return REFUSED if is_clear else f"no error: {content!r}"
            sums = (b"[3.5, 7.0]" in content) or (b'"y": 7.0' in content)
            is_right = status == 200 and (sums or not (is_sound and is_whole))
            return RIGHT if is_right else f"{way}: {answer[:300]!r}"

        yield judge


def _frame(rng: Random, way: str, body: bytes) -> bytes:
    """Gives a call as it is sent."""
    head, size = HEAD, len(body)
    if way == "chunks":
        head += "Transfer-Encoding: chunked\r\n\r\n"
        cut = rng.randint(0, size)
        parts = [*filter(None, (body[:cut], body[cut:])), b""]
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
        return head.encode() + b"".join(chunks)
    if way == "gzip":
        head += "Content-Encoding: gzip\r\n"
        body = gzip.compress(body, 1, mtime=0)
        size = len(body)
    elif way == "unfinished":
        size += rng.randint(1, 2**40)
    sent = f"{head}Content-Length: {size}\r\n\r\n".encode()
    return (mutations.mutate_bytes(rng, sent) if way == "head" else sent) + body


def _send(port: int, data: bytes, *, ends: bool) -> bytes:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 40) as connection:
        # It may be refused before all is sent.
        with suppress(ConnectionError):
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(2**20):
                answer += part
    return answer


# === Stops ===


@contextmanager
def judge_stops() -> Iterator[Judge]:
    works = (_write_store, _write_captions, _replace_file, _replace_folder)
    with _killing(works, seconds=0.04) as judge:
        yield judge


@contextmanager
def judge_checkpoints() -> Iterator[Judge]:
    import bmt_keras.training.callbacks  # noqa: F401  # once for all processes

    with _killing([_train], seconds=6.0) as judge:
        yield judge


@contextmanager
def _killing(
    works: Sequence[Callable[[Path], None]], *, seconds: float
) -> Iterator[Judge]:
    """Kills work at random moments, then lets it end and look at itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "case")

        def judge(seed: int) -> str:
            rng = Random(seed)
            work = rng.choice(works)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for _ in range(rng.randint(1, 3)):
                child = _start(work, folder)
                time.sleep(rng.random() * seconds)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            _, code = os.waitpid(_start(work, folder), 0)
            # A killed process may leave a hidden file beside a whole one.
            known = r"(\.[0-9a-f]{32}\.)?(rows|file|folder|step-.+)|.*\.jsonl"
            names = [each.name for each in folder.iterdir()]
            left = [each for each in names if not re.fullmatch(known, each)]
            is_right = not (code or left)
            return RIGHT if is_right else f"{work.__name__}: {code}, {left}"

        yield judge


def _start(work: Callable[[Path], None], folder: Path) -> int:
    child = os.fork()
    if not child:
        try:
            work(folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def _write_store(folder: Path) -> None:
    def compute(shards: Sequence[Any]) -> None:
        for shard in shards:
            shard.write([np.array([(x,) for x in shard.items], shard.row)])

    row = np.dtype([("number", "<i8")])
    options = {"row": row, "settings": {}, "shard_size": 5, "compute": compute}
    found = open_store(folder / "rows", range(60), **options)
    _expect(ShardedRows(found)[:]["number"].tolist(), [*range(60)])


def _write_captions(folder: Path) -> None:
    images = [Path(f"{number}.jpg") for number in range(60)]
    out = folder / "captions.jsonl"
    if not out.exists():
        journal = Journal(out, {"captioner": "a"})
        left = [str(path) for path in images if str(path) not in journal.rows]
        for start in range(0, len(left), 4):
            batch = left[start : start + 4]
            journal.append([{"file": x, "caption": f"ü {x}"} for x in batch])
        journal.finish(out, images)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    _expect([row["caption"] for row in rows], [f"ü {x}" for x in images])


def _replace_file(folder: Path) -> None:
    path = folder / "file"
    for number in range(20):
        if path.exists():
            text = path.read_text()
            _expect(text, text[:1] * 10**5)
        with write_atomically(path) as file:
            file.write(f"{number % 10}" * 10**5)


def _replace_folder(folder: Path) -> None:
    path = folder / "folder"
    for number in range(20):
        if path.exists():
            texts = [each.read_text() for each in path.iterdir()]
            _expect(texts, texts[:1] * 3)
        with write_folder_atomically(path, replace=True) as new:
            for name in "abc":
                (new / name).write_text(str(number))


def _train(folder: Path) -> None:
    """Ten steps that lead to the same, however often they are stopped."""
    import keras

    from bmt_keras.settings import Settings
    from bmt_keras.training.callbacks import Checkpoints, load_last

    settings = Settings().replace(checkpoint_steps=2)

    def run(folder: Path, model: keras.Model | None) -> list[float]:
        if model is None:
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.set_weights([np.ones((4, 1)), np.zeros(1)])
            model.compile(keras.optimizers.Adam(0.1), "mse")
        saver = Checkpoints(folder, settings.optimization)
        saver.set_model(model)
        for step in range(int(model.optimizer.iterations), 10):
            image = np.eye(4)[step % 4][None]
            model.train_on_batch(image, np.zeros((1, 1)))
            saver.on_train_batch_end(step)
        return model.get_weights()[0].ravel().tolist()

    found = run(folder, load_last(folder))
    with tempfile.TemporaryDirectory() as name:
        _expect(found, run(Path(name), None))


# === The campaign ===

KINDS = {
    "captions": judge_captions,
    "photos": judge_photos,
    "grpc": judge_grpc,
    "rest": judge_rest,
    "stops": judge_stops,
    "checkpoints": judge_checkpoints,
}


def judge_batch(
    kind: str, seeds: Sequence[int]
) -> tuple[list[str], float, float]:
    """Returns verdicts, and the most memory and that of now, in MB."""
    logging.disable()
    signal.alarm(_SECONDS)  # ends a process that hangs
    verdicts = []
    with KINDS[kind]() as judge:
        for seed in seeds:
            try:
                verdicts.append(judge(seed))
            except Exception as error:
                verdicts.append(f"{error!r}"[:500])
    signal.alarm(0)
    text = Path("/proc/self/status").read_text()
    sizes = re.findall(r"(?:VmHWM|VmRSS):\s*(\d+)", text)
    peak, now = (int(size) / 1024 for size in sizes)
    return verdicts, peak, now


def run_kind(kind: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Judges the tries of a kind."""
    todo = deque(seeds[i : i + _BATCH] for i in range(0, len(seeds), _BATCH))
    verdicts: dict[int | None, str] = {}
    memory, peak, pool = [], 0.0, measure.own_process()
    while todo:
        batch = todo.popleft()
        try:
            asked = pool.submit(judge_batch, kind, batch)
            found, most, now = asked.result()
            verdicts |= zip(batch, found, strict=True)
            peak = max(peak, most)
            memory.append(now)
        except BrokenProcessPool as error:
            pool = measure.own_process()
            if len(batch) > 1:  # which of them?
                todo.extendleft([each] for each in reversed(batch))
            else:
                verdicts[batch[0]] = f"the process crashed or hangs: {error!r}"
    pool.shutdown()
    counts = Counter(verdicts.values())
    # Until then caches fill and modules are imported.
    growth = memory[-1] - memory[len(memory) // 2] if memory else 0.0
    if growth > _GROWTH_MB:
        verdicts[None] = f"{growth:.0f} MB more memory at the end"
    findings = {k: v for k, v in verdicts.items() if v not in (RIGHT, REFUSED)}
    for number, what in findings.items():
        print(f"{kind} {number}: {what}", flush=True)
    return {
        **{"kind": kind, "tries": len(seeds), "findings": findings},
        **{name: counts[name] for name in (RIGHT, REFUSED)},
        **{"peak_mb": round(peak), "growth_mb": round(growth)},
    }


def format_table(results: Sequence[dict[str, Any]]) -> str:
    """The summary in Markdown."""
    titles = "kind | tries | right answers | clear errors | findings | peak MB"
    lines = [f"| {titles} |", "|---|---|---|---|---|---|"]
    for each in results:
        cells = [each[name] for name in ("kind", "tries", RIGHT, REFUSED)]
        cells += [len(each["findings"]), each["peak_mb"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--tries", type=int, default=10_000, help="of each kind that is fast")
    add("--first", type=int, default=0, help="number of the first try")
    add("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS])
    options = parser.parse_args(arguments)
    results = []
    for kind in options.kinds:
        tries = max(1, options.tries // _FEWER.get(kind, 1))
        seeds = range(options.first, options.first + tries)
        results.append(run_kind(kind, seeds))
        content = {**measure.describe_machine(), "kinds": results}
        measure.write_json(options.out, content)
    print(format_table(results))
    if any(each["findings"] for each in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
