"""What a run on several devices is asked, checked before TensorFlow loads."""

import json
import os

from bmt_keras.errors import InputError

STRATEGIES = ("mirrored", "multi-worker", "tpu")
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def check_strategy(name: str | None, *, tpu_address: str | None = None) -> None:
    """Checks the arguments of `open_strategy`, and the environment."""
    if name is not None and name not in STRATEGIES:
        raise InputError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: "
            f"{name}."
        )
    if name != "tpu" and tpu_address is not None:
        raise InputError(
            "`tpu_address` must be given with the strategy 'tpu' alone. "
            f"Received: strategy={name}, tpu_address={tpu_address}."
        )
    if name == "multi-worker":
        _check_tf_config(os.environ.get("TF_CONFIG", ""))
    if name == "tpu" and not (tpu_address or os.environ.get("TPU_NAME")):
        raise InputError(
            "`tpu_address` must name a TPU ('local' on a TPU's own machine), "
            "or the environment's TPU_NAME. Received: none."
        )


def _check_tf_config(text: str) -> None:
    """Checks what would otherwise fail late, or wait for ever."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        members, index = cluster[task["type"]], int(task["index"])
        all_addresses = [x for addresses in cluster.values() for x in addresses]
        if not (
            set(cluster) <= {"chief", "worker"}
            and all(isinstance(each, list) for each in cluster.values())
            and all(":" in address for address in all_addresses)
            and 0 <= index < len(members)
            and len(cluster.get("chief", ())) <= 1
        ):
            raise ValueError("addresses that do not fit")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "TF_CONFIG: expected the addresses of all workers (and of one "
            "'chief' at most) and which of them this process is, as in "
            f"{_EXAMPLE}; found {text or 'nothing'}."
        ) from error
