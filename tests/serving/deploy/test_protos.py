"""The operator's text protos are what TensorFlow Serving reads."""

import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from bmt_keras import contract

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "serving" / "deploy"
PAGE = (ROOT / "docs" / "tensorflow-serving.md").read_text(encoding="utf-8")


# What the Python package lacks, after the server's sources.
PROTO = """
message BatchingParameters {
  google.protobuf.Int64Value max_batch_size = 1;
  google.protobuf.Int64Value batch_timeout_micros = 2;
  google.protobuf.Int64Value max_enqueued_batches = 3;
  google.protobuf.Int64Value num_batch_threads = 4;
  google.protobuf.StringValue thread_pool_name = 5;
  repeated int64 allowed_batch_sizes = 6;
  bool pad_variable_length_inputs = 7;
}
message PrometheusConfig { bool enable = 1; string path = 2; }
message MonitoringConfig { t.PrometheusConfig prometheus_config = 1; }
message SSLConfig {
  string server_key = 1; string server_cert = 2;
  string custom_ca = 3; bool client_verify = 4;
}
"""


def _build_messages():
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="operator.proto", package="t", syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, body in re.findall(r"message (\w+) {(.*?)}", PROTO, re.DOTALL):
        message = file.message_type.add(name=name)
        for repeated, kind, each, number in re.findall(
            r"(repeated )?([\w.]+) (\w+) = (\d+);", body
        ):
            added = message.field.add(name=each, number=int(number))
            label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            added.label = getattr(field, label)
            if "." in kind:
                added.type, added.type_name = field.TYPE_MESSAGE, f".{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    found = pool.Add(file) or pool.FindFileByName(file.name)
    messages = found.message_types_by_name.items()
    return {k: message_factory.GetMessageClass(v) for k, v in messages}


MESSAGES = _build_messages()


def parse(name, kind):
    return text_format.Parse((DEPLOY / name).read_text(), kind())


@pytest.mark.parametrize("name", ["models.config", "models.canary.config"])
def test_models_and_versions_are_the_served_ones(name):
    config = parse(name, ModelServerConfig)
    (model,) = config.model_config_list.config
    assert model.name == contract.MODEL_NAME
    assert model.base_path == f"/models/{contract.MODEL_NAME}"
    assert model.model_platform == "tensorflow"

    if name == "models.config":
        assert model.model_version_policy.latest.num_versions == 1
        return
    # The labels of the canary are served versions.
    assert set(model.version_labels) == {"stable", "canary"}
    versions = set(model.model_version_policy.specific.versions)
    assert versions == set(model.version_labels.values())


def test_batching_parameters_hold_together():
    batching = parse("batching.config", MESSAGES["BatchingParameters"])
    values = {
        field.name: value.value
        for field, value in batching.ListFields()
        if field.message_type is not None
    }
    assert values == {
        "max_batch_size": 16,
        "batch_timeout_micros": 10_000,
        "num_batch_threads": 2,
        "max_enqueued_batches": 8,
    }
    # Padding of inputs would take a mask's padding for tokens.
    assert not batching.pad_variable_length_inputs
    assert not batching.allowed_batch_sizes
    for name, value in values.items():
        assert f"| `{name}` | {value} |" in PAGE


def test_sizes_advised_for_a_gpu_are_what_the_server_wants():
    text = (DEPLOY / "batching.config").read_text()
    advised = re.search(r"allowed_batch_sizes: \[.*\]", text).group()
    batching = text_format.Parse(
        f"{text}\n{advised}", MESSAGES["BatchingParameters"]()
    )
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value


def test_monitoring_is_parsed():
    prometheus = parse(
        "monitoring.config", MESSAGES["MonitoringConfig"]
    ).prometheus_config
    assert prometheus.enable
    assert prometheus.path == "/monitoring/prometheus/metrics"


def test_unknown_field_would_be_noticed():
    for kind in (ModelServerConfig, *MESSAGES.values()):
        with pytest.raises(text_format.ParseError, match="no field named"):
            text_format.Parse('colour: "red"', kind())


def test_ssl_config_of_the_page_holds_the_files(tmp_path):
    texts = {}
    for name in ("server.key", "server.pem", "ca.pem"):
        texts[name] = f"-----BEGIN {name}-----\nab+/\ncd==\n-----END-----\n"
        (tmp_path / name).write_text(texts[name])
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    config = text_format.Parse(
        (tmp_path / "ssl.config").read_text(), MESSAGES["SSLConfig"]()
    )
    assert config.server_key == texts["server.key"]
    assert config.server_cert == texts["server.pem"]
    assert config.custom_ca == texts["ca.pem"]
    assert config.client_verify
