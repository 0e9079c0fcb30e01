"""What is released: an sdist, the wheel made from it, and the command in an environment of its own, without torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import swe_srl
from swe_srl.extras import EXTRAS, extra_for, missing

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the working tree and the wheel that was built from it."""
    source, to = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in _tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(to), str(source)], check=True, capture_output=True)
    return to


def test_the_wheel_holds_the_package_whole_and_nothing_else(dist: Path) -> None:
    names = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
    package = {name for name in _tracked() if name.startswith("swe_srl/")}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert {"swe_srl/planning/costs.toml", "swe_srl/report/page/report.html", "swe_srl/scaffolds/tools/windowed.py"} <= package


def test_the_sdist_holds_what_ships(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    ships = [
        name for name in _tracked() if name.split("/")[0] in ("swe_srl", "recipes", "environments", "trajectories", "docs")
    ]
    assert set(ships) <= names
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "constraints.txt", "Dockerfile", "Makefile"} <= names


def test_one_version(dist: Path) -> None:
    version = swe_srl.__version__
    assert sorted(path.name for path in dist.iterdir()) == [f"swe_srl-{version}-py3-none-any.whl", f"swe_srl-{version}.tar.gz"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that has the wheel and what it needs, no extra."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python, wheel = str(folder / "bin" / "python"), str(next(dist.glob("*.whl")))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "-c", str(ROOT / "constraints.txt"), wheel]
    subprocess.run(pip, cwd=folder, env=_alone(), check=True)
    return folder / "bin"


def _run(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "swe-srl"), *arguments]
    return subprocess.run(command, cwd=cwd, env=_alone(), capture_output=True, text=True, check=False)


def _alone() -> dict[str, str]:
    """The environment without what would let the working tree be found."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_a_light_environment_works(installed: Path, tmp_path: Path) -> None:
    shipped = ROOT / "trajectories" / "ttlbox-expiry-edge.jsonl"
    ran = _run(installed, "--version", cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"swe-srl {swe_srl.__version__}\n", "")
    assert _run(installed, "--help", cwd=tmp_path).returncode == 0
    imported = _run(installed, "import", str(shipped), "--to", "experts.jsonl", "--json", cwd=tmp_path)
    assert (imported.returncode, json.loads(imported.stdout)["kept"]) == (0, 1)
    assert _run(installed, "stats", "experts.jsonl", "--report", "stats.html", cwd=tmp_path).returncode == 0
    assert "<html" in (tmp_path / "stats.html").read_text()
    doctor = json.loads(_run(installed, "doctor", "--json", cwd=tmp_path).stdout)
    checks = {check["name"]: check for check in doctor["checks"]}
    assert checks["Python"]["found"].endswith(f"({installed / 'python'})")
    assert (checks["torch"]["ok"], checks["torch"]["fix"]) == (False, "pip install 'swe-srl[train]'")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "recipes/sft.toml", "--out", "run"], "train"),
        (["train", "recipes/sft.toml", "--dry-run"], "train"),
        (["profile", "recipes/quickstart.toml", "--to", "p.jsonl"], "train"),
        (["quickstart"], "train"),
        (["export-model", "run", "--to", "model"], "train"),
        (["rollout", "environments", "--model", "model", "--out", "run"], "train"),
        (["import", "hf:owner/data", "--to", "x.jsonl"], "data"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_a_command_that_lacks_an_extra_says_which(installed: Path, tmp_path: Path, arguments: list[str], extra: str) -> None:
    for folder in ("recipes", "environments", "trajectories"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    ran = _run(installed, *arguments, cwd=tmp_path)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert f"pip install 'swe-srl[{extra}]'" in ran.stderr


def test_extras_are_those_of_the_project_file() -> None:
    def names(packages: list[str]) -> set[str]:
        return {re.split(r"[><=\[]", package)[0] for package in packages if not package.startswith("swe-srl")}

    project = PYPROJECT["project"]
    always = names(project["dependencies"])
    listed = {extra: names(project["optional-dependencies"][extra]) - always for extra in EXTRAS}
    assert {extra: set(modules) for extra, modules in EXTRAS.items()} == listed
    assert [extra_for(name) for name in ("torch.nn", "peft", "pyarrow", "backports", "docker", None)] == [
        "train",
        "lora",
        "data",
        "data",
        None,
        None,
    ]
    assert missing("train") == []


def test_the_citation_file() -> None:
    """Against what the format's schema 1.2.0 requires, and the forms it gives what is there."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"authors", "cff-version", "message", "title"} <= found.keys()
    assert (found["cff-version"], found["type"], found["license"]) == ("1.2.0", "software", PYPROJECT["project"]["license"])
    people = [*found["authors"], *(author for work in found["references"] for author in work["authors"])]
    assert all(set(person) in ({"name"}, {"given-names", "family-names"}) for person in people)
    assert all({"authors", "title", "type"} <= work.keys() for work in found["references"])


def test_git_hooks_run_what_the_tests_run() -> None:
    from pre_commit.clientlib import load_config

    config = load_config(str(ROOT / ".pre-commit-config.yaml"))
    hooks = {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}
    assert list(hooks) == ["ruff-check", "ruff-format", "mypy", "lint-imports", "end-of-file-fixer", "trailing-whitespace"]
    commands = [hook["entry"].split()[0] for hook in hooks.values() if hook["language"] == "system"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(command.replace(".venv/bin", "$(BIN)") in makefile for command in commands)
