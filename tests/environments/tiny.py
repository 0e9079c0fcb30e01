"""A repository of three files."""

from __future__ import annotations

from collections.abc import Callable

from swe_srl.environments.task import Task

FILES = {"README.md": "# tiny\n", "tiny/__init__.py": "ONE = 1\n", "run.sh": "echo run\n"}

MakeTask = Callable[..., Task]
