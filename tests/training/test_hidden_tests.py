"""Tasks whose tests lie hidden in their image, in an outcome stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docker import DockerClient
from publishing import FIX, SMITH
from tiny_models import tiny_tokenizer

from swe_srl.config import DataSection, ModelSection, OutcomeStage, Recipe
from swe_srl.environments.judging import judge
from swe_srl.training.data import Dataset
from swe_srl.training.outcome import open_rollouts


def test_the_tests_of_swe_smith_judge_rollouts_in_training(client: DockerClient, published: Any, tmp_path: Path) -> None:
    image = published("+", "true")
    name = image.split("/")[1].split(":")[0]
    rows = [{**SMITH, "instance_id": name, "image_name": image}, {**SMITH, "instance_id": f"{name}-x", "FAIL_TO_PASS": ["x.y"]}]
    (tmp_path / "tasks.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    stage = OutcomeStage(objective="outcome", updates=1, lr=1.0, tasks=[str(tmp_path / "tasks.jsonl")], start={"at": "issue"})
    recipe = Recipe(model=ModelSection(name="m"), data=DataSection(train=["t"]), stages=[stage])
    opened = open_rollouts(recipe, Dataset([], []), tiny_tokenizer(), None, print)[0]
    reason = "has no tests to judge by: it needs test_command, test_patch and fail_to_pass"
    assert opened.left_out == [{"id": f"{name}-x", "reason": reason}]
    [origin] = opened.origins
    assert origin.task.id == name
    verdicts = [judge(client, origin.image, origin.task, patch) for patch in (b"", FIX.encode())]
    assert [found and (found.resolved, found.failing) for found in verdicts] == [
        (False, ("tests/test_core.py::test_add",)),
        (True, ()),
    ]
