"""The smallest campaign of hostile inputs, and what it counts as a finding."""

import json
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import hostile
import pytest


@pytest.mark.parametrize(
    ("kinds", "tries"),
    [(["captions", "stops"], [40, 8]), (["checkpoints"], [1])],
)
def test_smallest_campaign_has_no_findings(tmp_path, capsys, kinds, tries):
    out = tmp_path / "hostile.json"
    hostile.main(["--tries", "40", "--out", str(out), "--kinds", *kinds])
    results = json.loads(out.read_text())["kinds"]
    assert [each["tries"] for each in results] == tries
    assert all(each["right"] for each in results)
    assert f"| {kinds[-1]} | {tries[-1]} | " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["photos", "grpc", "rest"])
def test_photos_and_requests_end_well(kind):
    with hostile.KINDS[kind]() as judge:
        verdicts = [judge(seed) for seed in range(40)]
    assert {*verdicts} == {hostile.RIGHT, hostile.REFUSED}


def test_crash_and_wrong_answer_are_findings(monkeypatch, capsys):
    def judge(kind, seeds):
        if 3 in seeds:
            raise BrokenProcessPool("gone")
        found = ["wrong" if seed == 5 else hostile.RIGHT for seed in seeds]
        return found, 70.0, 60.0

    monkeypatch.setattr(hostile, "judge_batch", judge)
    threads = partial(ThreadPoolExecutor, 1)
    monkeypatch.setattr(hostile.measure, "own_process", threads)
    result = hostile.run_kind("captions", range(1, 500))
    assert result["findings"][5] == "wrong"
    assert "crashed or hangs: BrokenProcessPool('gone')" in result[
        "findings"
    ].pop(3)
    assert (len(result["findings"]), result["right"]) == (1, 497)
    assert hostile.format_table([result]).endswith(
        "| captions | 499 | 497 | 0 | 1 | 70 |"
    )
