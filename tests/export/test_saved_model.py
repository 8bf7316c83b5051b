import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from bmt_keras import contract


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


def test_embedding_then_captioning_equals_captioning(session, photos):
    embedded = session.run(contract.EMBED_IMAGE, image_bytes=photos)
    assert embedded[contract.ERROR].tolist() == [b""] * len(photos)
    embedding = embedded[contract.IMAGE_EMBEDDING]
    written = session.run(contract.CAPTION_EMBEDDING, image_embedding=embedding)
    direct = session.run(contract.SERVING_DEFAULT, image_bytes=photos)
    captions = (each[contract.CAPTION].tolist() for each in (written, direct))
    assert next(captions) == next(captions)


def test_masked_lm_gives_the_models_logits(captioner, session):
    token_ids = np.array([[2, 4, 7, 3, 0], [2, 4, 4, 4, 3]], np.int32)
    padding_mask = (token_ids != 0).astype(np.int32)
    shape = (2, *captioner.model.image_embedding_shape)
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
    written = "caption score token_ids token_scores"
    expected = {
        "serving_default": ("image_bytes", f"{written} error"),
        "embed_image": ("image_bytes", "image_embedding error"),
        "caption_embedding": ("image_embedding", written),
        "masked_lm": ("token_ids padding_mask image_embedding", "logits"),
        "caption_with_length": ("image_bytes length", f"{written} error"),
        "fill_mask": (
            "image_bytes text",
            "text candidates candidate_probabilities error",
        ),
        "score_caption": ("image_bytes text", "score total_score error"),
    }
    assert session.signatures.keys() == expected.keys()
    for name, one in session.signatures.items():
        inputs, outputs = (set(names.split()) for names in expected[name])
        assert (set(one.inputs), set(one.outputs)) == (inputs, outputs)
        for tensor in [*one.inputs.values(), *one.outputs.values()]:
            assert tensor.tensor_shape.dim[0].size == -1


def test_outputs_have_stable_shapes(captioner, session):
    most = captioner.graph.max_caption_tokens
    per_token = [contract.TOKEN_IDS, contract.TOKEN_SCORES]
    per_mask = [contract.CANDIDATES, contract.CANDIDATE_PROBABILITIES]
    for name, named, shape in (
        (contract.SERVING_DEFAULT, per_token, [most + 2]),
        (contract.FILL_MASK, per_mask, [most, 5]),
    ):
        for output, tensor in session.signatures[name].outputs.items():
            sizes = [dim.size for dim in tensor.tensor_shape.dim]
            assert sizes == [-1, *(shape if output in named else [])], output


# === Lengths ===


def test_asked_lengths_are_those_of_the_library(captioner, session, photos):
    lengths = np.array([3, 0, 7, captioner.graph.max_caption_tokens], np.int32)
    served = session.run(
        contract.CAPTION_WITH_LENGTH, image_bytes=photos[:4], length=lengths
    )
    offline = [
        captioner.caption([photo], length=int(length) or None)[0]
        for photo, length in zip(photos, lengths, strict=False)
    ]
    assert served[contract.CAPTION].tolist() == [
        caption.text.encode() for caption in offline
    ]
    assert [len(offline[i].tokens) for i in (0, 2, 3)] == [3, 7, 16]
    np.testing.assert_allclose(
        served[contract.SCORE], [c.score for c in offline], atol=1e-4
    )


def test_length_out_of_range_is_its_rows_error(captioner, session, photos):
    served = session.run(
        contract.CAPTION_WITH_LENGTH,
        image_bytes=[photos[0], photos[1], b"no photo", photos[2]],
        length=np.array([17, 4, -1, -1], np.int32),
    )
    errors = [error.decode() for error in served[contract.ERROR]]
    expected = "`length`: expected a number of tokens from 1 to 16, or 0"
    assert errors[0].startswith(expected)
    assert errors[0].endswith("found 17.")
    assert errors[1] == ""
    assert "not a decodable image" in errors[2]
    assert errors[3].endswith("found -1.")
    (caption,) = captioner.caption([photos[1]], length=4)
    assert served[contract.CAPTION].tolist() == [
        *(b"", caption.text.encode(), b"", b"")
    ]
    assert not served[contract.TOKEN_IDS][[0, 2, 3]].any()


@pytest.mark.parametrize(
    ("signature", "name", "value"),
    [
        (contract.SERVING_DEFAULT, None, None),
        (contract.CAPTION_WITH_LENGTH, "length", 1),
        (contract.FILL_MASK, "text", "[MASK]"),
        (contract.SCORE_CAPTION, "text", "red"),
    ],
)
def test_empty_batches_and_uneven_ones(session, photos, signature, name, value):
    def run(num_photos, num_values):
        inputs = {"image_bytes": photos[:num_photos]}
        if name is not None:
            dtype = object if name == "text" else np.int32
            inputs[name] = np.array([value] * num_values, dtype)
        return session.run(signature, **inputs)

    assert {len(values) for values in run(0, 0).values()} == {0}
    for count in (0, 1, 3) if name else ():
        rule = f"`{name}` must be one for each of `image_bytes`"
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            run(2, count)


# === What is stored ===


RUN_WITHOUT_TEXT_OPS = """
import json, sys
import tensorflow as tf
v1 = tf.compat.v1
with v1.Session(graph=tf.Graph()) as session:
    # All ops of the graph must be known, whatever is asked of it.
    meta = v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    one = meta.signature_def["serving_default"]
    images = {one.inputs["image_bytes"].name: [sys.stdin.buffer.read()]}
    caption = session.run(one.outputs["caption"].name, images)[0].decode()
assert "tensorflow_text" not in sys.modules
print(json.dumps([caption, sorted(meta.signature_def)]))
"""


def test_export_without_texts_needs_tensorflows_ops_alone(
    textless_version, photos, tiny_captioner
):
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_TEXT_OPS, str(textless_version)],
        input=photos[0],
        capture_output=True,
        check=True,
    )
    caption, names = json.loads(done.stdout)
    assert caption == tiny_captioner.caption([photos[0]])[0].text
    assert not {contract.FILL_MASK, contract.SCORE_CAPTION} & set(names)


def test_no_graph_is_stored_twice(version):
    proto = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    library = proto.meta_graphs[0].graph_def.library.function
    counts = Counter(node.op for each in library for node in each.node_def)
    # One way to read photos, and one each from texts to tokens and back.
    assert counts["ExtractJpegShape"] == 1
    assert counts["SentencepieceOp"] == 1
    assert counts["ReduceJoin"] == 1
    # The model, however often what writes or scores captions calls it.
    names = [each.signature.name for each in library]
    assert len([name for name in names if "_token_logits_" in name]) == 1


def test_every_weight_is_stored_once(captioner, version):
    models = [captioner.model]
    if captioner.model.image_tower is None:
        models.append(captioner.image_tower)
    weights = sum(w.numpy().nbytes for model in models for w in model.weights)
    stored = sum(f.stat().st_size for f in (version / "variables").iterdir())
    # A few kilobytes name the tensors, whatever their size.
    assert weights <= stored <= 1.05 * weights + 16_384


def test_python_loads_it_too(captioner, version, photos):
    served = tf.saved_model.load(str(version)).signatures
    outputs = served[contract.SERVING_DEFAULT](image_bytes=tf.constant(photos))
    assert [text.decode() for text in outputs[contract.CAPTION].numpy()] == [
        caption.text for caption in captioner.caption(photos)
    ]
