import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras import contract
from bmt_keras.errors import InputError
from bmt_keras.export import export_captioner


@pytest.fixture(scope="module", params=["tiny", "frozen_tower"])
def captioner(request):
    return request.getfixturevalue(f"{request.param}_captioner")


@pytest.fixture(scope="module")
def version(captioner, tmp_path_factory):
    return export_captioner(captioner, tmp_path_factory.mktemp("m") / "bmt")


class Session:
    """The SavedModel in a TF1 session, the road of TensorFlow Serving."""

    def __init__(self, folder):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        meta = tf.compat.v1.saved_model.loader.load(
            self._session, ["serve"], str(folder)
        )
        self.signatures = meta.signature_def

    def run(self, name, **inputs):
        signature = self.signatures[name]
        return self._session.run(
            {k: v.name for k, v in signature.outputs.items()},
            {signature.inputs[k].name: v for k, v in inputs.items()},
        )


@pytest.fixture(scope="module")
def session(version):
    return Session(version)


@pytest.fixture
def photos(sample_photos):
    return [photo.path.read_bytes() for photo in sample_photos[1]]


def test_served_captions_are_the_offline_ones(captioner, session, photos):
    served = session.run(contract.SERVING_DEFAULT, image_bytes=photos)
    offline = captioner.caption(photos)
    assert [text.decode() for text in served[contract.CAPTION]] == [
        caption.text for caption in offline
    ]
    np.testing.assert_allclose(
        served[contract.SCORE], [c.score for c in offline], atol=1e-4
    )
    assert served[contract.TOKEN_IDS].tolist() == [
        list(caption.token_ids) for caption in offline
    ]


def test_broken_photo_has_an_error_and_leaves_the_others_whole(
    captioner, session, photos
):
    mixed = [photos[0], b"no photo", photos[1]]
    served = session.run(contract.SERVING_DEFAULT, image_bytes=mixed)
    texts = [c.text.encode() for c in captioner.caption(photos[:2])]
    assert served[contract.CAPTION].tolist() == [texts[0], b"", texts[1]]
    errors = served[contract.ERROR].tolist()
    assert errors[0] == errors[2] == b""
    assert b"not a decodable image" in errors[1]
    assert served[contract.SCORE][1] == 0
    assert not served[contract.TOKEN_IDS][1].any()
    assert not served[contract.TOKEN_SCORES][1].any()


def test_empty_batch_has_an_empty_answer(session):
    served = session.run(
        contract.SERVING_DEFAULT, image_bytes=np.array([], object)
    )
    assert {len(value) for value in served.values()} == {0}


def test_embedding_then_captioning_equals_captioning(session, photos):
    embedded = session.run(contract.EMBED_IMAGE, image_bytes=photos)
    assert embedded[contract.ERROR].tolist() == [b""] * len(photos)
    written = session.run(
        contract.CAPTION_EMBEDDING,
        image_embedding=embedded[contract.IMAGE_EMBEDDING],
    )
    direct = session.run(contract.SERVING_DEFAULT, image_bytes=photos)
    assert written[contract.CAPTION].tolist() == (
        direct[contract.CAPTION].tolist()
    )


def test_masked_lm_gives_the_models_logits(captioner, session):
    token_ids = np.array([[2, 4, 7, 3, 0], [2, 4, 4, 4, 3]], np.int32)
    padding_mask = (token_ids != 0).astype(np.int32)
    shape = (2, *captioner.graph.embedding_shape)
    embedding = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    served = session.run(
        contract.MASKED_LM,
        token_ids=token_ids,
        padding_mask=padding_mask,
        image_embedding=embedding,
    )
    expected = captioner.model.token_logits(
        *map(tf.constant, (token_ids, padding_mask, embedding))
    )
    np.testing.assert_allclose(served[contract.LOGITS], expected, atol=1e-4)


def test_signatures_have_the_contracts_names(session):
    written = {
        contract.CAPTION,
        contract.SCORE,
        contract.TOKEN_IDS,
        contract.TOKEN_SCORES,
    }
    found = {
        name: (set(one.inputs), set(one.outputs))
        for name, one in session.signatures.items()
        if not name.startswith("__")
    }
    assert found == {
        contract.SERVING_DEFAULT: (
            {contract.IMAGE_BYTES},
            {*written, contract.ERROR},
        ),
        contract.EMBED_IMAGE: (
            {contract.IMAGE_BYTES},
            {contract.IMAGE_EMBEDDING, contract.ERROR},
        ),
        contract.CAPTION_EMBEDDING: ({contract.IMAGE_EMBEDDING}, written),
        contract.MASKED_LM: (
            {
                contract.TOKEN_IDS,
                contract.PADDING_MASK,
                contract.IMAGE_EMBEDDING,
            },
            {contract.LOGITS},
        ),
    }
    for name, one in session.signatures.items():
        if name.startswith("__"):
            continue
        for tensor in [*one.inputs.values(), *one.outputs.values()]:
            assert tensor.tensor_shape.dim[0].size == -1


def test_every_weight_is_stored_once(captioner, version):
    models = {captioner.model, captioner.image_encoder}
    if captioner.model.image_encoder is not None:
        models = {captioner.model}
    weights = sum(
        keras_weight.value.numpy().nbytes
        for model in models
        for keras_weight in model.weights
    )
    stored = sum(f.stat().st_size for f in (version / "variables").iterdir())
    # A few kilobytes name the tensors, whatever their size.
    assert weights <= stored <= 1.05 * weights + 16_384


def test_python_loads_it_too(captioner, version, photos):
    loaded = tf.saved_model.load(str(version))
    served = loaded.signatures[contract.SERVING_DEFAULT](
        image_bytes=tf.constant(photos)
    )
    assert [text.decode() for text in served[contract.CAPTION].numpy()] == [
        caption.text for caption in captioner.caption(photos)
    ]


def test_versions_count_up_and_are_never_overwritten(
    tiny_captioner, tmp_path, monkeypatch
):
    from bmt_keras.export import saved_model

    monkeypatch.setattr(saved_model, "check_signatures", lambda *args: None)
    base = tmp_path / "bmt"
    (base / "notes").mkdir(parents=True)
    assert export_captioner(tiny_captioner, base, version=7).name == "7"
    assert export_captioner(tiny_captioner, base).name == "8"
    with pytest.raises(InputError, match="7: the version exists already"):
        export_captioner(tiny_captioner, base, version=7)
    with pytest.raises(InputError, match="at least 1"):
        export_captioner(tiny_captioner, base, version=0)
    assert sorted(p.name for p in base.iterdir()) == ["7", "8", "notes"]


def test_failed_check_publishes_nothing(tiny_captioner, tmp_path, monkeypatch):
    from bmt_keras.export import saved_model

    def fail(*args):
        raise RuntimeError("an output differs")

    monkeypatch.setattr(saved_model, "check_signatures", fail)
    with pytest.raises(RuntimeError, match="an output differs"):
        export_captioner(tiny_captioner, tmp_path / "bmt")
    assert list((tmp_path / "bmt").iterdir()) == []


def test_module_runs_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bmt_keras.export", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--captioner" in done.stdout
