"""Captioners exported once a test run, and a session that runs the exports."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401 - the signatures of texts use its ops

from bmt_keras.export import export_captioner

METRICS = {"cider_d": 0.4567891, "num_photos": 8}


class Session:
    """The SavedModel in a TF1 session, the road of TensorFlow Serving."""

    def __init__(self, folder):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        meta = tf.compat.v1.saved_model.loader.load(
            self._session, ["serve"], str(folder)
        )
        self.signatures = {
            name: one
            for name, one in meta.signature_def.items()
            if not name.startswith("__")
        }

    def run(self, name, **inputs):
        signature = self.signatures[name]
        return self._session.run(
            {k: v.name for k, v in signature.outputs.items()},
            {
                signature.inputs[k].name: np.array(v, object)
                if isinstance(v, list)
                else v
                for k, v in inputs.items()
            },
        )


@pytest.fixture(scope="session", params=["tiny", "frozen_tower"])
def captioner(request):
    return request.getfixturevalue(f"{request.param}_captioner")


@pytest.fixture(scope="session")
def version(captioner, tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "bmt"
    return export_captioner(captioner, base, metrics=METRICS)


@pytest.fixture(scope="session")
def textless_version(tiny_captioner, tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "bmt"
    return export_captioner(tiny_captioner, base, text_inputs=False)


@pytest.fixture(scope="session")
def session(version):
    return Session(version)


@pytest.fixture(scope="session")
def photos(sample_photos):
    return [photo.path.read_bytes() for photo in sample_photos[1]]
