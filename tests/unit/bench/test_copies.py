"""Every copy of a session reaches etcd, however many there are."""

import base64
from typing import Any

from tests.cluster.copies import OPERATIONS, Etcd


class Recorded(Etcd):
    """Keeps what it is to put."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def _call(self, what: str, body: Any) -> dict[str, list[dict[str, str]]]:
        for operation in body["success"]:
            put = operation["requestPut"]
            key = base64.b64decode(put["key"]).decode()
            self.values[key] = base64.b64decode(put["value"])
        return {}


async def test_no_value_between_two_transactions_is_left_out() -> None:
    values = {f"/key/{number}": str(number).encode() for number in range(10 * OPERATIONS + 1)}
    etcd = Recorded()
    await etcd.put(values)
    assert etcd.values == values
