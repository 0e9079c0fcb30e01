"""Where the metrics of an update go: metrics.jsonl, the terminal, and accelerate's trackers.

Invariant: every number of the metrics reaches the trackers, under its name; those inside others are joined by `/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers  # type: ignore[import-untyped]

from swe_srl.config import TrackingSection
from swe_srl.errors import UserError

_PACKAGES = {"comet_ml": "comet-ml"}
"""What a tracker's package is called, where it is not called as the tracker."""
_SHOWN = (
    ("loss", "loss {:.4g}"),
    ("reward_mean", "reward {:.3f}"),
    ("reward_std", "± {:.3f}"),
    ("format_validity", "valid {:.0%}"),
    ("groups_kept", "kept {}"),
    ("groups_dropped", "dropped {}"),
    ("entropy", "entropy {:.3g}"),
    ("kl", "KL {:.3g}"),
    ("grad_norm", "|g| {:.3g}"),
    ("forward_tokens", "{:,} tokens"),
    ("separate_tokens", "instead of {:,}"),
)
"""The key figures of an update: metric, and how the terminal shows it."""


def check_trackers(section: TrackingSection) -> None:
    """Raises UserError for a tracker that accelerate does not know, or whose package is missing."""
    available = {str(name) for name in get_available_trackers()}
    for name in section.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"tracking.trackers: {name!r} is unknown; known are {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
        if name not in available:
            raise UserError(f"tracking.trackers: {name!r} needs a package: pip install {_PACKAGES.get(name, name)}")


def start_trackers(accelerator: Accelerator, section: TrackingSection, updates: int) -> None:
    """Begin to track; a run continued after `updates` updates replaces what it tracked later than that."""
    # Accelerate leaves trackers out in silence where it is given them at once and lacks their packages.
    accelerator.init_trackers(section.project, init_kwargs={"tensorboard": {"purge_step": updates + 1}})


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in metrics by its name; texts and what is unknown (None) are left out."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)


def line(metrics: Mapping[str, Any], total: int) -> str:
    """The key figures of an update of `total` on one line."""
    shown = [text.format(metrics[name]) for name, text in _SHOWN if metrics.get(name) is not None]
    seconds = " + ".join(f"{name} {seconds:.1f} s" for name, seconds in metrics["seconds"].items())
    skipped = ["skipped: no group differs in reward"] * bool(metrics["skipped"])
    place = f"stage {metrics['stage']} {metrics['objective']} {metrics['update']}/{total}"
    return "  ".join([place, *skipped, *shown, seconds, f"{metrics['peak_memory_mb']:,.0f} MiB"])
