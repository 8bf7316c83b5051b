"""What does serving cost, compared with the direct call?

python tests/benchmarks/serving.py --models models/bmt --out bench.json a.jpg
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import tensorflow as tf
from measure import Case, Row
from own_server import (
    ask,
    find_latest_version,
    make_parser,
    read_images,
    serve,
)

DIRECT, SERVED, LARGE = "direct", "served", "served, many images per call"
ROWS = {
    "served_over_direct": Row(DIRECT, {DIRECT: 1}, {SERVED: 1}),
    "images_per_second_batched_over_single": Row(
        LARGE, {LARGE: 1}, {SERVED: 1}
    ),
}


def call_directly(version: Path) -> Callable[[list[bytes]], Sequence[Any]]:
    """Runs the default signature in this process; gives the errors."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(version)
        )
    signature = loaded.signature_def["serving_default"]
    outputs = {name: info.name for name, info in signature.outputs.items()}
    image_bytes = signature.inputs["image_bytes"].name
    return lambda images: session.run(outputs, {image_bytes: images})["error"]


def _repeat(
    call: Callable[[list[bytes]], Sequence[Any]],
    images: Sequence[bytes],
    batch: int = 1,
) -> Case:
    """Calls with one image after another, `batch` times in a call."""
    turns = itertools.cycle(images)

    def run() -> None:
        if any(call([next(turns)] * batch)):
            raise ValueError("An image has an error; give good ones.")

    return Case(run, items=batch)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=50, help="calls of each kind, in turns")
    add("--batch", type=int, default=16, help="images of a large call")
    options = parser.parse_args(arguments)
    version = find_latest_version(options.models)
    images = read_images(options.photos)
    with serve(version) as (stub, _):

        def call_server(images: list[bytes]) -> list[str]:
            return ask(stub, images)[1]

        cases = {
            DIRECT: _repeat(call_directly(version), images),
            SERVED: _repeat(call_server, images),
            LARGE: _repeat(call_server, images, options.batch),
        }
        times = measure.take_turns(cases, rounds=options.rounds)
    rows = {name: measure.compare(row, times) for name, row in ROWS.items()}
    print(*map(measure.format_row, rows.values()), sep="\n")
    results = {**measure.describe_machine(), "model": str(version)}
    results |= {"rounds": options.rounds, "batch": options.batch, **rows}
    measure.write_json(options.out, results)


if __name__ == "__main__":
    main()
