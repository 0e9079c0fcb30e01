"""Plans as a user gets them: from stated sizes, from data, refused where something cannot be, and never written down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from small_models import STATED, recipe

from swe_srl.errors import UserError
from swe_srl.planning.costs import load_costs
from swe_srl.planning.plan import make_plan
from swe_srl.planning.tables import duration
from swe_srl.planning.workload import stated
from swe_srl.recipes import load_recipe

ROOT = Path(__file__).parents[2]
COSTS = load_costs()


def test_stated_sizes_share_what_prompts_share(tmp_path: Path) -> None:
    """4 trajectories of 3 steps: system 100, issue 70, the last pair 80."""
    options = recipe(tmp_path)
    assert options.plan.data is not None
    work = stated(options.plan.data, options.prompt)
    prompts = [step.prompt() for step in work.steps]
    assert [len(prompt) for prompt in prompts] == [170, 250, 250] * 4
    assert [step.run for step in work.steps] == [run for run in range(4) for _ in range(3)]
    assert prompts[0][:100] == prompts[11][:100]
    assert prompts[0][:170] == prompts[2][:170]
    assert not set(prompts[1][170:]) & set(prompts[2][170:])
    assert not set(prompts[0][100:]) & set(prompts[3][100:])
    whole = stated(options.plan.data, recipe(tmp_path, "prompt={}").prompt)
    assert [len(step.prompt()) for step in whole.steps[:3]] == [170, 250, 330]
    assert whole.steps[2].prompt()[:250] == whole.steps[1].prompt()
    cut = stated(options.plan.data, recipe(tmp_path, "prompt={max_prompt_tokens=329}").prompt)
    assert [len(step.prompt()) for step in cut.steps[:3]] == [170, 250, 250]


def test_one_update_by_hand(tmp_path: Path) -> None:
    """One trajectory of three steps, whole: prompts of 170, 250, 330 tokens, two samples of 30 each. The trunk is 329 tokens;
    each branch repeats its prompt's last token."""
    plan = make_plan(recipe(tmp_path, "prompt={}", "plan.data.trajectories=1", "plan.data.steps=3"), COSTS)
    (stage,) = plan.stages
    assert stage.batch.separate == 2 * (170 + 250 + 330) + 6 * 30
    assert stage.batch.forward == 329 + 6 * 31
    assert (stage.updates, stage.steps, stage.kept, stage.drawn, stage.engine) == (2, 3, 3, 3, "tree")
    assert (stage.prompt_tokens, stage.unshared_prompt_tokens, stage.answer_tokens) == (250, 329 + 3, 30)
    assert [size.devices for size in plan.sizes] == [1, 8, 64]
    assert plan.evaluations == 2
    one = plan.sizes[0]
    assert one.total_seconds == sum(one.seconds.values())
    assert one.seconds[one.bottleneck] == max(one.seconds.values())
    assert one.device_hours == one.total_seconds / 3600
    assert (one.fits, one.cost, plan.fits_from, plan.measured) == (True, None, 1, False)


AHEAD = ("sampling.staleness=1", 'stages.0.mismatch="token"', "evaluation.enabled=false")


def test_one_update_behind_some_devices_sample_while_the_others_train(tmp_path: Path) -> None:
    """Of two devices one samples and one trains, each as if it were alone."""
    [alone] = make_plan(recipe(tmp_path, *AHEAD), COSTS, [1]).sizes
    assert (alone.sampling_devices, alone.seconds.pop("at the same time")) == (0, 0.0)
    [two] = make_plan(recipe(tmp_path, *AHEAD), COSTS, [2]).sizes
    assert two.sampling_devices == 1
    apart = two.seconds.pop("at the same time")
    assert two.seconds == alone.seconds
    assert -apart == pytest.approx(min(alone.seconds["sample"] + alone.seconds["reward"], alone.seconds["train"]))
    assert two.seconds["communicate"] == 0.0


def test_as_many_devices_sample_as_make_the_run_shortest_or_as_there_are_engines(tmp_path: Path) -> None:
    [best] = make_plan(recipe(tmp_path, *AHEAD), COSTS, [8]).sizes
    named = [make_plan(recipe(tmp_path, *AHEAD, f"sampling.engines={engines}"), COSTS, [8]).sizes[0] for engines in range(2, 9)]
    assert [size.sampling_devices for size in named] == [2, 3, 4, 5, 6, 7, 0]
    assert best.total_seconds == min(size.total_seconds for size in [*named, best])
    assert 1 <= best.sampling_devices < 8


def test_refills_and_lengths_are_what_the_recipe_expects(tmp_path: Path) -> None:
    plan = make_plan(recipe(tmp_path, "plan.informative=0.5", "plan.answer_tokens=17", "stages.0.max_refills=1"), COSTS, [1])
    (stage,) = plan.stages
    assert (stage.drawn, stage.kept, stage.answer_tokens) == (4.5, 2.25, 17)
    assert make_plan(recipe(tmp_path, "plan.answer_tokens=90"), COSTS, [1]).stages[0].answer_tokens == 40  # sampling.max_tokens


def test_real_data_give_the_trainers_own_counts(builtin_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What metrics.jsonl of a real quickstart held for its first three updates."""
    monkeypatch.chdir(ROOT)
    plan = make_plan(load_recipe("recipes/quickstart.toml"), COSTS)
    assert plan.data["source"] == "the recipe's data"
    assert (plan.data["trajectories"], plan.data["steps"], plan.data["validation_steps"]) == (9, 90, 30)
    sft = plan.stages[0]
    assert (sft.updates, sft.batch.forward) == (15, round(fmean((3382, 2910, 4437))))
    assert sft.batch.separate == round(fmean((4868, 4461, 5531)))
    assert [size.devices for size in plan.sizes] == [1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompt.max_prompt_tokens=8180"], "need 8220 tokens, more than the model's context of 8192"),
        (
            ["prompt.max_prompt_tokens=200", 'sampling={engine="vllm", max_tokens=40, vllm={max_model_len=239}}'],
            "need 240 tokens, more than sampling.vllm.max_model_len of 239",
        ),
        (["prompt.max_prompt_tokens=169"], "plan.data: system and issue take 170 tokens, more than prompt.max_prompt_tokens"),
        (['sampling={engine="vllm", vllm={tensor_parallel=3}}'], "tensor_parallel: 4 heads cannot be split over 3 devices"),
        (['sampling={engine="vllm", vllm={kv_cache_gib=1e-6}}'], "room for the keys and values of 4 tokens"),
        (['plan.device="abacus"'], "plan.device: no unit costs for 'abacus'; known: cpu-thread, h100-80gb"),
        (['stages.0.engine="tree"', "model.lora={dropout=0.5}"], "does not serve this model: it uses dropout"),
        (["plan.data.steps=3"], "steps must not be less than trajectories"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(recipe(tmp_path, *overrides), COSTS)
    assert message in str(caught.value)


def test_neither_data_nor_sizes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    recipe(tmp_path)
    path.write_text(
        path.read_text().replace("[plan.data]", "[nothing]").split("[nothing]")[0]
        + '[[stages]]\nobjective="sft"\nupdates=1\nlr=1.0'
    )
    with pytest.raises(UserError, match=r"data\.train: no files at nowhere/\*\.jsonl; .*\[plan\.data\]"):
        make_plan(load_recipe(path), COSTS)


def test_costs_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "costs.toml"
    shipped = COSTS.devices["h100-80gb"].model_dump(exclude_none=True) | {"price_per_hour": 3.0}
    pairs = [f"{key} = {json.dumps(value)}" for key, value in shipped.items() if not isinstance(value, dict)]
    own.write_text("\n".join(['default = "mine"', "[devices.mine]", *pairs, "teraflops = {float32 = 67, bfloat16 = 989}"]))
    costs = load_costs(own)
    assert set(costs.devices) == {"mine", "h100-80gb", "cpu-thread"}
    plan = make_plan(recipe(tmp_path), costs, [2])
    assert plan.device == "mine"
    assert plan.sizes[0].cost == 3.0 * plan.sizes[0].device_hours
    own.write_text(own.read_text().replace("link_gb_s", "link"))
    with pytest.raises(UserError, match=r"costs\.toml: devices\.mine\.link_gb_s: field required"):
        load_costs(own)
    own.write_text("[")
    with pytest.raises(UserError, match=r"costs\.toml: is not TOML"):
        load_costs(own)
    with pytest.raises(UserError, match=r"none\.toml: cannot be read"):
        load_costs(tmp_path / "none.toml")


def test_every_device_says_where_its_figures_are_from() -> None:
    assert {name: device.measured for name, device in COSTS.devices.items()} == {"h100-80gb": False, "cpu-thread": True}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (0.0123, "0.0123 s"),
        (59.6, "59.6 s"),
        (60, "1 min"),
        (3599.6, "1 h"),
        (200, "3 min 20 s"),
        (18_720, "5 h 12 min"),
        (-200, "−3 min 20 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _dry_run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swe_srl.cli", "train", *arguments]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)


def test_the_command_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    recipe(tmp_path)
    ran = _dry_run("recipe.toml", "--dry-run", "--cluster-size", "2", "--json", cwd=tmp_path)
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
    plan = json.loads(ran.stdout)
    assert [size["devices"] for size in plan["sizes"]] == [2]
    assert plan["data"]["trajectories"] == STATED["trajectories"]
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_size_asked_for_that_does_not_fit_ends_with_status_1() -> None:
    ran = _dry_run("recipes/srl-paper-7b.toml", "--dry-run", "--cluster-size", "1", cwd=ROOT)
    assert ran.returncode == 1
    assert "too much" in ran.stdout
    assert "It fits 4 devices and more." in ran.stdout


def test_options_of_a_plan_and_of_a_run_do_not_mix() -> None:
    for options, message in (
        (["--cluster-size", "2"], "--cluster-size and --costs are of a plan: add --dry-run"),
        (
            ["--dry-run", "--overwrite"],
            "--dry-run takes a recipe and writes nothing: leave out --resume, --out, --overwrite, --live, --cluster and "
            "--images",
        ),
    ):
        ran = _dry_run("recipes/quickstart.toml", *options, cwd=ROOT)
        assert (ran.returncode, ran.stderr) == (1, f"error: {message}\n")
