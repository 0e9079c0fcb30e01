import subprocess
import sys
from pathlib import Path

import pytest

from swe_srl.config import (
    EffectReward,
    FunctionalReward,
    LoraSection,
    Recipe,
    SftStage,
    SimilarityReward,
    SizesSection,
    SrlStage,
    VllmSection,
)
from swe_srl.errors import UserError
from swe_srl.recipes import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
MINIMAL = """
[model]
name = "policy"
[data]
train = ["trajectories/*.jsonl"]
[[stages]]
objective = "sft"
epochs = 2
steps_per_update = 8
lr = 3e-5
[[stages]]
objective = "srl"
updates = 3
lr = 1e-5
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(MINIMAL)
    return path


def test_a_section_inside_a_section_reads_back_equal_and_is_explained(recipe: Path) -> None:
    read = load_recipe(recipe, ['data.difficulty={file="p.jsonl", min_std=0.1}'])
    recipe.write_text(read.to_toml())
    assert load_recipe(recipe) == read
    with pytest.raises(
        UserError, match=r"data\.difficulty\.min: unknown option; known here: file, max_mean, min_mean, min_std"
    ):
        load_recipe(recipe, ["data.difficulty.min=1"])


def test_stages_are_typed_by_their_objective(recipe: Path) -> None:
    sft, srl = load_recipe(recipe).stages
    assert isinstance(sft, SftStage)
    assert isinstance(srl, SrlStage)
    assert (sft.epochs, sft.lr, srl.updates, srl.clip_low, srl.std_normalisation) == (2, 3e-5, 3, 0.2, True)


@pytest.mark.parametrize(("steps", "updates"), [(1, 1), (8, 2), (9, 3), (12, 3), (13, 4)])
def test_epochs_become_whole_updates(recipe: Path, steps: int, updates: int) -> None:
    assert load_recipe(recipe).stages[0].total_updates(steps) == updates


def test_overrides_are_toml_values_applied_in_order(recipe: Path) -> None:
    read = load_recipe(recipe, ["seed=3", "seed=4", 'model.dtype="bfloat16"', "stages.1.lr=5e-7", "prompt.last_pairs=2"])
    assert (read.seed, read.model.dtype, read.stages[1].lr, read.prompt.last_pairs) == (4, "bfloat16", 5e-7, 2)


def test_a_resolved_recipe_reads_back_equal(recipe: Path) -> None:
    lora = 'model.lora={rank=4, targets=["q_proj", "v_proj"]}'
    read = load_recipe(
        recipe,
        [
            r'model.name="a\"b\\c\n\u007f→😀"',
            "data.max_train_steps=7",
            'data.hold_out_tasks=["x-*", "y"]',
            'sampling={engine="vllm", vllm={kv_cache_gib=0.5}}',
            lora,
        ],
    )
    assert read.model.lora is not None
    recipe.write_text(read.to_toml())
    assert load_recipe(recipe) == read


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "stages.1.learning_rate=1",
            "stages.1.learning_rate: unknown option; known here: aggregation, best, clip_high, clip_low",
        ),
        ("stages.0.epsilon=0.1", "stages.0.epsilon: unknown option"),
        ('model.nam="x"', "model.nam: unknown option; known here: device, dtype, gradient_checkpointing, lora, name"),
        ("speed=1", "speed: unknown option; known here: checkpoints, cluster, data, evaluation, model"),
        ('seed="3"', "seed: input should be a valid integer (given '3')"),
        ("stages.1.lr=true", "stages.1.lr: input should be a valid number (given True)"),
        ("stages.1.lr=inf", "stages.1.lr: input should be a finite number"),
        ("stages.1.lr=0", "stages.1.lr: input should be greater than 0"),
        ("stages.0.updates=3", "stages.0: give exactly one of `updates` and `epochs`"),
        ('stages.0.objective="dpo"', "'dpo'"),
        ('model.dtype="float16"', "model.dtype: input should be 'float32' or 'bfloat16' (given 'float16')"),
        ('stages.1={importance="sequence", aggregation="token", updates=1, lr=1.0, objective="srl"}', "needs aggregation = "),
        (
            'stages.1={importance="sequence", policy_loss="cispo", updates=1, lr=1.0, objective="srl"}',
            'policy_loss = "cispo" weights tokens one by one: it needs importance = "token"',
        ),
        ("stages.1.mini_batches=9", "stages.1: mini_batches cannot be more than steps_per_update"),
        ("stages.1.mismatch_high=0.0", "stages.1.mismatch_high: input should be greater than 0"),
        ("stages.1.mismatch_low=2.0", "stages.1: mismatch_low must be less than mismatch_high"),
        ("stages.0.kl_coefficient=0.1", "stages.0.kl_coefficient: unknown option"),
        ("sampling.samples=1", "sampling.samples of at least 2"),
        ('cluster.address="head:10001"', "cluster.address: expected local, ray, or ray://HOST:PORT (given 'head:10001')"),
        ('cluster.images="folder:"', "cluster.images: expected build, registry:HOST/PATH, or folder:PATH (given 'folder:')"),
        ("sampling.temperature=0", "sampling.temperature above 0"),
        (
            'sampling.engine="sglang"',
            "sampling.engine: input should be 'transformers', 'vllm' or 'vllm-server' (given 'sglang')",
        ),
        ("sampling.vllm.speed=1", "sampling.vllm.speed: unknown option; known here: compile, dtype, gpu_memory_utilization"),
        ("sampling.vllm.kv_cache_gib=1.0", "sampling: engine 'transformers' does not take vllm.kv_cache_gib"),
        ('sampling={engine="vllm", vllm={url="http://x", sleep=true}}', "sampling: engine 'vllm' does not take vllm.url"),
        (
            'sampling={engine="vllm-server", vllm={url="http://x", max_model_len=9, sleep=true}}',
            "sampling: engine 'vllm-server' does not take vllm.max_model_len, vllm.sleep",
        ),
        ('sampling.engine="vllm-server"', "sampling: engine 'vllm-server' needs vllm.url, for example http://"),
        (
            'sampling={engine="vllm", vllm={kv_cache_gib=1.0, gpu_memory_utilization=0.5}}',
            "sampling.vllm: give at most one of `kv_cache_gib` and `gpu_memory_utilization`",
        ),
        ("data.targets=[]", "data.targets: list should have at least 1 item"),
        ('data.targets=["reads"]', "data.targets.0: input should be 'read', 'edit', 'submit' or 'other' (given 'reads')"),
        ("prompt.shorten_observations_to=9", "prompt: shorten_observations_to needs max_prompt_tokens"),
        (
            "prompt={max_prompt_tokens=9, max_observation_chars=5, shorten_observations_to=5}",
            "prompt: shorten_observations_to must be less than max_observation_chars",
        ),
        ("model.lora={r=4}", "model.lora.r: unknown option; known here: alpha, dropout, rank, targets"),
        ("evaluation.patience=2", "evaluation: patience needs best and every"),
        ('evaluation={enabled=false, best="mean_reward"}', "evaluation: every and best need evaluations"),
        ("evaluation={enabled=false, every=3}", "evaluation: every and best need evaluations"),
        ('evaluation.best="loss"', "evaluation.best: input should be 'mean_reward', 'format_validity'"),
        ("stages.0.from_best=true", "the first stage cannot start from_best"),
        ("stages.1.from_best=true", "from_best needs evaluation.best"),
        ("data.train=[]", "data.train: list should have at least 1 item"),
        ("stages.2.lr=1", "stages has items 0 to 1, no '2'"),
        ("model.name.first=1", "model.name is a value, not a section"),
        ("model.name=policy", 'a text needs quotes: model.name="policy"'),
        ("seed", "write key.sub=value"),
        ("seed=1\nout='x'", "more than one value"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, [override])
    assert message in str(caught.value)


def test_the_file_is_named(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(MINIMAL.replace('name = "policy"', ""))
    with pytest.raises(UserError, match=r"recipe\.toml: model\.name: missing"):
        load_recipe(recipe)
    recipe.write_text("seed = ")
    with pytest.raises(UserError, match=r"recipe\.toml: is not TOML"):
        load_recipe(recipe)
    with pytest.raises(UserError, match=r"none\.toml: cannot be read"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    load_recipe(path)


def test_every_option_says_what_it_is() -> None:
    def options(model: type) -> list[tuple[str, str | None]]:
        return [(f"{model.__name__}.{name}", field.description) for name, field in model.model_fields.items()]  # type: ignore[attr-defined]

    sections = [field.annotation for field in Recipe.model_fields.values() if hasattr(field.annotation, "model_fields")]
    assert len(sections) == 10
    for section in [
        *sections,
        SizesSection,
        LoraSection,
        VllmSection,
        SimilarityReward,
        FunctionalReward,
        EffectReward,
        SftStage,
        SrlStage,
    ]:
        assert section is not None
        undocumented = [name for name, description in options(section) if not description and not name.endswith(".objective")]
        assert undocumented == []


def test_reading_a_recipe_does_not_import_torch() -> None:
    code = "import sys, swe_srl.recipes; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_rewards_the_papers_is_the_reward(recipe: Path) -> None:
    rewards = load_recipe(recipe).rewards
    assert (rewards.invalid, rewards.functional) == ("minus-one", None)
    assert rewards.similarity == SimilarityReward(weight=1.0, compare="text", unit="character", autojunk=False, cap=None)


def test_a_reward_that_is_named_takes_the_place_of_the_papers(recipe: Path) -> None:
    rewards = load_recipe(recipe, ["rewards.functional.threshold=0.8", 'rewards.invalid="graded"']).rewards
    assert (rewards.similarity, rewards.functional) == (None, FunctionalReward(weight=1.0, threshold=0.8))


def test_nested_sections_read_back_equal(recipe: Path) -> None:
    read = load_recipe(recipe, ["rewards.similarity.cap=8000", "rewards.functional.weight=0.5"])
    recipe.write_text(read.to_toml())
    assert "[rewards.similarity]" in read.to_toml()
    assert load_recipe(recipe) == read


def test_an_unknown_option_of_a_reward_is_refused(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"rewards\.similarity\.units: unknown option; known here: .*unit"):
        load_recipe(recipe, ['rewards.similarity.units="line"'])
