"""The operator's YAML follows the schemas of its hosts.

The schemas are ours: they allow the keys that the files use, and no others.
"""

from pathlib import Path

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
IMAGE = "tensorflow/serving:2.20.0"


def table(required=(), **properties):
    """The schema of a mapping with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def rows(schema):
    return {"type": "array", "minItems": 1, "items": schema}


TEXT = {"type": "string", "minLength": 1}
FLAG = {"type": "boolean"}
NUMBER = {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
TEXTS = {"type": "object", "additionalProperties": TEXT}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
SPAN = {"type": "string", "pattern": "^[0-9]+(s|m)$"}
SIZE = {"type": "string", "pattern": "^[0-9]+(Mi|Gi)$"}

BIND = table(
    ["type", "source", "target", "read_only"],
    type={"const": "bind"},
    source=TEXT,
    target={"type": "string", "pattern": "^/"},
    read_only={"const": True},
)
COMPOSE = table(
    ["name", "services"],
    name=NAME,
    services=table(
        ["serving"],
        serving=table(
            ["image", "entrypoint", "command", "volumes", "healthcheck"],
            image={"const": IMAGE},
            entrypoint=rows(TEXT),
            command=rows({"type": "string", "pattern": "^--[a-z_]+=[^ ]+$"}),
            ports=rows(
                {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}
            ),
            volumes=rows(BIND),
            healthcheck=table(
                ["test", "interval", "timeout", "retries", "start_period"],
                test=rows(TEXT),
                interval=SPAN,
                timeout=SPAN,
                retries=NUMBER,
                start_period=SPAN,
            ),
            read_only=FLAG,
            tmpfs=rows(TEXT),
            cap_drop=rows(TEXT),
            security_opt=rows(TEXT),
            mem_limit={"type": "string", "pattern": "^[0-9]+g$"},
            restart={"enum": ["no", "always", "unless-stopped"]},
            stop_grace_period=SPAN,
        ),
    ),
)
METADATA = table(["name"], name=NAME, labels=TEXTS)
PROBE = table(
    ["grpc"],
    grpc=table(["port"], port=PORT, service=TEXT),
    periodSeconds=NUMBER,
    timeoutSeconds=NUMBER,
    failureThreshold=NUMBER,
)
AMOUNTS = table(cpu=TEXT, memory=SIZE)
CONTAINER = table(
    ["name", "image", "command", "args", "ports", "resources", "volumeMounts"],
    name=NAME,
    image={"const": IMAGE},
    command=rows(TEXT),
    args=rows({"type": "string", "pattern": "^--[a-z_]+=[^ ]+$"}),
    ports=rows(table(["containerPort"], name=NAME, containerPort=PORT)),
    startupProbe=PROBE,
    readinessProbe=PROBE,
    livenessProbe=PROBE,
    resources=table(["requests"], requests=AMOUNTS, limits=AMOUNTS),
    securityContext=table(
        allowPrivilegeEscalation=FLAG,
        readOnlyRootFilesystem=FLAG,
        capabilities=table(drop=rows(TEXT)),
    ),
    volumeMounts=rows(
        table(["name", "mountPath"], name=NAME, mountPath=TEXT, readOnly=FLAG)
    ),
)
VOLUME = {
    "oneOf": [
        table(
            ["name", "persistentVolumeClaim"],
            name=NAME,
            persistentVolumeClaim=table(
                ["claimName"], claimName=NAME, readOnly=FLAG
            ),
        ),
        table(
            ["name", "configMap"],
            name=NAME,
            configMap=table(["name"], name=NAME),
        ),
        table(["name", "emptyDir"], name=NAME, emptyDir=table()),
    ]
}
POD = table(
    ["containers", "volumes"],
    terminationGracePeriodSeconds=NUMBER,
    automountServiceAccountToken=FLAG,
    securityContext=table(
        runAsNonRoot=FLAG,
        runAsUser=NUMBER,
        runAsGroup=NUMBER,
        seccompProfile=table(type={"const": "RuntimeDefault"}),
    ),
    topologySpreadConstraints=rows(
        table(
            ["maxSkew", "topologyKey", "whenUnsatisfiable"],
            maxSkew=NUMBER,
            topologyKey=TEXT,
            whenUnsatisfiable={"enum": ["ScheduleAnyway", "DoNotSchedule"]},
            labelSelector=table(matchLabels=TEXTS),
        )
    ),
    containers=rows(CONTAINER),
    volumes=rows(VOLUME),
)


def resource(version, kind, spec):
    return table(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )


KINDS = {
    "Deployment": resource(
        "apps/v1",
        "Deployment",
        table(
            ["selector", "template"],
            selector=table(["matchLabels"], matchLabels=TEXTS),
            strategy=table(
                type={"const": "RollingUpdate"},
                rollingUpdate=table(maxUnavailable=NUMBER, maxSurge=NUMBER),
            ),
            template=table(
                ["metadata", "spec"],
                metadata=table(labels=TEXTS, annotations=TEXTS),
                spec=POD,
            ),
        ),
    ),
    "Service": resource(
        "v1",
        "Service",
        table(
            ["selector", "ports"],
            clusterIP={"const": "None"},
            selector=TEXTS,
            ports=rows(
                table(
                    ["name", "port", "targetPort"],
                    name=NAME,
                    port=PORT,
                    targetPort=NAME,
                    appProtocol=TEXT,
                )
            ),
        ),
    ),
    "HorizontalPodAutoscaler": resource(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        table(
            ["scaleTargetRef", "minReplicas", "maxReplicas", "metrics"],
            scaleTargetRef=table(
                ["apiVersion", "kind", "name"],
                apiVersion={"const": "apps/v1"},
                kind={"const": "Deployment"},
                name=NAME,
            ),
            minReplicas=NUMBER,
            maxReplicas=NUMBER,
            metrics=rows(
                table(
                    ["type", "resource"],
                    type={"const": "Resource"},
                    resource=table(
                        ["name", "target"],
                        name={"enum": ["cpu", "memory"]},
                        target=table(
                            ["type", "averageUtilization"],
                            type={"const": "Utilization"},
                            averageUtilization=NUMBER,
                        ),
                    ),
                )
            ),
            behavior=table(scaleDown=table(stabilizationWindowSeconds=NUMBER)),
        ),
    ),
    "PersistentVolumeClaim": resource(
        "v1",
        "PersistentVolumeClaim",
        table(
            ["accessModes", "resources"],
            accessModes=rows({"enum": ["ReadWriteMany", "ReadOnlyMany"]}),
            resources=table(["requests"], requests=table(storage=SIZE)),
        ),
    ),
}


def load(path):
    with path.open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def test_compose_file_follows_its_schema():
    (found,) = load(DEPLOY / "compose.yaml")
    jsonschema.validate(found, COMPOSE)


@pytest.mark.parametrize(
    "path", sorted(KUBERNETES.glob("*.yaml")), ids=lambda path: path.name
)
def test_manifest_follows_its_schema(path):
    for each in load(path):
        jsonschema.validate(each, KINDS[each["kind"]])


def test_schemas_refuse_a_slip_of_the_pen():
    (found,) = load(KUBERNETES / "deployment.yaml")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(jsonschema.ValidationError, match="readynessProbe"):
        jsonschema.validate(found, KINDS["Deployment"])
