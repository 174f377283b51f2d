"""A view of a snapshot as HTML or JSON."""

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from reconciler import __version__
from reconciler.controller.decide.refresh_plan import allowance_s
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.controller.status.trend import STEP_S
from reconciler.humanize import clean, duration, instant
from reconciler.statuspage.components import components, role
from reconciler.statuspage.histogram import distribute
from reconciler.statuspage.identity import PageIdentity, leader_name
from reconciler.statuspage.json_view import encode
from reconciler.statuspage.page_model import PageModel
from reconciler.statuspage.plots import HEIGHT, plots, steps_of
from reconciler.statuspage.session_row import COLUMNS, row_of
from reconciler.statuspage.summary import details, exposure, filters, headline, stats

if TYPE_CHECKING:
    from jinja2 import Environment


Form = Literal["page", "part", "json"]


class Render:
    """The templates, which are compiled at the first view."""

    def __init__(self, identity: PageIdentity) -> None:
        self._identity = identity

    def view(self, model: PageModel, form: Form) -> str:
        """Return the whole document, the part of it that changes, or JSON. Cost: 5 ms."""
        if form == "json":
            return encode(model, self._identity)
        template = self._environment.get_template("page.html" if form == "page" else "main.html")
        return template.render(self._context(model))

    def _context(self, model: PageModel) -> dict[str, Any]:
        snapshot, query, result = model.snapshot, model.query, model.result
        identity, lease = self._identity, snapshot.lease
        life_s = _whole_life(snapshot)
        allowed_s = allowance_s(life_s, snapshot.propagation_s) if life_s else 0.0
        histogram = distribute(model.rows, ttl_s=life_s, allowance_s=allowed_s)
        wall_s = snapshot.now_s - snapshot.issuer.skew_s
        severity, sentence, alert = headline(snapshot, model.not_ready)
        place, replica = identity.place(lease.shard), clean(identity.replica)
        title = (place, f"Runner tokens {__version__}", replica)
        return {
            "version": __version__,
            "title": " · ".join(filter(None, title)) + ("" if lease.leading else " (standby)"),
            "replica": replica,
            "place": place,
            "leading": lease.leading,
            "leader": clean(leader_name(lease)),
            "leader_command": identity.leader_command(lease),
            "port": identity.port,
            "role": role(snapshot),
            "at": instant(snapshot.now_s),
            "severity": severity,
            "headline": sentence,
            "details": details(snapshot, sentence),
            "runbook": identity.links.runbook(alert),
            "dashboard": identity.links.dashboard,
            "allowance": duration(allowed_s) if allowed_s else "",
            "exposure": exposure(snapshot),
            "stats": stats(snapshot),
            "histogram": histogram,
            "plots": plots(model.trend, leading=lease.leading),
            "period": duration(STEP_S * steps_of(model.trend)),
            "steps": steps_of(model.trend),
            "height": HEIGHT,
            "components": components(snapshot, identity.replica, identity.ignored),
            "filters": filters(snapshot),
            "columns": [each for each in COLUMNS if lease.leading or not each.leader_only],
            "query": query,
            "result": result,
            "rows": [
                row_of(
                    row,
                    model.runs[row.key],
                    model.events.get(row.key, ()),
                    identity=identity,
                    now_s=snapshot.now_s,
                    wall_s=wall_s,
                    scale_s=histogram.scale_s,
                    leading=lease.leading,
                )
                for row in result.rows
            ],
        }

    @cached_property
    def _environment(self) -> "Environment":
        from jinja2 import Environment, PackageLoader, StrictUndefined

        return Environment(
            loader=PackageLoader("reconciler.statuspage"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )


def _whole_life(snapshot: StatusSnapshot) -> float:
    """Return a token's whole life in seconds; 0.0 before the first one, or without an expiry."""
    token = snapshot.issuer.token
    known = token.issued_total > 0 and math.isfinite(token.longest_ttl_s)
    return token.longest_ttl_s if known else 0.0
