"""How many bytes Python holds for a block of code, at its end and at the most in between."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Memory:
    """Bytes beside what was held before; known when the block has ended."""

    kept: int = 0
    peak: int = 0


@contextmanager
def measured() -> Iterator[Memory]:
    """Measure what a block allocates; whatever else the process does meanwhile counts too."""
    memory = Memory()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield memory
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
        memory.kept, memory.peak = after - before, peak - before
    finally:
        tracemalloc.stop()
