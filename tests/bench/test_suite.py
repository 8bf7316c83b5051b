import pytest

from bmt_keras.bench import suite
from bmt_keras.bench.figures import Figures
from bmt_keras.bench.measure import Measured
from bmt_keras.bench.options import BenchOptions


@pytest.fixture
def stops_at_export(monkeypatch):
    """Measures a line of every group at once, but the export's."""

    def run(function, group, options):
        if group == "export":
            raise RuntimeError("stopped")
        figures = Figures(f"line of {group}", seconds=2.0)
        return Measured([figures], [["case"]], {"rate": 3.0}), 0

    monkeypatch.setattr(suite, "run_in_own_process", run)


def test_what_was_measured_before_a_stop_is_told(stops_at_export, tmp_path):
    options = BenchOptions(tmp_path / "captions.json", tmp_path, rounds=2)
    told = []
    with pytest.raises(RuntimeError, match="stopped"):
        for results in suite.run_suite(
            ["training", "pipeline", "export"], options, memory=False
        ):
            told.append(results)
    first, second = told
    assert [row["name"] for row in first["rows"]] == ["line of training"]
    assert [row["name"] for row in second["rows"]] == [
        "line of training",
        "line of pipeline",
    ]
    assert list(first["rates"]) == ["training"]
    assert second["rounds"] == 2
