import os
import subprocess
import sys

from bmt_keras.bench.own_process import run_in_own_process

SLEEPER = """
import time
from bmt_keras.bench.own_process import run_in_own_process

def work():
    print("works", flush=True)
    time.sleep(30)
    print("goes on", flush=True)

if __name__ == "__main__":
    run_in_own_process(work)
"""


def test_work_is_done_elsewhere_and_its_memory_told():
    pid, memory = run_in_own_process(os.getpid)
    assert pid != os.getpid()
    assert memory > 1_000_000


def test_work_ends_when_its_caller_is_killed(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout.readline() == "works\n"
        caller.kill()
        # The pipe ends with the last process that can write into it.
        rest, _ = caller.communicate(timeout=60)
    assert rest == ""
