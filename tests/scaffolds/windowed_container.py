"""A folder that stands for a container with SWE-agent's windowed tools, for the tests of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from swe_srl.scaffolds.base import CommandResult, Observation, ToolCall
from swe_srl.scaffolds.swe_agent_windowed import SweAgentWindowed


class Container:
    """Tools installed, a repository in `testbed`; what is typed runs there, `root` is cut off the paths in the answers."""

    def __init__(self, root: Path, way: str = "lines") -> None:
        self.root = root
        self.testbed = root / "testbed"
        self.testbed.mkdir(parents=True)
        self.scaffold = SweAgentWindowed(way, workdir=str(self.testbed))
        for file in self.scaffold.tool_files:
            installed = root / file.path.lstrip("/")
            installed.parent.mkdir(parents=True, exist_ok=True)
            installed.write_bytes(file.content.replace(b"/usr/local/lib/swe-srl", f"{root}/usr/local/lib/swe-srl".encode()))
            installed.chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        """A file of the repository."""
        path = self.testbed / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    def bash(self, script: str) -> CommandResult:
        """What a script prints, as the sandbox returns it."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "SWE_SRL_STATE": str(self.root / "state")}
        done = subprocess.run(
            ["bash"],
            input=script.replace("/usr/local/", f"{self.root}/usr/local/").encode(),
            cwd=self.testbed,
            env={**environment, **self.scaffold.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return CommandResult(done.stdout.decode(), done.returncode)

    def __call__(self, name: str, **arguments: Any) -> str:
        """The output of a call."""
        return self.observe(name, **arguments).compared

    def observe(self, name: str, **arguments: Any) -> Observation:
        """What the agent sees of a call."""
        call = ToolCall(name, {key.replace("__", "-"): value for key, value in arguments.items()})
        seen = self.scaffold.observe(call, self.bash(self.scaffold.command(call)))
        assert self.scaffold.parse_observation(seen.text).output == seen.output
        output = None if seen.output is None else seen.output.replace(str(self.root), "")
        return Observation(seen.text.replace(str(self.root), ""), output, seen.returncode, seen.extra)


def numbers(first: int, last: int) -> str:
    """The rows of a window on a file whose line n is `ln`."""
    return "\n".join(f"{n}:l{n}" for n in range(first, last + 1))


def lines(count: int) -> str:
    """A file whose line n is `ln`."""
    return "".join(f"l{n}\n" for n in range(1, count + 1))
