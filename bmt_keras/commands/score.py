"""`bmt score`: captions that anyone wrote against captions by people."""

import json
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from bmt_keras import evaluation
from bmt_keras.atomic import write_atomically
from bmt_keras.commands import options, startup
from bmt_keras.commands.evaluate import print_table
from bmt_keras.data.captions import read_references
from bmt_keras.errors import InputError


def score(
    results: Annotated[Path, typer.Argument()],
    captions: options.Captions,
    out: Path | None = None,
    document_frequencies: Path | None = None,
    skip_missing: bool = False,
    java_scores: options.JavaScores = False,
    split: options.Split = None,
) -> None:
    """Score captions that anyone wrote, without a captioner.

    Options:
        results: COCO's results (.json), .jsonl or .csv.
        out: Also write scores into this .json.
        document_frequencies: Captions that weigh CIDEr-D's n-grams.
        skip_missing: Allow missing captions.
    """
    startup.require("pycocoevalcap")
    if out is not None and out.exists():
        raise InputError(
            f"{out}: expected no such file yet, found one; delete it, or give "
            "another name."
        )
    known = read_references(captions, split=split)
    written = evaluation.read_results(results, known, skip_missing=skip_missing)
    references = {key: texts for key, _, texts in known if key in written}
    source = document_frequencies or captions
    documents = [texts for *_, texts in read_references(source) if texts]
    if len(documents) < 2:
        raise InputError(
            f"{source}: expected captions of two images at least, as CIDEr-D "
            f"needs, found {len(documents)}; give --document-frequencies."
        )
    cider = evaluation.CiderD(references, documents)
    cider_d = {key: cider.score(key, text) for key, text in written.items()}
    shuffled = evaluation.shuffle_predictions(written)
    scores = {
        **evaluation.score_captions(written, references),
        "cider_d": fmean(cider_d.values()),
        "cider_d_shuffled": fmean(cider.score(*x) for x in shuffled.items()),
        **evaluation.measure_wording(list(written.values())),
        "num_images": len(written),
    }
    if java_scores:
        scores |= evaluation.score_with_java(written, references)
    if "spice" in scores:
        scores["spider_by_cider_d"] = (scores["spice"] + scores["cider_d"]) / 2
    if out is not None:
        images = [
            {"image_id": key, "file_name": name, "cider_d": cider_d[key]}
            | _score_alone(written[key], texts)
            for key, name, texts in known
            if key in written
        ]
        content = {"scores": scores, "document_frequencies": str(source)}
        with write_atomically(out) as file:
            json.dump(content | {"images": images}, file, indent=2)
    typer.echo(
        f"CIDEr-D by document frequencies of {len(documents)} images ({source})"
    )
    print_table(scores)


def _score_alone(text: str, references: tuple[str, ...]) -> dict[str, float]:
    """BLEU-4, not smoothed, and ROUGE-L of one caption."""
    scores = evaluation.score_captions({0: text}, {0: references})
    return {name: scores[name] for name in ("bleu_4", "rouge_l")}
