"""`python -m tests.traces.waterfall TRACE.json PICTURE.png`: a picture of a trace in Jaeger.

The picture has what Jaeger's own page has: a bar for each span below its parent, errors in red, and
the words of a span's status. Jaeger's page is no part of its Go module.
"""

import html
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROW_PX = 20
WIDTH_PX = 2150
NAMES_PX = 470
BARS_PX = 330
LIMIT_S = 60.0

SHOWN = ("token_reconciler.session.id", "http.response.status_code", "token_reconciler.reason",
         "token_reconciler.failed_runs", "token_reconciler.failed_sessions",
         "token_reconciler.failed_requests", "sessions")  # fmt: skip


def tags(span: Json) -> Json:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def parent(span: Json) -> str:
    """Return the ID of the span's parent within its trace, or ""."""
    found = [one for one in span["references"] if one["refType"] == "CHILD_OF"]
    return found[0]["spanID"] if found else ""


def ordered(trace: Json) -> list[tuple[int, Json]]:
    """Return each span with its depth, below its parent, in the order of the starts."""
    spans = sorted(trace["spans"], key=lambda span: span["startTime"])
    known = {span["spanID"] for span in spans}

    def below(span_id: str, depth: int) -> list[tuple[int, Json]]:
        found = [s for s in spans if (parent(s) if parent(s) in known else "") == span_id]
        return [row for s in found for row in ((depth, s), *below(s["spanID"], depth + 1))]

    return below("", 0)


def draw(trace: Json) -> str:
    """Return the trace as a page with one SVG."""
    rows = ordered(trace)
    began = min(span["startTime"] for _, span in rows)
    length = max(span["startTime"] + span["duration"] for _, span in rows) - began or 1
    lines = [_row(index, *row, began, length) for index, row in enumerate(rows)]
    height = ROW_PX * (len(rows) + 1)
    return (
        '<meta charset="utf-8"><style>body {margin: 0; overflow: hidden}'
        " text {font: 12px monospace}</style>"
        f'<svg width="{WIDTH_PX}" height="{height}" xmlns="http://www.w3.org/2000/svg">'
        f'<text x="4" y="14">trace {trace["traceID"]}: {len(rows)} spans in'
        f" {length / 1000:.1f} ms</text>{''.join(lines)}</svg>"
    )


def _row(index: int, depth: int, span: Json, began: int, length: int) -> str:
    found = tags(span)
    y = ROW_PX * (index + 2) - 6
    x = NAMES_PX + BARS_PX * (span["startTime"] - began) / length
    width = max(2.0, BARS_PX * span["duration"] / length)
    color = "#c62828" if found.get("error") else "#1565c0"
    values = " ".join(str(found[name]) for name in SHOWN if name in found)
    links = sum(one["refType"] == "FOLLOWS_FROM" for one in span["references"])
    words = f"{span['duration'] / 1000:.1f} ms {values} {f'links: {links}' if links else ''}"
    status = found.get("otel.status_description", "")
    return (
        f'<text x="{4 + 14 * depth}" y="{y}">{html.escape(span["operationName"])}</text>'
        f'<rect x="{x:.1f}" y="{y - 11}" width="{width:.1f}" height="13" fill="{color}"/>'
        f'<text x="{NAMES_PX + BARS_PX + 8}" y="{y}">{html.escape(f"{words} {status}")}</text>'
    )


def picture(trace: Json, file: Path) -> None:
    """Draw a trace into a PNG file by Chromium."""
    with tempfile.TemporaryDirectory(prefix="waterfall-") as folder:
        page = Path(folder) / "trace.html"
        page.write_text(draw(trace))
        height = ROW_PX * (len(trace["spans"]) + 9)  # the window is higher than its page
        subprocess.run(
            [str(shutil.which("chromium")), "--headless", "--no-sandbox", "--disable-gpu",
             f"--user-data-dir={folder}/profile", f"--window-size={WIDTH_PX},{height}",
             f"--screenshot={file.resolve()}", page.as_uri()],
            check=True, capture_output=True, timeout=LIMIT_S,
        )  # fmt: skip


if __name__ == "__main__":
    picture(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
