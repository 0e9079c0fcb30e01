from __future__ import annotations

import dataclasses

import pytest

from swe_srl.rewards import effect_similarity, similarity
from swe_srl.rewards.effect import Effect

PATCH = """\
diff --git a/a.py b/a.py
index 1111111111111111111111111111111111111111..2222222222222222222222222222222222222222 100644
--- a/a.py
+++ b/a.py
@@ -5 +5 @@ def f():
-x = 1
+x = 2
"""
OTHER_LINE = PATCH.replace("@@ -5 +5 @@", "@@ -50 +50 @@")
OTHER_TEXT = PATCH.replace("+x = 2", "+x = 3")


def shown(text: str, returncode: int | None = 0) -> Effect:
    return Effect("", text, returncode)


def changed(patch: str, returncode: int = 0) -> Effect:
    return Effect(patch, "whatever it showed", returncode)


@pytest.mark.parametrize(
    ("expert", "sample", "value"),
    [
        # reads: by what they showed
        (shown("a\nb\n"), shown("a\nb\n"), 1.0),
        (shown("a\nb\n"), shown("b\na\n"), 1.0),
        (shown("1 passed in 0.12s"), shown("1 passed in 3.4s"), 1.0),
        (shown("abcd"), shown("abce"), 0.75),
        (shown("abcd", 0), shown("abcd", 1), 0.5),
        (shown("abcd", 1), shown("abcd", 2), 1.0),
        (shown("abcd"), shown(""), 0.0),
        # writes: by what they changed
        (changed(PATCH), changed(PATCH), 1.0),
        (changed(PATCH), Effect(PATCH, "", 0), 1.0),
        (changed(PATCH), changed(OTHER_LINE), 0.5),
        (changed(PATCH), changed(OTHER_TEXT), similarity("-x = 1\n+x = 2\n", "-x = 1\n+x = 3\n")),
        (changed(PATCH, 0), changed(PATCH, 1), 0.5),
        # one of them wrote
        (changed(PATCH), Effect("", "whatever it showed", 0), 0.0),
        (shown("whatever it showed"), changed(PATCH), 0.0),
        # outside the repository
        (Effect("", "", 0, files={"/tmp/t.py": "a\n"}), Effect("", "", 0, files={"/tmp/t.py": "a\n"}), 1.0),
        (Effect("", "", 0, files={"/tmp/t.py": "a\n"}), Effect("", "", 0), 0.0),
        (Effect("", "", 0, files={"/tmp/t.py": "a\n"}), Effect("", "", 0, files={"/tmp/u.py": "a\n"}), 0.0),
        # nothing to compare
        (shown(""), shown(""), None),
        (shown("", 0), shown("", 1), 0.5),
        # time-outs
        (shown("abcd"), dataclasses.replace(shown("abcd", None), timed_out=True), 0.0),
        (Effect("", "abcd", None, True), Effect("", "abcd", None, True), None),
        (Effect("", "abcd", None, True), shown("abcd"), None),
        # a shell that stays alive
        (Effect("", "abcd", 0, session="cd a"), Effect("", "abcd", 0, session="cd a"), 1.0),
        (Effect("", "abcd", 0, session="cd a"), Effect("", "abcd", 0, session="cd b"), 0.5),
        (Effect("", "", 0, session="cd a"), Effect("", "", 0, session="cd a"), 1.0),
        (Effect("", "", 0, session="cd a"), Effect("", "", 0), 0.5),
        (Effect(PATCH, "", 0, session="cd a"), changed(PATCH), 0.5),
        # a patch that was cut, or no patch
        (changed(PATCH), changed("fatal: not a git repository\n"), similarity(PATCH, "fatal: not a git repository\n")),
    ],
)
def test_reads_by_what_they_showed_writes_by_what_they_changed(expert: Effect, sample: Effect, value: float | None) -> None:
    assert effect_similarity(expert, sample) == (None if value is None else pytest.approx(value))


def test_an_effect_survives_json() -> None:
    effect = Effect(PATCH, "a\n", None, True, {"/tmp/x": "1"}, "cd a", 0.25)
    assert Effect.from_json(effect.to_json()) == effect
