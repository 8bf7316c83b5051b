"""The walk-through runs, and its stored outputs are those of one whole run."""

import ast
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from bmt_keras.sample import draw_scenes, write_captions

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
HEADINGS = [
    "Load",
    "Look",
    "Embed",
    "Tokenise and mask",
    "Build",
    "Train",
    "Curves",
    "Captions",
    "Where to go from here",
]
TINY = {
    "NUM_TRAIN": 24,
    "NUM_VAL": 8,
    "FILLER_EPOCHS": 1,
    "WRITER_EPOCHS": 1,
    "SETTINGS": {
        "captions_per_image": 1,
        "sequence_length": 20,
        "text_num_layers": 1,
        "text_num_heads": 2,
        "text_embedding_dim": 8,
        "text_hidden_dim": 16,
        "text_intermediate_dim": 16,
        "fusion_num_layers": 1,
        "fusion_num_heads": 2,
        "batch_size": 16,
        "passes": 2,
        "length_candidates": 2,
    },
}
# A slash that begins a word and leads to another: no URL, no closing tag.
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'(=\[])/[\w.~-]+/""", re.MULTILINE)


def read_notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def set_parameters(notebook, values):
    """Changes values that the tagged cell sets, and cannot add others."""
    (cell,) = (
        cell
        for cell in code_cells(notebook)
        if "parameters" in cell.metadata.get("tags", ())
    )
    names = {
        node.id
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert set(values) <= names
    cell.source += "".join(f"\n{k} = {v!r}" for k, v in values.items())


def execute(notebook, folder):
    with pytest.MonkeyPatch.context() as patch:
        # The kernel of this environment, before one of the user's.
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=600,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        ).execute()


def printed(notebook):
    """All that cells wrote to the standard output, as lines."""
    texts = [
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    ]
    return "".join(texts).splitlines()


def captions_by(lines, name):
    first = lines.index(f"{name}:") + 1
    return [line.removeprefix("- ") for line in lines[first : first + 6]]


def pictures(notebook):
    return [
        output.data["image/png"]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def read_scores(lines):
    """The last table: by metric, the scores of both models."""
    first = next(i for i, line in enumerate(lines) if "bleu_1" in line)
    rows = [line.split() for line in lines[first:]]
    return {row[0]: tuple(map(float, row[1:])) for row in rows if len(row) == 3}


@pytest.fixture(scope="module")
def stored():
    return read_notebook()


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = read_notebook()
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    set_parameters(notebook, TINY)
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    return notebook


# === The stored file ===


def test_headings_are_the_steps_in_order(stored):
    text = "\n".join(
        cell.source for cell in stored.cells if cell.cell_type == "markdown"
    )
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS


def test_stored_cells_were_run_once_each_in_order(stored):
    counts = [cell.execution_count for cell in code_cells(stored)]
    assert counts == list(range(1, len(counts) + 1))


def test_stored_outputs_hold_no_error_and_no_warning(stored):
    outputs = [o for cell in code_cells(stored) for o in cell.outputs]
    assert "error" not in {o.output_type for o in outputs}
    assert "stderr" not in {o.get("name") for o in outputs}


def test_stored_file_names_no_absolute_path():
    notebook = read_notebook()
    for cell in code_cells(notebook):
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)
    text = json.dumps(notebook, ensure_ascii=False).replace("\\n", "\n")
    assert ABSOLUTE_PATH.findall(text) == []


@pytest.mark.parametrize("text", ["in /a/b/c", "'/a/b'", "(/a/b.py"])
def test_absolute_paths_are_found(text):
    assert ABSOLUTE_PATH.search(text)


def test_stored_file_is_small():
    assert NOTEBOOK.stat().st_size < 450_000


def test_stored_outputs_show_summaries_curves_and_photos(stored):
    html = [
        output.data["text/html"]
        for cell in code_cells(stored)
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]
    assert sum("Total params" in text for text in html) == 2
    assert len(pictures(stored)) == 4


def test_stored_captions_depend_on_their_picture(stored):
    scores = read_scores(printed(stored))
    assert scores["cider_d"][1] > 3 * scores["cider_d_shuffled"][1]
    assert scores["truth"][1] > 0.4
    assert scores["truth"][0] == scores["truth_shuffled"][1] == 0


# === A run on few pictures ===


def test_notebook_runs_from_top_to_bottom(executed):
    counts = [cell.execution_count for cell in code_cells(executed)]
    assert counts == list(range(1, len(counts) + 1))
    assert len(pictures(executed)) == 4


def test_run_writes_captions_of_known_words_by_both_models(executed):
    lines = printed(executed)
    scenes = draw_scenes(np.random.default_rng(0), 500, held_out=False)
    texts = [text for scene in scenes for text in write_captions(scene)]
    known = set(" ".join(texts).split())
    for name in ("2020", "now"):
        captions = captions_by(lines, name)
        assert len(captions) == 6
        assert all(captions)
        assert set(" ".join(captions).split()) <= known


def test_run_scores_both_models(executed):
    scores = read_scores(printed(executed))
    assert {"bleu_4", "cider_d", "cider_d_shuffled", "truth"} <= set(scores)


def test_reloaded_captioner_writes_the_same_captions(executed):
    lines = printed(executed)
    assert lines[-2:] == captions_by(lines, "now")[:2]
