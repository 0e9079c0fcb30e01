from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from swe_srl.report.audit import audit_tables, shown, write_audit_report
from swe_srl.rewards.audit import Audited, summary

HOSTILE = "</pre><script>alert(1)</script> {{ 7 * 7 }}"
FOUND = summary(
    [
        Audited("s", "expert", "cat a.py", "cat a.py", None, {"similarity": 1.0, "functional": 1.0}),
        Audited("s", "look-alike", "cat a.py", f"cat b.py {HOSTILE}", None, {"similarity": 0.875, "functional": 0.0}),
        Audited("s", "forged", "cat a.py", "", "no action", {"similarity": -1.0, "functional": -1.0}),
    ]
)


def test_the_page_shows_both_actions_with_what_differs(tmp_path: Path) -> None:
    page = write_audit_report(FOUND, tmp_path / "new" / "audit.html").read_text()
    assert re.search(r"s <span>· look-alike · similarity 0\.875 · functional 0\.000</span>", page)
    assert "<pre>cat a.py</pre><pre>cat <mark>b</mark>.py" in page
    assert "<td>0.875</td>" in page
    assert not list(tmp_path.rglob("*.partial"))


def test_answers_are_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    page = write_audit_report(FOUND, tmp_path / "audit.html").read_text()
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=""", page)
    assert "default-src 'none'" in page


def test_the_terminal_shows_every_reward() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(audit_tables(FOUND))
    text = console.export_text()
    assert re.search(r"similarity\s+│ look-alike\s+│ 1\s+│ 0\s+│ 0\s+│ 0\.875", text)
    assert re.search(r"similarity · functional\s+│ 1\.000", text)


def test_numbers_as_people_read_them() -> None:
    assert [shown(value) for value in (None, 0.5, -1.0, 3, "x")] == ["–", "0.500", "−1.000", "3", "x"]
