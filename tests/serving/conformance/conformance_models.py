"""Writes the models that the conformance suite asks a server about.

    python conformance_models.py FOLDER [BASE]

writes the models and `models.config` into FOLDER; BASE is the path under which
the server sees FOLDER, such as /models in a container. A TensorFlow Serving
that is to be asked needs --model_config_file=BASE/models.config,
--allow_version_labels_for_unavailable_models, --rest_api_port and
--enable_grpc_healthcheck_service. Then

    BMT_SERVING_TARGET=host:8500 BMT_SERVING_REST=host:8501 \
    BMT_SERVING_BASE=BASE pytest tests/serving/conformance
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1

HALF = "half_plus"
# name -> folder, and the rest of its configuration
MODELS = {
    HALF: (HALF, ""),
    "half_plus_all": (
        HALF,
        "model_version_policy { all {} } "
        'version_labels { key: "stable" value: 7 } '
        'version_labels { key: "canary" value: 123 }',
    ),
    "half_plus_old": (
        HALF,
        "model_version_policy { specific { versions: 7 } }",
    ),
    **{name: (name, "") for name in ("toolbox", "counter", "words")},
}


def make_config(base: str, more: dict[str, tuple[str, str]]) -> str:
    """Returns the models.config of all models, and some more."""
    configs = "\n".join(
        f'config {{ name: "{name}" base_path: "{base}/{folder}" '
        f'model_platform: "tensorflow" {rest} }}'
        for name, (folder, rest) in (MODELS | more).items()
    )
    return f"model_config_list {{ {configs} }}"


def write_models(folder: Path, base: str) -> Path:
    """Writes all models; returns the path of their models.config."""
    # The version tells itself by its answers.
    write_half_plus(folder / "half_plus" / "7", 2.0)
    write_half_plus(folder / "half_plus" / "00000123", 3.0)
    (folder / "half_plus" / "999.tmp").mkdir()
    (folder / "half_plus" / "notes").mkdir()
    (folder / "half_plus" / str(2**63)).mkdir()
    (folder / "half_plus" / "1000").write_text("a file")
    write_counter(folder / "counter" / "1")
    toolbox, words = Toolbox(), Words()
    names = ["two_inputs", "shout", "to_number", "decode", "spin", "uneven"]
    signatures = {name: getattr(toolbox, name) for name in (*names, "dtypes")}
    tf.saved_model.save(toolbox, str(folder / "toolbox" / "1"), signatures)
    tf.saved_model.save(words, str(folder / "words" / "1"), words.look_up)
    path = folder / "models.config"
    path.write_text(make_config(base, {}))
    return path


# === TensorFlow 1 ===


def _sign(inputs, outputs, method="tensorflow/serving/predict"):
    build = v1.saved_model.build_tensor_info
    return v1.saved_model.build_signature_def(
        {name: build(tensor) for name, tensor in inputs.items()},
        {name: build(tensor) for name, tensor in outputs.items()},
        method,
    )


def _save(session, path, signatures):
    session.run(v1.global_variables_initializer())
    builder = v1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(session, ["serve"], signatures)
    builder.save()


def write_half_plus(path: Path, bias: float) -> None:
    with v1.Session(graph=tf.Graph()) as session:
        slope = v1.get_variable("slope", initializer=0.5, use_resource=False)
        x = v1.placeholder(tf.float32, None, name="x")
        y = tf.add(slope * x, bias, name="y")
        _save(session, path, {"serving_default": _sign({"x": x}, {"y": y})})


def write_counter(path: Path) -> None:
    """Saves a model that adds up its inputs, which have defaults."""
    with v1.Session(graph=tf.Graph()) as session:
        by = v1.placeholder(tf.int64, [], name="by")
        unit = v1.placeholder(tf.string, [], name="unit")
        total = v1.get_variable(
            "total", initializer=np.int64(0), use_resource=False
        )
        count = _sign(
            {"by": by, "unit": unit},
            {"total": v1.assign_add(total, by), "unit": tf.identity(unit)},
        )
        count.defaults["by"].CopyFrom(tf.make_tensor_proto(1, tf.int64))
        count.defaults["unit"].CopyFrom(tf.make_tensor_proto("step"))
        train = _sign({"by": by}, {"total": total}, "elsewhere/train")
        _save(session, path, {"serving_default": count, "train": train})


# === TensorFlow 2 ===


def _takes(shape, dtype, *names):
    """Makes a function with these inputs a signature."""
    inputs = [tf.TensorSpec(shape, dtype, name=name) for name in names]
    return tf.function(input_signature=inputs)


class Words(tf.Module):
    """A table: words to numbers."""

    def __init__(self):
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(["one", "two"]), tf.constant([1, 2], tf.int64)
            ),
            default_value=-1,
        )

    @_takes([None], tf.string, "word")
    def look_up(self, word):
        return {"number": self.table.lookup(word)}


class Toolbox(tf.Module):
    """One signature for each thing that a server can get wrong."""

    @_takes([None], tf.int32, "a", "b")
    def two_inputs(self, a, b):
        return {"sum": a + b, "difference": a - b}

    @_takes([None], tf.string, "text")
    def shout(self, text):
        return {"loud": text + "!", "loud_bytes": text + "!"}

    @_takes([], tf.string, "text")
    def to_number(self, text):
        return {"number": tf.strings.to_number(text)}

    @_takes([], tf.string, "image_bytes")
    def decode(self, image_bytes):
        return {"pixels": tf.io.decode_image(image_bytes)}

    @_takes([], tf.int32, "steps")
    def spin(self, steps):
        (done,) = tf.while_loop(
            lambda step: step < steps, lambda step: [step + 1], [0]
        )
        return {"done": done}

    @_takes([None], tf.float32, "x")
    def uneven(self, x):
        return {"all": x, "first": x[:1]}

    @_takes([2], tf.float32, "x")
    def dtypes(self, x):
        names = ["float16", "bfloat16", "float64", "bool", "int8", "int16"]
        names += ["int64", "uint8", "uint16", "uint32", "uint64", "complex64"]
        outputs = {name: tf.cast(x, name) for name in names}
        outputs["string"] = tf.constant(b"a\0")
        return outputs


if __name__ == "__main__":
    written = write_models(Path(sys.argv[1]), *sys.argv[2:] or sys.argv[1:2])
    print(written)
