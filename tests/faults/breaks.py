"""The faults of HTTP, TLS and TCP, by name: what each makes of an answer, or of its bytes."""

import asyncio
import gzip
from dataclasses import dataclass
from functools import cache

from tests.faults.proxy import Answer, Mangle, Play, chunk

BOMB_MEMBERS = 64
"""Of 8 MiB each: a gzip file may have several, and one is packed in a moment."""
DRIP_S = 0.05
FLOOD = 2_000
"""Informational answers in front of one."""


@dataclass(frozen=True)
class Break:
    """A fault of a proxy.

    Attributes:
        is_legal: HTTP allows it: no request may fail by it.
        of_api_server: It concerns streams, chunks or TLS, which issuer and platform of the lab do
            not send, or is much like another one.
    """

    play: Play | None = None
    mangle: Mangle | None = None
    is_legal: bool = False
    of_api_server: bool = False


async def _cut_in_the_body(answer: Answer) -> None:
    body = await answer.body()
    if answer.is_chunked:
        await answer.send(answer.head + b"\r\n" + chunk(body)[: len(body) // 2])
    else:
        await answer.send(answer.head + b"\r\n" + body[: len(body) // 2])
    answer.close()


async def _end_in_the_body(answer: Answer) -> None:
    """Half of the body, or of a watch line, in an answer that HTTP takes for a whole one."""
    half = (await answer.body())[:-40]
    await answer.send(answer.start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(half))
    await answer.send(b"0\r\n\r\n")


async def _cut_in_a_chunk_header(answer: Answer) -> None:
    body = await answer.body()
    await answer.send(answer.start + b"Transfer-Encoding: chunked\r\n\r\n")
    await answer.send(chunk(body[:40]) + b"%x" % len(body[40:]))
    answer.close()


async def _chunk_header_without_a_number(answer: Answer) -> None:
    await answer.send(answer.start + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n")


def _content_length(off_by: int) -> Play:
    async def play(answer: Answer) -> None:
        body = await answer.body()
        await answer.send(answer.start + b"Content-Length: %d\r\n\r\n" % (len(body) + off_by))
        await answer.send(body)
        if off_by > 0:
            answer.close()

    return play


async def _two_content_lengths(answer: Answer) -> None:
    body = await answer.body()
    lengths = b"Content-Length: %d\r\nContent-Length: 2\r\n\r\n" % len(body)
    await answer.send(answer.start + lengths + body)


@cache
def _packed() -> bytes:
    return gzip.compress(b" " * 2**23) * BOMB_MEMBERS


async def _bomb(answer: Answer) -> None:
    await answer.body()
    packed = _packed()
    await answer.send(answer.start + b"Content-Encoding: gzip\r\n")
    await answer.send(b"Content-Length: %d\r\n\r\n" % len(packed) + packed)


async def _informational_answers(answer: Answer) -> None:
    await answer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 X\r\n\r\n")
    await answer.relay()


async def _flood_of_informational_answers(answer: Answer) -> None:
    await answer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * FLOOD)
    await answer.relay()


async def _folded_header(answer: Answer) -> None:
    answer.head += b"X-Folded: one\r\n two\r\n\tthree\r\n"
    await answer.relay()


async def _endless_header(answer: Answer) -> None:
    await answer.send(answer.start + b"X-Endless: ")
    for _ in range(1000):
        await answer.send(b"a" * 64 * 1024)


async def _extensions_and_trailers(answer: Answer) -> None:
    await answer.relay(extension=b';name="a;b"', trailers=b"X-Trailer: one\r\n")


async def _keep_alive_that_closes(answer: Answer) -> None:
    answer.head += b"Connection: keep-alive\r\n"
    await answer.relay()
    answer.close()


async def _close_that_stays_open(answer: Answer) -> None:
    answer.head += b"Connection: close\r\n"
    await answer.relay()


async def _second_answer(answer: Answer) -> None:
    await answer.relay()
    await answer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def _web_page(answer: Answer) -> None:
    await answer.body()
    page = b"<!DOCTYPE html><title>Log in</title>"
    await answer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")
    await answer.send(b"Content-Length: %d\r\n\r\n" % len(page) + page)


async def _switch_of_protocols(answer: Answer) -> None:
    await answer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n")
    await answer.send(b"Connection: Upgrade\r\n\r\n\0\0\0\4\0\0\0\0\0")


async def _drip(data: bytes, writer: asyncio.StreamWriter) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def _hold(_: bytes, __: asyncio.StreamWriter) -> None:
    """Send nothing: the connection is half open."""
    await asyncio.Event().wait()


async def _reset(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _cut_in_a_record(data: bytes, writer: asyncio.StreamWriter) -> None:
    """Send a TLS record's header and half of its content, or half of an answer, and end."""
    writer.write(data[: 5 + (len(data) - 5) // 2])
    writer.close()


async def _cut_bit(data: bytes, writer: asyncio.StreamWriter) -> None:
    """Change the last byte: of a TLS record, its authentication."""
    writer.write(data[:-1] + bytes([data[-1] ^ 1]))
    await writer.drain()


BREAKS: dict[str, Break] = {
    "cut in the middle of a body or watch line": Break(_cut_in_the_body),
    "ended in the middle of a body or watch line": Break(_end_in_the_body, of_api_server=True),
    "cut in a chunk header": Break(_cut_in_a_chunk_header),
    "a chunk header without a number": Break(_chunk_header_without_a_number, of_api_server=True),
    "Content-Length too long": Break(_content_length(+40)),
    "Content-Length too short": Break(_content_length(-40)),
    "two values of Content-Length": Break(_two_content_lengths, of_api_server=True),
    "gzip bomb": Break(_bomb),
    "informational answers before the answer": Break(_informational_answers, is_legal=True),
    "thousands of informational answers": Break(
        _flood_of_informational_answers, is_legal=True, of_api_server=True
    ),
    "a folded header": Break(_folded_header, of_api_server=True),
    "a header without an end": Break(_endless_header),
    "chunk extensions and trailers": Break(
        _extensions_and_trailers, is_legal=True, of_api_server=True
    ),
    "keep-alive, then closed": Break(_keep_alive_that_closes, of_api_server=True),
    "close, then left open": Break(_close_that_stays_open, is_legal=True, of_api_server=True),
    "a second answer that was not requested": Break(_second_answer),
    "a web page in place of the answer": Break(_web_page),
    "a switch of protocols that was not requested": Break(_switch_of_protocols),
    "a byte each 50 ms": Break(mangle=_drip),
    "half open": Break(mangle=_hold),
    "reset at each answer": Break(mangle=_reset),
    "cut in a TLS record": Break(mangle=_cut_in_a_record, of_api_server=True),
    "a changed byte": Break(mangle=_cut_bit, of_api_server=True),
}
