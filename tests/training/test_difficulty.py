from pathlib import Path

import pytest
from pydantic import ValidationError

from swe_srl.config import DifficultySection
from swe_srl.errors import UserError
from swe_srl.training.difficulty import Difficulty, against, content_key, read_profile, write_profile

EASY = Difficulty("easy", (1.0, 1.0, 1.0, 1.0), 4)
MIXED = Difficulty("mixed", (0.0, 1.0, 0.0, 1.0), 4)
HARD = Difficulty("hard", (-1.0, -1.0, -1.0, 0.2), 1)


def test_the_figures_are_mean_and_population_std() -> None:
    assert (MIXED.mean, MIXED.std) == (0.5, 0.5)
    assert MIXED.to_json() == {
        "content": "mixed",
        "samples": 4,
        "valid": 4,
        "mean": 0.5,
        "std": 0.5,
        "rewards": [0.0, 1.0, 0.0, 1.0],
    }


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ({"min_std": 0.1}, [False, True, True]),
        ({"min_std": 0.5}, [False, True, True]),
        ({"min_std": 0.51}, [False, False, True]),
        ({"max_mean": 0.5}, [False, True, True]),
        ({"min_mean": 0.5}, [True, True, False]),
        ({"min_mean": 0.0, "max_mean": 0.9}, [False, True, False]),
    ],
)
def test_steps_are_kept_by_their_bounds(bounds: dict[str, float], kept: list[bool]) -> None:
    options = DifficultySection(file="f", **bounds)
    assert [against(difficulty, options) is None for difficulty in (EASY, MIXED, HARD)] == kept


def test_what_is_left_out_has_a_reason() -> None:
    options = DifficultySection(file="p.jsonl", min_std=0.1, min_mean=0.0, max_mean=0.9)
    assert against(EASY, options) == "difficulty: the rewards' std is below 0.1"
    assert against(HARD, options) == "difficulty: the mean reward is below 0.0"
    assert against(EASY, DifficultySection(file="p", max_mean=0.9)) == "difficulty: the mean reward is above 0.9"
    assert against(None, options) == "difficulty: the step, prompted like this, is not in p.jsonl"


def test_bounds_that_bound_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="give at least one of min_std, min_mean and max_mean"):
        DifficultySection(file="f")
    with pytest.raises(ValidationError, match="min_mean must not be above max_mean"):
        DifficultySection(file="f", min_mean=0.5, max_mean=0.4)


def test_content_is_prompt_and_expert() -> None:
    keys = {content_key([1, 2], "a"), content_key([1, 3], "a"), content_key([1, 2], "b"), content_key([1], "a")}
    assert len(keys) == 4
    assert content_key((1, 2), "a") == content_key([1, 2], "a")


def test_a_profile_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profile.jsonl"
    write_profile(path, ({"step": "t@0", **difficulty.to_json()} for difficulty in (EASY, HARD)))
    assert read_profile(path) == {"easy": EASY, "hard": HARD}
    with path.open("a") as file:
        file.write('{"content": "mix')
    assert read_profile(path) == {"easy": EASY, "hard": HARD}, "a line cut short by a kill is no line"


def test_what_is_no_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read: No such file or directory; `swe-srl profile` makes it"):
        read_profile(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"content": "a", "rewards": [1.0], "valid": 1}\n{"step": "t@0"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl:2: not a line of a profile"):
        read_profile(tmp_path / "bad.jsonl")
