"""Agent-computer interfaces, one file each, found by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Scaffold, ToolFile


def _mini_swe_agent() -> Scaffold:
    from swe_srl.scaffolds.mini_swe_agent import MiniSweAgent

    return MiniSweAgent()


def _mini_swe_agent_2() -> Scaffold:
    from swe_srl.scaffolds.mini_swe_agent_2 import MiniSweAgent2

    return MiniSweAgent2()


def _swe_agent(review: bool) -> Scaffold:
    from swe_srl.scaffolds.swe_agent import SweAgent

    return SweAgent(review=review)


def _swe_agent_windowed(way: str) -> Scaffold:
    from swe_srl.scaffolds.swe_agent_windowed import SweAgentWindowed

    return SweAgentWindowed(way)


def _openhands() -> Scaffold:
    from swe_srl.scaffolds.openhands import OpenHands

    return OpenHands()


_SCAFFOLDS: dict[str, Callable[[], Scaffold]] = {
    "mini-swe-agent": _mini_swe_agent,
    "mini-swe-agent-2": _mini_swe_agent_2,
    "openhands": _openhands,
    "swe-agent": lambda: _swe_agent(review=False),
    "swe-agent-review": lambda: _swe_agent(review=True),
    "swe-agent-windowed": lambda: _swe_agent_windowed("lines"),
    "swe-agent-windowed-0": lambda: _swe_agent_windowed("0"),
    "swe-agent-windowed-replace": lambda: _swe_agent_windowed("replace"),
    "swe-agent-windowed-replace-2024": lambda: _swe_agent_windowed("replace-2024"),
}


def is_scaffold(name: str) -> bool:
    """Whether there is a scaffold of that name."""
    return name in _SCAFFOLDS


@cache
def get_scaffold(name: str) -> Scaffold:
    """The scaffold of that name. Raises UserError for an unknown name."""
    if not is_scaffold(name):
        raise UserError(f"unknown scaffold {name!r}; known: {', '.join(sorted(_SCAFFOLDS))}")
    return _SCAFFOLDS[name]()


def tool_files() -> list[ToolFile]:
    """Every program that any scaffold needs inside a container, each once."""
    files = {file.path: file for name in sorted(_SCAFFOLDS) for file in get_scaffold(name).tool_files}
    return [files[path] for path in sorted(files)]
