from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rewards import functional, similarity
from swe_srl.scaffolds.base import Action, ToolCall


def bash(*commands: str) -> Action:
    return Action(tuple(ToolCall("bash", {"command": command}) for command in commands))


def editor(command: str, path: str, **more: Any) -> Action:
    return Action((ToolCall("str_replace_editor", {"command": command, "path": path, **more}),))


HEREDOC = "cat > a.py <<'EOF'\nx = 1\nEOF"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # quoting, paths, directories, wrappers, where errors go
        ("grep -n 'def f' src/a.py", 'grep -n "def f" ./src/a.py'),
        ("cat src/a.py", "cat /testbed/src/a.py"),
        ("cat src/a.py", "cd /testbed && cat src/../src/a.py"),
        ("cat src/a.py", "cd src && cat a.py"),
        ("cat src/a.py", "cd src; cd ..; cat 'src'/a.py 2>/dev/null"),
        ("python run.py", "timeout 60 python3 ./run.py 2>&1"),
        ("export A=1; python run.py", "python run.py && echo done"),
        # options
        ("grep -rn foo src", "grep -n -r foo src/"),
        ("grep -i -w foo a.py", "grep -wi foo a.py"),
        ("grep -rn foo", "grep -rn foo ."),
        ("grep -rn foo src", "rg foo src"),
        ("grep -rn foo src", "git grep -n foo src | head -20"),
        ("pytest tests", "pytest tests | tail -20"),
        ("grep -A 3 foo a.py", "grep -A3 foo a.py"),
        (r"grep 'a\|b' f", "grep -E 'a|b' f"),
        ("ls -la src", "ls src/"),
        ("find . -name '*.py'", 'find -type f -name "*.py"'),
        ("git --no-pager diff", "git diff"),
        ("git diff HEAD a.py", "git diff HEAD -- ./a.py"),
        # readers
        ("sed -n '10,20p' a.py", "head -n 20 a.py | tail -n +10"),
        ("sed -n 10,20p a.py", "nl -ba a.py | sed -n '10,20p'"),
        ("sed -n 10,20p a.py", "cat -n a.py | head -20 | tail -n 11"),
        ("sed -n '10,20p' a.py", "awk 'NR>=10 && NR<=20' a.py"),
        ("sed -n '10,+10p' a.py", "sed -n -e '10,20p' a.py"),
        ("cat a.py", "sed -n '1,$p' a.py"),
        ("head a.py", "head -10 a.py"),
        ("head -n5 a.py", "sed -n 1,5p a.py"),
        ("cat a.py | grep foo", "grep foo a.py"),
        # edits
        ("sed -i 's/a/b/' a.py", 'sed -i -e "s|a|b|" ./a.py'),
        ("sed -i 's/a/b/' a.py", "perl -pi -e 's/a/b/' a.py"),
        (HEREDOC, "cat <<EOF > /testbed/a.py\nx = 1\nEOF"),
        (HEREDOC, "tee a.py <<'EOF'\nx = 1\nEOF"),
        # tests
        ("pytest tests/test_a.py::test_x", "python -m pytest -x -q tests/test_a.py::test_x --tb=short | tail -20"),
        ("pytest -k 'a and b' tests", 'pytest tests -v -k "a and b"'),
        ("python - <<'EOF'\nprint(1)\nEOF", "python -c 'print(1)'"),
    ],
)
def test_two_ways_of_saying_one_thing_are_worth_one(one: str, other: str) -> None:
    assert functional(bash(one), bash(other)) == 1.0
    assert functional(bash(other), bash(one)) == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (bash("cat src/a.py"), editor("view", "/testbed/src/a.py")),
        (bash("sed -n '10,20p' a.py"), editor("view", "/testbed/a.py", view_range=[10, 20])),
        (bash("tail -n +10 a.py"), editor("view", "/testbed/a.py", view_range=[10, -1])),
        (bash("sed -i 's/x = 1/x = 2/' a.py"), editor("str_replace", "/testbed/a.py", old_str="x = 1", new_str="x = 2")),
        (bash("sed -i '7s/x = 1/x = 2/' a.py"), editor("str_replace", "/testbed/a.py", old_str="x = 1", new_str="x = 2")),
        (bash("sed -i '7a x = 2' a.py"), editor("insert", "/testbed/a.py", insert_line=7, new_str="x = 2")),
        (bash("sed -i '8i x = 2' a.py"), editor("insert", "/testbed/a.py", insert_line=7, new_str="x = 2")),
        (bash(HEREDOC), editor("create", "/testbed/a.py", file_text="x = 1\n")),
        (bash("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"), Action((ToolCall("submit", {}),))),
        (bash("ls", "cat a.py"), bash("cat a.py", "ls")),
        (bash("ls", "cat a.py"), bash("ls && cat a.py")),
    ],
)
def test_tools_and_commands_that_do_the_same_are_worth_one(one: Action, other: Action) -> None:
    assert functional(one, other) == functional(other, one) == 1.0


def worth(shared: float, fields: float) -> float:
    """A pair of operations of one category."""
    return pytest.approx(0.1 + 0.2 * shared + 0.7 * shared * fields)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("expert", "sample", "value"),
    [
        # another category
        ("cat a.py", "rm a.py", 0.0),
        ("grep foo a.py", "cat a.py", 0.0),
        ("python a.py", "cat a.py", 0.0),
        ("cat > a.py <<'E'\nx\nE", "cat >> a.py <<'E'\nx\nE", 0.0),
        # another target
        ("cat a.py", "cat b.py", worth(0, 0)),
        ("cat a.py b.py", "cat a.py c.py", worth(1 / 3, 1)),
        ("cat a.py", "cd src && cat a.py", worth(0, 0)),
        ("python run.py", "python runs.py", worth(0, 0)),
        ("make test", "cd doc && make test", worth(0, 0)),
        ("pytest", "cd doc && pytest", worth(0, 0)),
        ("pytest tests/test_a.py", "pytest tests/test_b.py", worth(0, 0)),
        ("git diff", "git stash", worth(0, 0)),
        # other fields
        ("sed -n '10,20p' a.py", "sed -n '30,40p' a.py", worth(1, 0)),
        ("sed -n '10,20p' a.py", "sed -n '10,31p' a.py", worth(1, 0.5)),
        ("head -20 a.py", "tail -20 a.py", worth(1, 0)),
        ("nl -ba a.py | sed -n 5,9p | grep f", "nl -ba a.py | sed -n 50,90p | grep f", worth(1, 0)),
        ("cat a.py", "head -n 500 a.py", worth(1, 0.5)),
        ("grep foo a.py", "grep -v foo a.py", worth(1, 0)),
        ("grep -iw foo a.py", "grep -i foo a.py", worth(1, 0.5)),
        ("grep foo a.py", "grep fob a.py", worth(1, 2 / 3)),
        ("pytest tests | tail -5", "pytest tests | head -5", worth(1, 0)),
        ("pytest -k 'a or b' tests", "pytest -k a tests", worth(1, 0)),
        ("sed -i '10s/a/b/' a.py", "sed -i '12s/a/b/' a.py", worth(1, 0)),
        ("sed -i 's/a == b/c/' a.py", "sed -i 's/a != b/c/' a.py", worth(1, similarity("a == b", "a != b"))),
        ("sed -i '5,10d' a.py", "sed -i '5,14d' a.py", worth(1, 0.6)),
        ("mv a b", "mv b a", worth(1, 1 / 3)),
        # more or less than was asked for
        ("cat a.py && ls", "cat a.py", 0.5),
        ("cat a.py", "cat a.py; rm -rf .git", 0.5),
        ("python a.py", "python a.py " + "--verbose " * 3, worth(1, 0)),
        # what does not parse
        ("cat a.py", "cat 'a.py", 0.0),
        ("echo 'a", "echo 'b", similarity("echo 'a", "echo 'b")),
        ("", "", 1.0),
        ("cat a.py", "", 0.0),
    ],
)
def test_what_differs_is_graded(expert: str, sample: str, value: float) -> None:
    assert functional(bash(expert), bash(sample)) == value


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ("cat b.py", 0.0),
        ("sed -n '30,40p' a.py", 0.0),
        ("sed -n '10,22p' a.py", 1.0),
        ("sed -n '10,26p' a.py", 0.0),
    ],
)
def test_what_is_binary_is_not_helped_by_the_grades(sample: str, value: float) -> None:
    assert functional(bash("sed -n '10,20p' a.py"), bash(sample), threshold=0.8) == value


def test_binary_at_a_threshold() -> None:
    expert, near, far = bash("grep parse_args a.py"), bash("grep parse_argv a.py"), bash("grep tokens a.py")
    assert [functional(expert, action, threshold=0.8) for action in (expert, near, far)] == [1.0, 1.0, 0.0]
    assert functional(expert, near, threshold=0.95) == 0.0


def test_paths_are_resolved_from_the_working_directory() -> None:
    assert functional(bash("cat a.py"), bash("cat /repo/a.py"), workdir="/repo") == 1.0
    assert functional(bash("cat a.py"), bash("cat /repo/a.py")) == pytest.approx(0.1)


def test_a_tool_that_is_not_known_is_compared_by_name_and_arguments() -> None:
    one, two = Action((ToolCall("ask", {"who": "abcd"}),)), Action((ToolCall("ask", {"who": "abce"}),))
    assert functional(one, two) == worth(1, 0.75)
    assert functional(one, Action((ToolCall("tell", {"who": "abcd"}),))) == 0.0


@pytest.mark.parametrize(("repeats", "value"), [(2, 1 / 2), (32, 1 / 32), (33, 0.0), (5000, 0.0)])
def test_doing_everything_is_worth_next_to_nothing_and_too_much_nothing(repeats: int, value: float) -> None:
    assert functional(bash("cat a.py"), bash("cat a.py; " * repeats)) == value


def test_an_expert_may_do_very_much() -> None:
    assert functional(bash("cat a.py; " * 40), bash("cat './a.py'; " * 40)) == 32 / 40


commands = st.lists(
    st.sampled_from(["cat", "a.py", "-n", "|", "grep", "'x y'", "&&", "sed", "1,2p", ">", "<<E", "\n", "E"])
).map(" ".join)


@given(commands, commands)
def test_any_two_commands_have_a_value_in_range(one: str, two: str) -> None:
    assert 0.0 <= functional(bash(one), bash(two)) <= 1.0
    assert functional(bash(one), bash(one)) == 1.0
