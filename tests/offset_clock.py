"""`python -m tests.offset_clock SECONDS COMMAND...`: the product with its wall clock off.

Only `time.time` is moved, before the product is imported: that is what it reads as its wall clock.
"""

import sys
import time


def main(offset_s: float, words: list[str]) -> None:
    real = time.time
    time.time = lambda: real() + offset_s
    sys.argv = ["reconciler", *words]
    from reconciler.cli.main import main as product

    product()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
