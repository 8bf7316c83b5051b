"""The operator's YAML follows the schemas of its hosts.

The schemas are ours: they allow the keys that the files use, and no others.
"""

from pathlib import Path

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def schema(form):
    """The JSON schema of a form.

    A dictionary is a mapping with these keys and no others, of which those
    with a question mark may be missing, or with any, if its key is `str`. A
    list is one of its item, or more; a text is a pattern; a set, a tuple or a
    range is one of its members; `bool` is itself.
    """
    if isinstance(form, dict) and str in form:
        return {"type": "object", "additionalProperties": schema(form[str])}
    if isinstance(form, dict):
        return {
            "type": "object",
            "properties": {k.rstrip("?"): schema(v) for k, v in form.items()},
            "required": [key for key in form if not key.endswith("?")],
            "additionalProperties": False,
        }
    if isinstance(form, list):
        return {"type": "array", "minItems": 1, "items": schema(form[0])}
    if isinstance(form, str):
        return {"type": "string", "pattern": f"^{form}$"}
    if isinstance(form, set):
        return {"enum": sorted(form)}
    if isinstance(form, tuple):
        return {"oneOf": [schema(each) for each in form]}
    if isinstance(form, range):
        most = form.stop - 1
        return {"type": "integer", "minimum": form.start, "maximum": most}
    assert form is bool
    return {"type": "boolean"}


TEXT = r"[\s\S]+"
IMAGE = r"tensorflow/serving:2\.20\.0"
NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SPAN = "[0-9]+(s|m)"
SIZE = "[0-9]+(Mi|Gi)"
LABELS = {str: TEXT}
NUMBER, PORT = range(2**31), range(1, 2**16)
ARGUMENT = "--[a-z_]+=[^ ]+"

COMPOSE = {
    "name": NAME,
    "services": {
        "serving": {
            "image": IMAGE,
            "entrypoint": [TEXT],
            "command": [ARGUMENT],
            "ports?": [r"127\.0\.0\.1:\d+:\d+"],
            "volumes": [
                {
                    "type": "bind",
                    "source": TEXT,
                    "target": "/.*",
                    "read_only": {True},
                }
            ],
            "healthcheck": {
                "test": [TEXT],
                "interval": SPAN,
                "timeout": SPAN,
                "retries": NUMBER,
                "start_period": SPAN,
            },
            "read_only?": bool,
            "tmpfs?": [TEXT],
            "cap_drop?": [TEXT],
            "security_opt?": [TEXT],
            "mem_limit?": "[0-9]+g",
            "restart?": {"no", "always", "unless-stopped"},
            "stop_grace_period?": SPAN,
        }
    },
}
PROBE = {
    "grpc": {"port": PORT, "service?": TEXT},
    "periodSeconds?": NUMBER,
    "timeoutSeconds?": NUMBER,
    "failureThreshold?": NUMBER,
}
AMOUNTS = {"cpu?": TEXT, "memory?": SIZE}
CONTAINER = {
    "name": NAME,
    "image": IMAGE,
    "command": [TEXT],
    "args": [ARGUMENT],
    "ports": [{"name?": NAME, "containerPort": PORT}],
    "startupProbe?": PROBE,
    "readinessProbe?": PROBE,
    "livenessProbe?": PROBE,
    "resources": {"requests": AMOUNTS, "limits?": AMOUNTS},
    "securityContext?": {
        "allowPrivilegeEscalation?": bool,
        "readOnlyRootFilesystem?": bool,
        "capabilities?": {"drop?": [TEXT]},
    },
    "volumeMounts": [{"name": NAME, "mountPath": TEXT, "readOnly?": bool}],
}
CLAIM = {"claimName": NAME, "readOnly?": bool}
VOLUME = (
    {"name": NAME, "persistentVolumeClaim": CLAIM},
    {"name": NAME, "configMap": {"name": NAME}},
    {"name": NAME, "emptyDir": {}},
)
POD = {
    "terminationGracePeriodSeconds?": NUMBER,
    "automountServiceAccountToken?": bool,
    "securityContext?": {
        "runAsNonRoot?": bool,
        "runAsUser?": NUMBER,
        "runAsGroup?": NUMBER,
        "seccompProfile?": {"type?": "RuntimeDefault"},
    },
    "topologySpreadConstraints?": [
        {
            "maxSkew": NUMBER,
            "topologyKey": TEXT,
            "whenUnsatisfiable": {"ScheduleAnyway", "DoNotSchedule"},
            "labelSelector?": {"matchLabels?": LABELS},
        }
    ],
    "containers": [CONTAINER],
    "volumes": [VOLUME],
}
SERVICE_PORT = {"name": NAME, "port": PORT, "targetPort": NAME}
UTILIZATION = {"type": "Utilization", "averageUtilization": NUMBER}
# By kind: the version of its interface, and the form of `spec`.
KINDS = {
    "Deployment": (
        "apps/v1",
        {
            "selector": {"matchLabels": LABELS},
            "strategy?": {
                "type?": "RollingUpdate",
                "rollingUpdate?": {
                    "maxUnavailable?": NUMBER,
                    "maxSurge?": NUMBER,
                },
            },
            "template": {
                "metadata": {"labels?": LABELS, "annotations?": LABELS},
                "spec": POD,
            },
        },
    ),
    "Service": (
        "v1",
        {
            "clusterIP?": "None",
            "selector": LABELS,
            "ports": [SERVICE_PORT | {"appProtocol?": TEXT}],
        },
    ),
    "HorizontalPodAutoscaler": (
        "autoscaling/v2",
        {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": NAME,
            },
            "minReplicas": NUMBER,
            "maxReplicas": NUMBER,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": {"cpu", "memory"},
                        "target": UTILIZATION,
                    },
                }
            ],
            "behavior?": {
                "scaleDown?": {"stabilizationWindowSeconds?": NUMBER}
            },
        },
    ),
    "PersistentVolumeClaim": (
        "v1",
        {
            "accessModes": [{"ReadWriteMany", "ReadOnlyMany"}],
            "resources": {"requests": {"storage?": SIZE}},
        },
    ),
}


def load(path):
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def check_manifest(found):
    version, spec = KINDS[found["kind"]]
    metadata = {"name": NAME, "labels?": LABELS}
    form = {"apiVersion": version, "kind": TEXT, "metadata": metadata}
    jsonschema.validate(found, schema(form | {"spec": spec}))


def test_compose_file_follows_its_schema():
    (found,) = load(DEPLOY / "compose.yaml")
    jsonschema.validate(found, schema(COMPOSE))


@pytest.mark.parametrize(
    "path", sorted(KUBERNETES.glob("*.yaml")), ids=lambda path: path.name
)
def test_manifest_follows_its_schema(path):
    for each in load(path):
        check_manifest(each)


def test_schemas_refuse_a_slip_of_the_pen():
    (found,) = load(KUBERNETES / "deployment.yaml")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(jsonschema.ValidationError, match="readynessProbe"):
        check_manifest(found)
