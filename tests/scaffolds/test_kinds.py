import pytest

from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.scaffolds.kinds import action_kind, call_kind, command_kind


@pytest.mark.parametrize(
    "command",
    [
        "ls -la",
        "cd /testbed && grep -rn 'rm -rf' src | head -20",
        "sed -n '1,20p' a.py; nl -ba b.py",
        "cat a.py 2>/dev/null",
        "cat a.py 2>&1 | wc -l",
        "cat < a.py",
        "find . -name '*.py' | xargs grep -l edit",
        "git -C sub --no-pager log -3",
        "git diff HEAD~1",
        "git branch -a",
        "git stash list",
        "for f in a b; do cat $f; done",
        "if [ -f a ]; then head a; fi",
        "timeout 10 grep x y",
        "env | sort",
        "/usr/bin/ls",
        r"\ls",
        "export X=1 && echo $X",
        'echo "rm a > b"',
        "awk 'NR>=10 && NR<=20 || /x/ {print $1}' a",
        r"find . -exec grep -l 'x\|y' {} \;",
    ],
)
def test_looking_is_a_read(command: str) -> None:
    assert command_kind(command) == "read"


@pytest.mark.parametrize(
    "command",
    [
        "sed -i 's/a/b/' a.py",
        "sed -ni.bak p a.py",
        "sed --in-place=.bak s/a/b/ a.py",
        "cat > a.py <<'EOF'\nprint(1)\nEOF",
        "cat <<EOF >> a.py\nprint(1)\nEOF",
        "cat <<'EOF' > edit.py && python edit.py\nopen('a', 'w')\nEOF",
        "pytest; rm -rf build",
        "echo $(rm a)",
        "find . -name '*.orig' -delete",
        "git checkout -- a.py",
        "git stash",
        "patch -p1 < fix.patch",
        "sudo mv a b",
        "cp /tmp/a.py a.py",
        "printf x | tee a",
        "sort -o a a",
        "{ echo a; echo b; } > c",
        "xargs rm < names",
        "find . -name '*.orig' -exec rm {} +",
    ],
)
def test_changing_files_is_an_edit(command: str) -> None:
    assert command_kind(command) == "edit"


@pytest.mark.parametrize(
    "command",
    [
        "python -m pytest -q",
        "python - <<'EOF'\nopen('a', 'w')\nEOF",
        "pytest > /tmp/log 2>&1; tail /tmp/log",
        "rm /tmp/log",
        "cat a | python -c 'import sys'",
        r"find . -exec ./run.sh {} \;",
        "awk '{print > \"out\"}' a",
        "awk '{print | \"sh\"}' a",
        "xargs",
        "bash -c 'ls'",
        "git commit -m x",
        "git branch new",
        "pip install x",
        "./run.sh",
        "$EDITOR a.py",
        "if then (",
        "",
    ],
)
def test_what_is_not_known_or_does_not_parse_is_other(command: str) -> None:
    assert command_kind(command) == "other"


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, arguments)


@pytest.mark.parametrize(
    ("scaffold", "made", "kind"),
    [
        ("mini-swe-agent", call("bash", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git diff --cached"), "submit"),
        ("mini-swe-agent", call("bash", command="submit"), "other"),
        ("swe-agent", call("bash", command="submit"), "submit"),
        ("swe-agent", call("submit"), "submit"),
        ("swe-agent", call("str_replace_editor", command="view", path="/a"), "read"),
        ("swe-agent", call("str_replace_editor", command="insert", path="/a"), "edit"),
        ("swe-agent", call("str_replace_editor", path="/a"), "other"),
        ("swe-agent-windowed", call("open", path="a.py"), "read"),
        ("swe-agent-windowed", call("edit", start_line=1, end_line=2), "edit"),
        ("swe-agent-windowed", call("bash", command="edit 1:2\ndef f(:\nend_of_edit"), "edit"),
        ("swe-agent-windowed-0", call("bash", command="goto 12"), "read"),
        ("swe-agent-cursors", call("bash", command="set_cursors 1 4"), "read"),
        ("mini-swe-agent", call("bash", command="open a.py"), "other"),
        ("openhands", call("execute_bash", command="ls"), "read"),
        ("openhands", call("think", thought="hm"), "other"),
        ("openhands", call("finish"), "submit"),
        ("not known here", call("bash", command="ls"), "read"),
        ("not known here", call("bash", command=["ls"]), "other"),
    ],
)
def test_a_call_is_judged_by_its_scaffold(scaffold: str, made: ToolCall, kind: str) -> None:
    assert call_kind(made, scaffold) == kind


def test_of_several_calls_the_weightiest_counts() -> None:
    read, edit, run = call("bash", command="ls"), call("bash", command="rm a"), call("bash", command="make")
    assert action_kind(Action((read, run, edit)), "swe-agent") == "edit"
    assert action_kind(Action((read, run)), "swe-agent") == "other"
    assert action_kind(Action((read, edit, call("submit"))), "swe-agent") == "submit"
    with pytest.raises(ValueError, match=r"without tool calls .* \(found 2 bash blocks\)"):
        action_kind(Action(error="found 2 bash blocks"), "swe-agent")
