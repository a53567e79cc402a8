"""What a process keeps of the memory that it frees."""

import ctypes
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import numpy as np
from fed_lorac.runtime.allocator import end_keeping, keep_freed_memory

def step():
    for part in [np.empty(2 << 20, np.uint8) for _ in range(32)]:
        part.fill(1)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1])

if sys.argv[1] == "keep":
    keep_freed_memory()
step(), step()
before = faults()
for _ in range(5):
    step()
found = faults() - before
kept = resident()
end_keeping()
print(found, kept - resident())
"""


def seen(how: str) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    faults, pages_back = map(int, done.stdout.split())
    return faults, pages_back


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library is not glibc")
def test_what_a_step_frees_is_there_for_the_next_until_it_is_given_back() -> None:
    pages = 32 * (2 << 20) // 4096  # of a step
    (kept, back), (usual, _) = seen("keep"), seen("leave")
    assert kept < pages / 100, "steps that keep their memory take no new pages"
    assert usual > 10 * kept, "and others do"
    assert back > pages / 2
