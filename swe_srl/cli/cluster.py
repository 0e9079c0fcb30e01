"""Commands about a cluster itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from swe_srl.cli.options import Json
from swe_srl.cli.output import output, report_failures, say, table_of


def status(
    cluster: Annotated[str, typer.Argument(help="ray (that of this machine or RAY_ADDRESS), or ray://HOST:PORT.")] = "ray",
    as_json: Json = False,
) -> None:
    """Show the nodes of a Ray cluster with their sandboxes, images and engines; what is free; and what runs have jobs on it.

    Example: swe-srl cluster status ray://head:10001
    """
    from swe_srl.cluster.select import open_ray
    from swe_srl.environments.node_status import node_status

    with open_ray(cluster, say) as ray:
        rows, free, runs = ray.status(node_status), ray.free(), ray.runs()
    output(as_json, {"nodes": rows, "free": free, "runs": runs}, lambda: _shown(rows, free, runs))
    report_failures([{"node": row["node"], "reason": row["error"]} for row in rows if row["error"]], "node")


def _shown(rows: list[dict[str, Any]], free: dict[str, float], runs: list[dict[str, Any]]) -> Any:
    from rich.console import Group

    left = "free: " + ", ".join(f"{value:g} {name}" for name, value in free.items())
    return Group(table_of(rows), left, table_of(runs) if runs else "no run has jobs on it")
