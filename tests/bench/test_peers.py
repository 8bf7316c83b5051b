"""Asking another process, which here has no PyTorch."""

import io
import json
import sys

import pytest

from bmt_keras.bench import peer_worker
from bmt_keras.bench.peer_process import TOKENS, PeerProcess

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    shape = [request["batch"], request["tokens"]]
    print(json.dumps({"shape": shape}), flush=True)
"""


def test_process_answers_each_question():
    process = PeerProcess([sys.executable, "-c", ECHO])
    assert process.caption("GIT-base", batch=1) == [1, TOKENS]
    assert process.caption("BLIP-base", batch=8) == [8, TOKENS]
    process.close()


def test_process_that_ended_is_an_error():
    process = PeerProcess([sys.executable, "-c", "input()"])
    with pytest.raises(RuntimeError, match="GIT-base ended"):
        process.caption("GIT-base", batch=1)
    process.close()


def test_worker_writes_what_it_is_asked_for(monkeypatch):
    asked = []

    def write(peer, *, batch, tokens):
        asked.append((peer, batch, tokens))
        return [batch, tokens + 1]

    monkeypatch.setattr(peer_worker, "write_captions", write)
    request = {"peer": "GIT-base", "batch": 2, "tokens": 3}
    answers = io.StringIO()
    peer_worker.answer(io.StringIO(json.dumps(request) + "\n"), answers)
    assert asked == [("GIT-base", 2, 3)]
    assert json.loads(answers.getvalue()) == {"shape": [2, 4]}
