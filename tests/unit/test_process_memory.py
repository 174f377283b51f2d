"""A large block is mapped by itself, and its end returns it to the system."""

import subprocess
import sys

import pytest

HEAP = """
import ctypes

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]


class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


libc.mallinfo2.restype = Info
BUFFER = 256 * 1024
{call}
libc.free(libc.malloc(BUFFER))  # glibc's threshold rises to this size, unless it is fixed
mapped = libc.mallinfo2().hblks
block = libc.malloc(BUFFER)
print(libc.mallinfo2().hblks - mapped)
"""


def mapped_blocks(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", HEAP.format(call=call)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "mallinfo2" in done.stderr:
        pytest.skip("the C library is not glibc 2.33 or later")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_second_large_block_is_mapped_as_the_first_one() -> None:
    call = "from reconciler.app.memory import map_large_blocks; map_large_blocks()"
    assert mapped_blocks(call) == 1
    assert mapped_blocks("") == 0
