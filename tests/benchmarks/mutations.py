"""Inputs of the hostile campaign: made and spoilt as a random generator says.

Each `make_*` gives what is fed, and what must come of it where that is known.
"""

import csv
import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

from PIL import Image

# Stand for JSON that `json.dumps` never writes.
RAW = {
    b'"@deep"': b"[" * 100_000 + b"]" * 100_000,
    b'"@digits"': b"9" * 5_000,
    b'"@float"': b"1e400",
}
VALUES: list[Any] = [
    *("@deep", "@digits", "@float", "\ud800", "\0", "", " ", "7.0", "1.JPG"),
    *("../../up.jpg", "/etc/passwd", "a\\1.jpg", "\r\n", '"', "x" * 100_000),
    *(None, True, 0, -1, 2**63, 10**30, 1e308, float("nan"), float("inf")),
    *([], {}, [[]], [None], {"a": 1}, "Ünï", "e\u0301.jpg", "\u2028"),
]
PIECES = [
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"\0" * 9, b'"', b"\n", b"|"),
    *(b"\xff" * 4, b"[" * 100_000, b"9" * 5_000, b"\xed\xa0\x80", b"\t", b","),
]
Texts = list[tuple[str, str]]  # file names and captions


# === Mutations ===


def mutate_bytes(rng: Random, data: bytes, within: int = 10**9) -> bytes:
    """Spoils bytes at one to three places, all before `within`."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(max(1, min(len(data), within)))
        end = at + rng.randint(0, 40)
        new = rng.choice(
            [
                *(b"", data[at:end] * 3, rng.randbytes(end - at)),
                *(rng.choice(PIECES), rng.choice(PIECES)),
                bytes(x ^ (1 << rng.randrange(8)) for x in data[at : at + 1]),
            ]
        )
        data = data[:at] + new + data[rng.choice([at, at + len(new), end]) :]
        data = data[: rng.choice([at, None, None, None, None])]
    return data


def mutate_tree(rng: Random, tree: Any) -> None:
    """Spoils one to three nodes of lists and objects, in their place."""
    for _ in range(rng.randint(1, 3)):
        node, key = rng.choice([*_nodes(tree)] or [({0: 0}, 0)])
        action = rng.randrange(6)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[rng.choice(["id", "caption", "x", "b64"])] = node.pop(key)
        elif action == 2 and isinstance(node, list):
            node += deepcopy(node[key:])
        else:
            node[key] = deepcopy(rng.choice([*VALUES, [node[key]]]))


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(tree)) if isinstance(tree, list) else tree
    for key in list(keys) if isinstance(tree, (dict, list)) else ():
        yield tree, key
        yield from _nodes(tree[key])


def to_json(tree: Any) -> bytes:
    data = json.dumps(tree).encode()
    for mark, raw in RAW.items():
        data = data.replace(mark, raw)
    return data


# === Captions ===


def _to_trees(kind: str, rows: Texts) -> list[Any]:
    """Rows as the JSON documents of a layout."""
    records = [{"file_name": name, "text": text} for name, text in rows]
    if kind == "coco":
        images = [{"id": i, "file_name": x[0]} for i, x in enumerate(rows)]
        notes = [{"image_id": i, "caption": x[1]} for i, x in enumerate(rows)]
        return [{"images": images, "annotations": notes}]
    if kind == "karpathy":
        images = [
            {"filename": n, "split": "train", "sentences": [{"raw": text}]}
            for n, text in rows
        ]
        return [{"images": images}]
    if kind == "results":
        return [[{"image_id": int(n[0]), "caption": text} for n, text in rows]]
    return records if kind == "lines" else [records]


# The head of a layout, and its line of a name, a number and a caption.
LINES = {
    "token": ("", "{0}#{1}\t{2}\n"),
    "flickr": ("image_name| comment_number| comment\n", "{0}| {1}| {2}\n"),
    "kaggle": ("image,caption\n", "{0},{2}\n"),
}


def make_captions(rng: Random) -> tuple[dict[str, bytes], Texts | None]:
    """Gives files by name, and images and captions if nothing is spoilt.

    Of "captions" alone, or of a folder of photos and texts; results are in
    a `results` of any other ending.
    """
    words = ["a", "dog", "two", "cats", "été", "犬", "on", "grass"]
    numbers = sorted(rng.sample(range(9), rng.randint(1, 6)))
    rows: Any = [
        [f"{n}.jpg", " ".join(rng.choices(words, k=5))] for n in numbers
    ]
    expected = [(name, text) for name, text in rows]
    documents = ("coco", "karpathy", "records", "lines", "results")
    kind = rng.choice([*documents, *LINES, "csv", "tar", "folder"])
    spoil = rng.choice(["", "", "tree", "tree", "bytes", "packed"])
    trees = _to_trees(kind, rows) if kind in documents else rows
    if spoil == "tree":
        mutate_tree(rng, trees)
    if kind in documents:
        data = b"\n".join(map(to_json, trees))
    else:
        cells = [x if isinstance(x, list) else [x] for x in trees]
        files = _write_texts(rng, kind, [[*map(str, x), "", ""] for x in cells])
        if kind == "folder":
            changed = rng.choice([*files]) if files else ""
            if spoil in ("bytes", "packed") and files:
                files[changed] = mutate_bytes(rng, files[changed])
            texts = [(f"{i}.jpg", text) for i, (_, text) in enumerate(expected)]
            return files, None if spoil else texts
        data = files["captions"]
    if kind not in ("tar", "results") and rng.random() < 0.4:
        codec = rng.choice(["utf-8-sig", "utf-16", "utf-16-be"])
        data = data.decode(errors="replace").encode(codec)
    if spoil == "bytes":
        data = mutate_bytes(rng, data)
    if kind == "results":
        return {f"results{rng.choice(['.json', '.jsonl', '.csv'])}": data}, None
    if rng.random() < 0.3:
        data = gzip.compress(data, 1, mtime=0)
    if spoil == "packed":
        data = mutate_bytes(rng, data)
    return {"captions": data}, None if spoil else expected


def _write_texts(
    rng: Random, kind: str, rows: list[list[str]]
) -> dict[str, bytes]:
    text = io.StringIO()
    if kind == "csv":
        csv.writer(text).writerows(
            [["file_name", "text"], *[x[:2] for x in rows]]
        )
    if kind in LINES:
        head, line = LINES[kind]
        lines = [line.format(x[0], i, x[1]) for i, x in enumerate(rows)]
        text.write(head + "".join(lines))
    if kind in ("csv", *LINES):
        return {"captions": text.getvalue().encode(errors="replace")}
    files = {}
    for number, (name, caption, *_) in enumerate(rows):
        stem = str(number) if kind == "folder" else name.removesuffix(".jpg")
        files[f"{stem}.jpg"] = b""
        if kind == "tar" and rng.random() < 0.5:
            files[f"{stem}.json"] = to_json({"caption": caption})
        else:
            files[f"{stem}.txt"] = caption.encode(errors="replace")
    if kind == "folder":
        return files
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.encode(errors="replace").decode())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return {"captions": packed.getvalue()}


# === Photos ===

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "P", "1", "RGBA", "LA"),
    "GIF": ("RGB", "L", "P"),
    "BMP": ("RGB", "L", "P", "1"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "CMYK"),
}
# Where a format has its sides, and how they are written.
SIDES = {"PNG": (16, ">II"), "GIF": (6, "<HH"), "BMP": (18, "<ii")}


def make_photo(rng: Random) -> tuple[bytes, int | None]:
    """Gives a photo, and its level of grey if it must be read as that."""
    kind, size = rng.choice([*MODES]), (rng.randint(1, 40), rng.randint(1, 40))
    mode, grey = rng.choice(MODES[kind]), rng.randrange(256)
    grey = 255 * (grey > 127) if mode in ("1", "P") else grey
    spoil = rng.choice(["", "bytes", "bytes", "head", "sides"])
    noise = rng.randbytes(3 * size[0] * size[1])
    colours = noise if spoil else bytes([grey]) * len(noise)
    image = Image.frombytes("RGB", size, colours).convert(mode)
    options: dict[str, Any] = {}
    if kind in ("JPEG", "PNG", "WEBP"):
        tags = Image.Exif()
        tags[0x0112] = rng.randrange(10)  # orientation
        broken = b"Exif\0\0" + rng.randbytes(rng.randint(0, 99))
        options["exif"] = rng.choice([tags.tobytes(), broken])
    is_moving = kind in ("GIF", "WEBP") and rng.random() < 0.3
    if is_moving:
        options |= {"save_all": True, "append_images": [image.rotate(90)]}
    file = io.BytesIO()
    image.save(file, kind, **options)
    data = file.getvalue()
    if spoil == "sides":
        data = _claim(rng, kind, data)
    elif spoil:
        data = mutate_bytes(rng, data, 64 if spoil == "head" else 10**9)
    # What TensorFlow cannot read may be refused.
    may_fail = kind == "TIFF" or (kind, mode) == ("BMP", "1")
    may_fail |= is_moving and kind == "WEBP"
    return data, None if spoil or may_fail else grey


def _claim(rng: Random, kind: str, data: bytes) -> bytes:
    """Has a photo claim other sides."""
    at, layout = SIDES.get(kind, (24, "<HH"))
    if kind == "JPEG":
        at, layout = max(data.find(b"\xff\xc0"), 0) + 5, ">HH"
    most = 2**16 - 1 if layout[-1] == "H" else 2**31 - 1
    sides = [min(rng.choice([0, 1, 2**14, 2**15, most]), most) for _ in "wh"]
    new = struct.pack(layout, *sides)
    data = data[:at] + new + data[at + len(new) :]
    if kind == "PNG":  # its checksum holds
        data = (
            data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
        )
    return data


# === Requests ===


def make_request(rng: Random) -> tuple[bytes, str]:
    """Gives a Predict request, and how it is spoilt, if it is."""
    # Imported late: captions and photos need no TensorFlow here.
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = "m"
    for name, value in (("text", [b"a", b"a"]), ("x", [[1.5, 2], [3.0, 4]])):
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    spoil = rng.choice(["", "tensor", "tensor", "bytes"])
    if spoil == "tensor":
        tensor = request.inputs[rng.choice(["text", "x", "x", "z", "Ü\0"])]
        types = [tensor.dtype] * 20
        tensor.dtype = rng.choice([*types, *range(30), 101, 2**31 - 1])
        # What is large and well formed is not fed: it takes what it asks for.
        sizes = [-(2**63), -1, 0, 1, 2, 3, 2**20, 2**62]
        for _ in range(rng.choice([0, 1, 1, 300])):
            tensor.tensor_shape.dim.add(size=rng.choice(sizes))
        for dim in tensor.tensor_shape.dim[:1]:
            dim.size = rng.choice(sizes)
        tensor.tensor_shape.unknown_rank = rng.random() < 0.1
        tensor.tensor_content = rng.choice([b"", rng.randbytes(9)])
        tensor.float_val.extend(rng.choice([[], [float("nan"), 1e30]]))
        request.output_filter.extend(rng.choice([[], [], ["y", "y"], [""]]))
    data = request.SerializeToString()
    return mutate_bytes(rng, data) if spoil == "bytes" else data, spoil


def make_body(rng: Random) -> tuple[bytes, bool]:
    """Gives the body of a `:predict` call, and whether it is sound."""
    spoil = rng.choice(["", "tree", "tree", "bytes"])
    rows = [
        {"text": {"b64": "YQ=="}, "x": [1.5, 2]},
        {"text": "a", "x": [3, 4]},
    ]
    columns = {"text": ["a", {"b64": "YQ=="}], "x": [[1.5, 2], [3, 4]]}
    tree = rng.choice([{"instances": rows}, {"inputs": columns}])
    if spoil == "tree":
        mutate_tree(rng, tree)
    data = to_json(tree)
    return mutate_bytes(rng, data) if spoil == "bytes" else data, not spoil
