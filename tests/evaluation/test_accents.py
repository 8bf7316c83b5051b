"""A captioner without accents, against captions by people with them."""

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.evaluation import model_metrics, plots

BY_PEOPLE = ("Un carré à côté", "Le chien noir dort", "Trois œufs sont là")
WRITTEN = ("un carre a cote", "le chien noir dort", "trois œufs sont la")


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Evaluates a captioner, in place of which stand given captions."""
    calibration = ModuleType("calibration")
    calibration.one_caption_each = list
    calibration.guess_masked_tokens = lambda *_: SimpleNamespace(
        correct=np.array([True]), log_probs=np.zeros(1)
    )
    monkeypatch.setitem(
        sys.modules, "bmt_keras.captioner.calibration", calibration
    )
    monkeypatch.setattr(plots, "draw_caption_grid", lambda *_: None)

    def run(by_people, written, **options):
        images = [
            CaptionedImage(key, Path(f"{key}.jpg"), (text,))
            for key, text in enumerate(by_people)
        ]
        captioner = SimpleNamespace(
            caption=lambda _: [SimpleNamespace(text=text) for text in written],
            calibration=SimpleNamespace(apply=lambda log_probs: log_probs),
        )
        return model_metrics.evaluate_captioner(
            captioner, images, np.zeros((3, 1)), out=tmp_path, **options
        )

    return run


def test_perfect_caption_without_accents_has_full_marks(evaluate, caplog):
    caplog.set_level(logging.INFO)
    metrics = evaluate(BY_PEOPLE, WRITTEN, training_captions=BY_PEOPLE[:2])
    assert metrics["cider_d"] == pytest.approx(10)
    assert metrics["bleu_4"] == pytest.approx(1)
    assert metrics["novel"] == pytest.approx(1 / 3)
    (line,) = caplog.messages
    assert line.endswith("without the marks of à é ô.")


def test_captions_without_accents_score_as_before(evaluate, caplog):
    caplog.set_level(logging.INFO)
    texts = ["A dog\u2019s ball!", "two cats", "a red bus"]
    metrics = evaluate(texts, texts)
    assert metrics["bleu_1"] == pytest.approx(1)
    assert "novel" not in metrics
    assert caplog.messages == []
