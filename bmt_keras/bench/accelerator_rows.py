"""The lines about an accelerator, and the cases that they are made of."""

from bmt_keras.bench.case import Row

PRESETS = ("small", "coco")
BATCHES = (8, 64, 256, 1024)  # captions or photos at once
PASSES = 4
FLOAT, HALF, COMPILED = "float32", "bfloat16", "bfloat16, XLA"
WAYS = (FLOAT, HALF, COMPILED)
STEP = "{preset}, step, batch {batch}, {way}"
FED = "{preset}, step with reading, batch {batch}, {way}"
ENCODING = "{preset}, photo encoding, batch {batch}"
FORWARD = "{preset}, text forward, batch {batch}, {way}"
WRITING = "{preset}, {passes} passes, batch {batch}, {way}"


def accelerator_rows() -> list[Row]:
    """The lines about an accelerator."""
    rows = []
    for preset in PRESETS:
        for batch in BATCHES:
            rows += _training_rows(preset, batch)
        for batch in BATCHES:
            rows += _captioning_rows(preset, batch)
    return rows


def _training_rows(preset: str, batch: int) -> list[Row]:
    rows = _beside_float32(STEP, preset=preset, batch=batch)
    fed = FED.format(preset=preset, batch=batch, way=HALF)
    step = STEP.format(preset=preset, batch=batch, way=HALF)
    return [*rows, Row(fed, {fed: 1}, {step: 1})]


def _captioning_rows(preset: str, batch: int) -> list[Row]:
    encoding = ENCODING.format(preset=preset, batch=batch)
    rows = [Row(encoding, {encoding: 1})]
    rows += _beside_float32(FORWARD, preset=preset, batch=batch)
    for way in (FLOAT, HALF):
        name, forward = (
            line.format(preset=preset, batch=batch, way=way, passes=PASSES)
            for line in (WRITING, FORWARD)
        )
        reference = {encoding: 1.0, forward: float(PASSES)}
        rows.append(Row(name, {name: 1}, reference, at_most=1.15))
    return rows


def _beside_float32(name: str, *, preset: str, batch: int) -> list[Row]:
    """A line for each way of computing, beside the first."""
    rows = []
    for way in WAYS:
        case, first = (
            name.format(preset=preset, batch=batch, way=each)
            for each in (way, FLOAT)
        )
        reference = {} if way == FLOAT else {first: 1.0}
        rows.append(Row(case, {case: 1}, reference))
    return rows
