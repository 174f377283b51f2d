"""Each parser of bytes from outside, its valid samples, and what it may raise.

`targets.py` has one entry for each kind of bytes. `test_targets.py` holds the list complete, and
runs each target on changed samples, the same ones each time. `make fuzz MINUTES=10` runs it on
others. An input that failed once stays in `corpus/`, next to the valid samples.
"""
