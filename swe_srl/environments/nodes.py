"""The nodes of a Ray cluster, and how they come to have images. Ray is imported where they are asked for, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swe_srl.cluster.select import open_ray
from swe_srl.environments.shipping import Shipping

if TYPE_CHECKING:
    from swe_srl.cluster.ray import RayCluster


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where sandboxes are had elsewhere."""

    cluster: RayCluster
    shipping: Shipping
    say: Callable[[str], None]


@contextmanager
def open_nodes(cluster: str, shipping: Shipping, say: Callable[[str], None]) -> Iterator[Nodes | None]:
    """The nodes of the cluster of this name; None where it is `local`. Raises UserError as `open_ray` does."""
    if cluster == "local":
        yield None
    else:
        with open_ray(cluster, say) as opened:
            yield Nodes(opened, shipping, say)
