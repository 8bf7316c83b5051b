from bmt_keras.bench.case import Case
from bmt_keras.bench.rounds import take_turns


def test_cases_take_turns_and_the_first_round_does_not_count():
    calls = []
    cases = {
        name: Case(lambda name=name: calls.append(name), items=2)
        for name in ("a", "b")
    }
    seconds = take_turns(cases, rounds=3)
    assert calls == ["a", "b"] * 4
    assert [len(each) for each in seconds.values()] == [3, 3]


def test_seconds_are_those_of_an_item(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(
        "bmt_keras.bench.rounds.time.perf_counter", lambda: float(next(now))
    )
    seconds = take_turns({"a": Case(lambda: None, items=4)}, rounds=2)
    assert seconds == {"a": [0.25, 0.25]}
