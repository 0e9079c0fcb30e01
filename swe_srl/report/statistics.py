"""The histograms of `swe-srl stats`: one HTML file that works offline, from file://, in light and dark.

Invariant: as in a run's report, nothing loads from anywhere and no script runs that is not the page's.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from swe_srl.trajectories.statistics import Collected


def write_statistics_report(collected: Collected, out: Path) -> Path:
    """Write histograms of what the trajectories hold and return the file. Raises OSError where it cannot be written."""
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=PackageLoader("swe_srl.report", "."), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("statistics.html").render(
        overall=collected.overall.to_json(),
        bad=len(collected.bad),
        charts=histograms(collected),
        # The only text that is not escaped: the library itself.
        plotly=Markup(get_plotlyjs()),
        nonce=secrets.token_urlsafe(16),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, out)
    return out


def histograms(collected: Collected) -> list[dict[str, Any]]:
    """What the page draws: title, and for each format the values of its trajectories; kinds without values are left out."""
    kinds = {"Steps of a trajectory": "steps", "Characters of a trajectory": "characters", "Tokens of a trajectory": "tokens"}
    drawn = []
    for title, kind in kinds.items():
        values = {name: list(getattr(found, kind)) for name, found in sorted(collected.formats.items())}
        series = [{"name": name, "x": x} for name, x in values.items() if x]
        if series:
            drawn.append({"title": title, "series": series})
    return drawn
