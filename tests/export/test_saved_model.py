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
        contract.CAPTION_WITH_LENGTH: (
            {contract.IMAGE_BYTES, contract.LENGTH},
            {*written, contract.ERROR},
        ),
        contract.FILL_MASK: (
            {contract.IMAGE_BYTES, contract.TEXT},
            {
                contract.TEXT,
                contract.CANDIDATES,
                contract.CANDIDATE_PROBABILITIES,
                contract.ERROR,
            },
        ),
        contract.SCORE_CAPTION: (
            {contract.IMAGE_BYTES, contract.TEXT},
            {contract.SCORE, contract.TOTAL_SCORE, contract.ERROR},
        ),
    }
    for one in session.signatures.values():
        for tensor in [*one.inputs.values(), *one.outputs.values()]:
            assert tensor.tensor_shape.dim[0].size == -1


def test_outputs_have_stable_shapes(captioner, session):
    words = captioner.graph.max_caption_tokens
    expected = {
        contract.SERVING_DEFAULT: {
            contract.TOKEN_IDS: [words + 2],
            contract.TOKEN_SCORES: [words + 2],
        },
        contract.FILL_MASK: {
            contract.CANDIDATES: [words, 5],
            contract.CANDIDATE_PROBABILITIES: [words, 5],
        },
    }
    for name, shapes in expected.items():
        for output, tensor in session.signatures[name].outputs.items():
            sizes = [dim.size for dim in tensor.tensor_shape.dim]
            assert sizes == [-1, *shapes.get(output, [])], (name, output)


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


def test_each_photo_needs_its_length(session, photos):
    for lengths in ([1], [1, 2, 3], []):
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match="`length` must be one for each of `image_bytes`",
        ):
            session.run(
                contract.CAPTION_WITH_LENGTH,
                image_bytes=photos[:2],
                length=np.array(lengths, np.int32),
            )


# === What is stored ===


def functions_of(version):
    proto = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    (graph,) = proto.meta_graphs
    library = {f.signature.name: f for f in graph.graph_def.library.function}
    return graph, library


def reachable_ops(nodes, library):
    """Names of the ops that nodes run, through all functions they call."""
    found, seen, waiting = set(), set(), list(nodes)
    while waiting:
        node = waiting.pop()
        found.add(node.op)
        called = [node.op]
        for value in node.attr.values():
            called += [value.func.name, *(f.name for f in value.list.func)]
        for name in set(called) & library.keys() - seen:
            seen.add(name)
            waiting += library[name].node_def
    return found - library.keys()


def test_default_signature_needs_tensorflows_ops_alone(
    version, textless_version, photos, tiny_captioner
):
    code = (
        "import json, sys, numpy as np, tensorflow as tf\n"
        "from tensorflow.python.client import pywrap_tf_session as c\n"
        "from tensorflow.core.framework.op_def_pb2 import OpList\n"
        "v1 = tf.compat.v1\n"
        "with v1.Session(graph=tf.Graph()) as session:\n"
        "    meta = v1.saved_model.loader.load(session, ['serve'], sys.argv[1])"
        "\n"
        "    one = meta.signature_def['serving_default']\n"
        "    found = session.run(one.outputs['caption'].name,"
        " {one.inputs['image_bytes'].name: [sys.stdin.buffer.read()]})\n"
        "ops = OpList.FromString(bytes(c.TF_GetBuffer(c.TF_GetAllOpList())))\n"
        "names = sorted(meta.signature_def)\n"
        "ops = [op.name for op in ops.op]\n"
        "assert 'tensorflow_text' not in sys.modules\n"
        "print(json.dumps([found[0].decode(), names, ops]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(textless_version)],
        input=photos[0],
        capture_output=True,
        check=True,
    )
    caption, names, core = json.loads(done.stdout)
    assert caption == tiny_captioner.caption([photos[0]])[0].text
    assert not {contract.FILL_MASK, contract.SCORE_CAPTION} & set(names)
    graph, library = functions_of(version)
    for name, uses_texts in (
        (contract.SERVING_DEFAULT, False),
        (contract.FILL_MASK, True),
    ):
        (start,) = {
            tensor.name.split(":")[0]
            for tensor in graph.signature_def[name].outputs.values()
        }
        nodes = [n for n in graph.graph_def.node if n.name == start]
        beyond = reachable_ops(nodes, library) - set(core)
        assert bool(beyond) == uses_texts, (name, beyond)


def test_no_graph_is_stored_twice(version):
    _, library = functions_of(version)
    counts = Counter(n.op for f in library.values() for n in f.node_def)
    # One way to read photos, and one each from texts to tokens and back.
    assert counts["ExtractJpegShape"] == 1
    assert counts["SentencepieceOp"] == 1
    assert counts["ReduceJoin"] == 1
    # The model, however often it is called: with padding for `masked_lm`,
    # without it for all that writes or scores captions.
    called = [name for name in library if "_token_logits_" in name]
    assert len(called) == 2


def test_every_weight_is_stored_once(captioner, version):
    models = {captioner.model, captioner.image_tower}
    if captioner.model.image_tower is not None:
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
