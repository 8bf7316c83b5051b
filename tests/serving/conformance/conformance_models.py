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

CONFIG = """model_config_list {{
  config {{
    name: "half_plus" base_path: "{base}/half_plus"
    model_platform: "tensorflow"
  }}
  config {{
    name: "half_plus_all" base_path: "{base}/half_plus"
    model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 7 }}
    version_labels {{ key: "canary" value: 123 }}
  }}
  config {{
    name: "half_plus_old" base_path: "{base}/half_plus"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 7 }} }}
  }}
  config {{
    name: "toolbox" base_path: "{base}/toolbox"
    model_platform: "tensorflow"
  }}
  config {{
    name: "counter" base_path: "{base}/counter"
    model_platform: "tensorflow"
  }}
  config {{
    name: "words" base_path: "{base}/words"
    model_platform: "tensorflow"
  }}
}}
"""


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
    toolbox = Toolbox()
    names = ["two_inputs", "shout", "to_number", "decode", "spin", "uneven"]
    names.append("dtypes")
    tf.saved_model.save(
        toolbox,
        str(folder / "toolbox" / "1"),
        signatures={name: getattr(toolbox, name) for name in names},
    )
    words = Words()
    tf.saved_model.save(
        words,
        str(folder / "words" / "1"),
        signatures={"serving_default": words.look_up},
    )
    path = folder / "models.config"
    path.write_text(CONFIG.format(base=base))
    return path


# === TensorFlow 1: half of x plus a bias ===


def write_half_plus(path: Path, bias: float) -> None:
    with v1.Session(graph=tf.Graph()) as session:
        slope = v1.get_variable("slope", initializer=0.5, use_resource=False)
        x = v1.placeholder(tf.float32, None, name="x")
        y = tf.add(slope * x, bias, name="y")
        session.run(v1.global_variables_initializer())
        build = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def(
            inputs={"x": build(x)},
            outputs={"y": build(y)},
            method_name="tensorflow/serving/predict",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}
        )
        builder.save()


# === TensorFlow 1: state ===


def write_counter(path: Path) -> None:
    """Saves a model that adds up what it is told; its inputs have defaults."""
    with v1.Session(graph=tf.Graph()) as session:
        by = v1.placeholder(tf.int64, [], name="by")
        unit = v1.placeholder(tf.string, [], name="unit")
        total = v1.get_variable(
            "total", initializer=np.int64(0), use_resource=False
        )
        session.run(v1.global_variables_initializer())
        build = v1.saved_model.build_tensor_info
        count = v1.saved_model.build_signature_def(
            inputs={"by": build(by), "unit": build(unit)},
            outputs={
                "total": build(v1.assign_add(total, by)),
                "unit": build(tf.identity(unit)),
            },
            method_name="tensorflow/serving/predict",
        )
        count.defaults["by"].CopyFrom(tf.make_tensor_proto(1, tf.int64))
        count.defaults["unit"].CopyFrom(tf.make_tensor_proto("step"))
        train = v1.saved_model.build_signature_def(
            inputs={"by": build(by)},
            outputs={"total": build(total)},
            method_name="elsewhere/train",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": count, "train": train}
        )
        builder.save()


# === TensorFlow 2 ===


def _spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


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

    @tf.function(input_signature=[_spec([None], tf.string, "word")])
    def look_up(self, word):
        return {"number": self.table.lookup(word)}


class Toolbox(tf.Module):
    """One signature for each thing that a server can get wrong."""

    @tf.function(
        input_signature=[
            _spec([None], tf.int32, "a"),
            _spec([None], tf.int32, "b"),
        ]
    )
    def two_inputs(self, a, b):
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[_spec([None], tf.string, "text")])
    def shout(self, text):
        return {"loud": text + "!", "loud_bytes": text + "!"}

    @tf.function(input_signature=[_spec([], tf.string, "text")])
    def to_number(self, text):
        return {"number": tf.strings.to_number(text)}

    @tf.function(input_signature=[_spec([], tf.string, "image_bytes")])
    def decode(self, image_bytes):
        return {"pixels": tf.io.decode_image(image_bytes)}

    @tf.function(input_signature=[_spec([], tf.int32, "steps")])
    def spin(self, steps):
        return {
            "done": tf.while_loop(
                lambda step: step < steps, lambda step: [step + 1], [0]
            )[0]
        }

    @tf.function(input_signature=[_spec([None], tf.float32, "x")])
    def uneven(self, x):
        return {"all": x, "first": x[:1]}

    @tf.function(input_signature=[_spec([2], tf.float32, "x")])
    def dtypes(self, x):
        names = ["float16", "bfloat16", "float64", "bool", "int8", "int16"]
        names += ["int64", "uint8", "uint16", "uint32", "uint64", "complex64"]
        outputs = {name: tf.cast(x, name) for name in names}
        outputs["string"] = tf.constant(b"a\0")
        return outputs


if __name__ == "__main__":
    written = write_models(Path(sys.argv[1]), *sys.argv[2:] or sys.argv[1:2])
    print(written)
