import json
from pathlib import Path

import pytest
from accelerate import Accelerator
from hand_made import trajectory
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import save_policy

from swe_srl.config import TrackingSection
from swe_srl.errors import UserError
from swe_srl.recipes import load_recipe
from swe_srl.training import tracking
from swe_srl.training.tracking import check_trackers, line, numbers, start_trackers
from swe_srl.training.trainer import train
from swe_srl.trajectories.storage import write_jsonl

METRICS = {
    "stage": 2,
    "update": 3,
    "objective": "srl",
    "reward_mean": 0.4123,
    "reward_std": 0.25,
    "format_validity": 0.875,
    "groups_kept": 7,
    "groups_dropped": 2,
    "valid_similarity": None,
    "rewards": {"similarity": 0.5, "parts": {"effect": 1}},
    "forward_tokens": 12345,
    "separate_tokens": 98765,
    "grad_norm": 0.53,
    "loss": 1e-3,
    "skipped": False,
    "peak_memory_mb": 4096.4,
    "seconds": {"sample": 9.04, "update": 3.0},
}


def test_every_number_is_tracked_by_its_name() -> None:
    found = dict(numbers(METRICS))
    assert found["rewards/similarity"] == 0.5
    assert found["rewards/parts/effect"] == 1
    assert found["seconds/sample"] == 9.04
    assert found["skipped"] == 0
    assert not {"objective", "valid_similarity"} & found.keys()
    assert len(found) == 17


def test_the_key_figures_fit_on_a_line() -> None:
    assert line(METRICS, 40) == (
        "stage 2 srl 3/40  loss 0.001  reward 0.412  ± 0.250  valid 88%  kept 7  dropped 2  |g| 0.53  12,345 tokens  "
        "instead of 98,765  sample 9.0 s + update 3.0 s  4,096 MiB"
    )
    skipped = {**METRICS, "skipped": True, "loss": None}
    assert line(skipped, 40).startswith("stage 2 srl 3/40  skipped: no group differs in reward  reward 0.412")


def test_a_tracker_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(TrackingSection(trackers=["tensorboard"]))
    with pytest.raises(UserError, match=r"tracking\.trackers: 'tensorbord' is unknown; known are aim, clearml, comet_ml, "):
        check_trackers(TrackingSection(trackers=["tensorboard", "tensorbord"]))
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(UserError, match=r"tracking\.trackers: 'comet_ml' needs a package: pip install comet-ml"):
        check_trackers(TrackingSection(trackers=["comet_ml"]))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_tensorboard_shows_what_metrics_say(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy")
    write_jsonl(tmp_path / "runs.jsonl", [trajectory("a", "lib-1"), trajectory("b", "held-1", ["ls"])])
    (tmp_path / "recipe.toml").write_text(f"""
[model]
name = "{tmp_path}/policy"
device = "cpu"
[data]
train = ["{tmp_path}/runs.jsonl"]
hold_out_tasks = ["held-*"]
[sampling]
max_tokens = 4
[tracking]
trackers = ["tensorboard"]
project = "coder"
[[stages]]
objective = "sft"
updates = 3
steps_per_update = 2
lr = 1e-3
""")
    train(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", console=Console(quiet=True))
    metrics = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = events(tmp_path / "run" / "coder")
    for name, values in (("loss", [m["loss"] for m in metrics]), ("seconds/update", [m["seconds"]["update"] for m in metrics])):
        assert [step for step, _ in found[name]] == [1, 2, 3]
        assert [value for _, value in found[name]] == pytest.approx(values)
    assert found["evaluation/mean_reward"] == [(0, -1.0), (3, -1.0)]


def test_a_continued_run_replaces_what_it_tracked_after_its_checkpoint(tmp_path: Path) -> None:
    for first, last, value in ((0, 4, 1.0), (2, 4, 2.0)):
        accelerator = Accelerator(cpu=True, log_with=["tensorboard"], project_dir=tmp_path)
        start_trackers(accelerator, TrackingSection(trackers=["tensorboard"]), first)
        for step in range(first + 1, last + 1):
            accelerator.log({"x": value}, step=step)
        accelerator.end_training()
    assert events(tmp_path / "swe-srl")["x"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
