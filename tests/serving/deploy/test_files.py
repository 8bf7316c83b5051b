"""The operator's files fit together, and do what they are there for."""

import fnmatch
import json
import re
import subprocess
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from bmt_keras import contract

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

# Of the flags that the server knows, those that matter here.
FLAGS = {
    "port",
    "rest_api_port",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "allow_version_labels_for_unavailable_models",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "ssl_config_file",
    "enable_model_warmup",
    "enable_grpc_healthcheck_service",
    "grpc_channel_arguments",
}


def load(path):
    with path.open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def find(kind, name="bmt"):
    (found,) = (
        each
        for path in KUBERNETES.glob("*.yaml")
        for each in load(path)
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found["spec"]


def read_flags(arguments):
    return dict(
        argument.removeprefix("--").split("=", 1) for argument in arguments
    )


@pytest.fixture(scope="module")
def compose():
    (found,) = load(DEPLOY / "compose.yaml")
    return found["services"]["serving"]


@pytest.fixture(scope="module")
def container():
    (found,) = find("Deployment")["template"]["spec"]["containers"]
    return found


def test_kustomization_takes_every_file_in():
    (found,) = load(DEPLOY / "kustomization.yaml")
    assert sorted(DEPLOY / each for each in found["resources"]) == sorted(
        KUBERNETES.glob("*.yaml")
    )
    (generator,) = found["configMapGenerator"]
    assert all((DEPLOY / each).is_file() for each in generator["files"])
    volumes = find("Deployment")["template"]["spec"]["volumes"]
    assert generator["name"] in [
        each["configMap"]["name"] for each in volumes if "configMap" in each
    ]


def test_both_hosts_start_the_server_alike(compose, container):
    assert compose["entrypoint"] == container["command"]
    assert compose["command"] == container["args"]


def test_flags_are_the_servers_and_name_files_that_are_there(compose):
    flags = read_flags(compose["command"])
    assert set(flags) <= FLAGS
    for name, value in flags.items():
        if name.endswith("_file"):
            assert Path(value).parent == Path("/etc/serving")
            assert (DEPLOY / Path(value).name).is_file()
    assert flags["port"] == str(contract.GRPC_PORT)
    arguments = flags["grpc_channel_arguments"].split(",")
    for argument in arguments:
        assert re.fullmatch(r"grpc\.[a-z0-9_.]+_ms=\d+", argument)
    assert len(arguments) == 3


def test_models_are_mounted_read_only(compose, container):
    mounts = {each["target"]: each for each in compose["volumes"]}
    assert mounts["/models"]["read_only"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert mounts["/models"]["readOnly"]
    volumes = find("Deployment")["template"]["spec"]["volumes"]
    assert {each["name"] for each in volumes} == {
        each["name"] for each in container["volumeMounts"]
    }
    claims = [
        each["persistentVolumeClaim"]["claimName"]
        for each in volumes
        if "persistentVolumeClaim" in each
    ]
    assert [find("PersistentVolumeClaim", name) for name in claims]


def test_probes_ask_the_health_service_that_is_switched_on(container):
    flags = read_flags(container["args"])
    assert flags["enable_grpc_healthcheck_service"] == "true"
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["grpc"] == {
            "port": int(flags["port"]),
            "service": "PredictionService",
        }


def test_services_and_autoscaler_find_the_pods(container):
    deployment = find("Deployment")
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for name in ("bmt", "bmt-headless"):
        service = find("Service", name)
        assert service["selector"].items() <= labels.items()
        for port in service["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert find("Service", "bmt-headless")["clusterIP"] == "None"
    scaler = find("HorizontalPodAutoscaler")
    assert scaler["scaleTargetRef"]["name"] == "bmt"
    assert 1 < scaler["minReplicas"] < scaler["maxReplicas"]
    assert "replicas" not in deployment  # it would undo the autoscaler's


def test_grace_outlasts_a_request(compose):
    pod = find("Deployment")["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 30
    assert compose["stop_grace_period"] == "35s"


@pytest.mark.parametrize(
    ("status", "answer", "healthy"),
    [
        (200, {"model_version_status": [{"state": "AVAILABLE"}]}, True),
        (200, {"model_version_status": [{"state": "LOADING"}]}, False),
        (503, {"error": "UNAVAILABLE"}, False),
        (404, {"error": "Could not find any versions of model bmt"}, False),
        (None, None, False),
    ],
)
def test_health_check_tells_a_loaded_model(compose, status, answer, healthy):
    class Rest(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == f"/v1/models/{contract.MODEL_NAME}"
            self.send_response(status if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(json.dumps(answer, indent=1).encode())

        def log_message(self, *arguments):
            pass

    kind, *command = compose["healthcheck"]["test"]
    assert kind == "CMD"
    with HTTPServer(("127.0.0.1", 0), Rest) as server:
        port = str(server.server_port)
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.handle_request).start()
        command[-1] = command[-1].replace("8501", port)
        done = subprocess.run(command, capture_output=True, timeout=30)
    assert (done.returncode == 0) == healthy


def test_all_files_are_shipped():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    globs = pyproject["tool"]["setuptools"]["package-data"]["bmt_keras.serving"]
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for path in files:
        name = path.relative_to(ROOT / "serving").as_posix()
        assert any(fnmatch.fnmatch(name, glob) for glob in globs), name
