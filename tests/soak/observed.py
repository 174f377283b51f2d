"""`python -m tests.soak.observed OUT run`: the product, and a thread that counts its tasks."""

import asyncio
import sys
import threading
import time
from pathlib import Path

INTERVAL_S = 5.0


def _count(out: Path) -> None:
    """Write the number of asyncio's tasks of all loops, those included that only a leak holds."""
    # Python 3.12 has another name for it. `all_tasks` needs the loop, which belongs to the product.
    tasks = getattr(asyncio.tasks, "_scheduled_tasks", None)
    if tasks is None:
        tasks = getattr(asyncio.tasks, "_all_tasks")  # noqa: B009
    part = out.with_suffix(".part")
    while True:
        part.write_text(str(len(tasks)))
        part.replace(out)
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    threading.Thread(target=_count, args=(Path(sys.argv[1]),), daemon=True).start()
    sys.argv = ["reconciler", *sys.argv[2:]]
    from reconciler.entry import main

    main()
