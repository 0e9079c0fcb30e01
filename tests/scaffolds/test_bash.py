from __future__ import annotations

import pytest

from swe_srl.scaffolds.bash import Command, Redirect, pipelines


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls", ("ls",)),
        ("grep 'a b' \"c d\" e\\ f", ("grep", "a b", "c d", "e f")),
        ("echo a'b'\"c\"d", ("echo", "abcd")),
        (r'echo "a\"b\$c\n"', ("echo", r'a"b$c\n')),
        (r"echo $'a\nb'", ("echo", "a\nb")),
        ('echo $HOME "$(pwd)/x"', ("echo", "$HOME", "$(pwd)/x")),
        ("tail -5 +3", ("tail", "-5", "+3")),
        ("! grep x f", ("!", "grep", "x", "f")),
    ],
)
def test_words_are_unquoted_and_not_expanded(command: str, words: tuple[str, ...]) -> None:
    assert pipelines(command) == [(Command(words),)]


@pytest.mark.parametrize("joined", ["a && b", "a; b", "a || b", "a\nb", "(a; b)", "{ a; b; }"])
def test_commands_in_the_order_written(joined: str) -> None:
    assert pipelines(joined) == [(Command(("a",)),), (Command(("b",)),)]


def test_a_pipeline() -> None:
    assert pipelines("A=1 a x | b | c") == [(Command(("a", "x"), ("A=1",)), Command(("b",)), Command(("c",)))]


def test_redirections_belong_to_the_last_command() -> None:
    assert pipelines("a 2>&1 | b >> out") == [
        (Command(("a",), redirects=(Redirect("2>&", "1"),)), Command(("b",), redirects=(Redirect(">>", "out"),)))
    ]


@pytest.mark.parametrize("text", ["cat <<'EOF' > f && b\nx $y\nEOF", "cat > f <<'EOF'\nx $y\nEOF\nb"])
def test_a_here_document_is_what_the_first_command_reads(text: str) -> None:
    assert pipelines(text) == [(Command(("cat",), stdin="x $y\n", redirects=(Redirect(">", "f"),)),), (Command(("b",)),)]


def test_a_here_document_after_other_commands() -> None:
    assert pipelines("cd x && cat <<E > f\nab\nE") == [
        (Command(("cd", "x")),),
        (Command(("cat",), stdin="ab\n", redirects=(Redirect(">", "f"),)),),
    ]


def test_a_here_document_before_a_pipe() -> None:
    assert pipelines("cat <<E | grep x\nab\nE") == [(Command(("cat",), stdin="ab\n"), Command(("grep", "x")))]
    assert pipelines("cat <<< 'ab'") == [(Command(("cat",), stdin="ab"),)]


@pytest.mark.parametrize("text", ["for f in *; do cat $f; done", "if a; then b; fi", "[[ -f x ]]", "f() { a; }"])
def test_a_compound_command_is_its_source(text: str) -> None:
    assert pipelines(text) == [(Command((text,), compound=True),)]


@pytest.mark.parametrize("text", ["echo 'a", "if a; then", "a && && b"])
def test_what_does_not_parse(text: str) -> None:
    assert pipelines(text) is None


def test_nothing_is_nothing() -> None:
    assert pipelines("") == pipelines("# a comment") == []
