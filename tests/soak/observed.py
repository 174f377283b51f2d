"""`python -m tests.soak.observed OUT run`: the product, and a thread that counts its tasks."""

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

INTERVAL_S = 5.0


def _chain(coroutine: Any) -> str:
    """Return the functions that a coroutine is in, the innermost last, with their lines."""
    names = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        names.append(f"{coroutine.__qualname__}:{frame.f_lineno}")
        coroutine = coroutine.cr_await
    return " > ".join(names)


def _count(out: Path) -> None:
    """Write the tasks of all loops by function; one that has ended only waits for the collector."""
    # Python 3.12 has another name for it. `all_tasks` needs the loop, which belongs to the product.
    tasks = getattr(asyncio.tasks, "_scheduled_tasks", None)
    if tasks is None:
        tasks = getattr(asyncio.tasks, "_all_tasks")  # noqa: B009
    part = out.with_suffix(".part")
    while True:
        running = (task.get_coro() for task in list(tasks) if not task.done())
        part.write_text(json.dumps(Counter(map(_chain, running))))
        part.replace(out)
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    threading.Thread(target=_count, args=(Path(sys.argv[1]),), daemon=True).start()
    sys.argv = ["reconciler", *sys.argv[2:]]
    from reconciler.entry import main

    main()
