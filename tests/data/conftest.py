"""Images of one colour, which tells them apart, and tokenizer models."""

import io

import cv2
import numpy as np
import pytest
import sentencepiece

from bmt_keras.data.captions import CaptionedImage


@pytest.fixture
def make_images(tmp_path):
    """Writes images; the red level of each is ten times its image id."""

    def make(image_ids, *, captions=("a red square",), broken=()):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        images = []
        for image_id in image_ids:
            path = folder / f"{image_id}.png"
            pixels = np.full((5, 7, 3), (0, 0, 10 * image_id), np.uint8)
            encoded = cv2.imencode(".png", pixels)[1].tobytes()
            path.write_bytes(b"no image" if image_id in broken else encoded)
            images.append(CaptionedImage(image_id, path, tuple(captions)))
        return images

    return make


@pytest.fixture(scope="session")
def train_sentencepiece():
    """Trains a model of pieces with ALBERT's special tokens."""

    def train(texts, **options):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc",
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece="<pad>",
            unk_piece="<unk>",
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            minloglevel=2,
            **options,
        )
        return model.getvalue()

    return train
