"""The documentation's site: Sphinx reads the Markdown pages of this folder. `make docs` builds it; a warning is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

project = "swe-srl"
author = "the swe-srl authors"
copyright = "the swe-srl authors, Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # named as GitHub names them, so that a link works in both places
myst_links_external_new_tab = False
html_theme = "furo"
html_title = "swe-srl"
html_show_sphinx = False
nitpicky = True
exclude_patterns = ["_build"]

CONTENTS = {
    "Start": ["install", "tour", "own-trajectories", "own-tasks", "own-model"],
    "How it works": ["replay", "rewards", "rewards-by-example", "training", "algorithms", "rollouts"],
    "The parts": ["trajectories", "scaffolds", "sandboxes", "samplers"],
    "Running": ["planning", "runs", "cluster", "operations", "security", "troubleshooting"],
    "Reference": ["reference/recipe", "reference/commands", "reference/task"],
    "Measured": ["fidelity"],
    "Inside": ["design", "contributing"],
}


def _add_contents(_app: Any, docname: str, source: list[str]) -> None:
    """The table of contents is added here, so that the front page stays plain Markdown."""
    if docname == "index":
        listed = {"index", *(name for names in CONTENTS.values() for name in names)}
        more = sorted({page.stem for page in Path(__file__).parent.glob("*.md")} - listed)
        for caption, names in {**CONTENTS, **({"More": more} if more else {})}.items():
            source[0] += f"\n\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_contents)
