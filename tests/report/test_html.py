import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from swe_srl.environments.fidelity import TrajectoryReplay, compare
from swe_srl.environments.replay import ReplayReport
from swe_srl.errors import UserError
from swe_srl.report.differences import pieces
from swe_srl.report.html import charts, duration, write_report
from swe_srl.report.run_data import shown_groups
from swe_srl.scaffolds.base import Observation

HOSTILE = "</script></pre><script>alert(1)</script><img src=https://evil.example/x onerror='alert(2)'>\"&"


def evaluation(value: float) -> dict[str, Any]:
    names = ("mean_reward", "format_validity", "mean_similarity", "tool_accuracy")
    estimate = {"value": value, "low": value - 0.125, "high": value + 0.125}
    return {**dict.fromkeys(names, estimate), "mean_similarity_valid": None, "n": 24, "steps": [], "skipped": {}}


def srl_line(update: int, reward: float, similarity: float | None) -> dict[str, Any]:
    return {"objective": "srl", "update": update, "reward_mean": reward, "valid_similarity": similarity, "grad_norm": 2.0}


def sample(text: str, action: str, reward: float, error: str | None = None) -> dict[str, Any]:
    fields = {"text": text, "action": action, "reward": reward, "advantage": reward, "error": error, "valid": error is None}
    return {**fields, "similarity": None if error else reward, "tokens": 3, "finish": "stop"}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.toml").write_text(f'[model]\nname = {json.dumps(HOSTILE)}\n[[stages]]\nobjective = "sft"\n')
    lines = [{"objective": "sft", "update": 0, "loss": 1.5, "grad_norm": 1.0}, srl_line(0, -1.0, None), srl_line(1, 0.5, 0.75)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    group = {
        "stage": 1,
        "update": 0,
        "step": HOSTILE,
        "expert": "<function=bash>\n<parameter=command>ls src</parameter>\n</function>",
        "kept": True,
        "samples": [
            sample(HOSTILE, HOSTILE, -1.0, f"missing think: {HOSTILE}"),
            sample("<think>\nt\n</think>\nls lib", "ls lib", 0.5),
        ],
    }
    (folder / "samples.jsonl").write_text(json.dumps(group) + "\n")
    (folder / "evaluation-before.json").write_text(json.dumps(evaluation(0.25)))
    (folder / "evaluation-after.json").write_text(json.dumps(evaluation(0.75)))
    steps = [compare(0, Observation("a b", "a b", 0), Observation("a b\r\n", "a b\r\n", 1), 0.5)]
    steps.append(compare(1, Observation("abcd", "abcd", 0), Observation("abxy", "abxy", 0), 0.5))
    replay = TrajectoryReplay(HOSTILE, "calc-1", tuple(steps), 4.25, True)
    (folder / "replay.json").write_text(json.dumps(ReplayReport([replay]).to_json()))
    return folder


class Page(HTMLParser):
    """What a browser would see: elements with attributes, and text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.marked: list[str] = []
        self.cells: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "mark" in self._open:
            self.marked.append(data)
        if "script" in self._open:
            self.scripts.append(data)
        if "td" in self._open:
            self.cells[-1] += data


def test_steps_left_out_and_prompts_cut_are_told(run_folder: Path) -> None:
    counts = {"train_steps": 3, "train_tasks": ["t"], "validation_steps": 0, "validation_tasks": []}
    told = {"left_out": {"its kind": 2}, "cut_prompts": {"pairs left out to fit": 1}}
    (run_folder / "data.json").write_text(json.dumps(counts | told))
    page = write_report(run_folder).read_text()
    assert "<dt>Left out</dt><dd>2 steps because its kind</dd><dt>Prompts cut</dt><dd>1: pairs left out to fit</dd>" in page


def test_hostile_text_stays_text_and_nothing_is_loaded_from_anywhere(run_folder: Path) -> None:
    path = write_report(run_folder)
    text = path.read_text()
    page = Page(text)
    assert path == run_folder / "report.html"
    assert path.stat().st_size < 6_000_000
    assert sorted({tag for tag, _ in page.elements} & {"img", "link", "iframe", "object", "embed", "base"}) == []
    assert [
        (tag, key) for tag, attributes in page.elements for key in attributes if key in ("src", "href", "style", "onerror")
    ] == []
    nonces = {attributes.get("nonce") for tag, attributes in page.elements if tag == "script"}
    assert len(page.scripts) == 3
    assert len(nonces) == 2, "the library and the page's script share a nonce, the data block has none"
    assert "default-src 'none'" in text
    assert HOSTILE not in text.replace("plotly", "")
    assert HOSTILE in page.cells
    assert "alert(1)" not in page.scripts[1] + page.scripts[2]
    outside_the_library = text.replace(page.scripts[0], "")
    assert re.findall(r"https?://(?!evil\.example)\S+", outside_the_library) == []


def test_tables_hold_the_numbers_with_intervals(run_folder: Path) -> None:
    cells = [cell.strip() for cell in Page(write_report(run_folder).read_text()).cells]
    start = cells.index("valid format")
    assert cells[start : start + 4] == ["valid format", "0.250 [0.125, 0.375]", "0.750 [0.625, 0.875]", "+0.500"]
    start = cells.index(HOSTILE)
    assert cells[start : start + 7] == [HOSTILE, "2", "1", "0", "1", "0.750", "4.2"]


def test_differences_to_the_expert_are_marked(run_folder: Path) -> None:
    marked = "".join(Page(write_report(run_folder).read_text()).marked)
    assert "lib" in marked
    assert "ls lib" not in marked


def test_pieces_join_to_the_sample_and_mark_whole_words() -> None:
    assert pieces("grep -n foo a.py", "grep -rn foo b.py") == [
        ("grep -", False),
        ("rn", True),
        (" foo ", False),
        ("b", True),
        (".py", False),
    ]
    assert pieces("same", "same") == [("same", False)]
    assert pieces("a", "") == []


def test_charts_hold_what_the_metrics_hold() -> None:
    lines = [{"objective": "sft", "update": 0, "loss": 1.5, "grad_norm": 1.0}, srl_line(0, -1.0, None), srl_line(1, 0.5, 0.75)]
    drawn = {chart["title"]: chart["series"] for chart in charts(lines)}
    assert drawn["SFT loss"] == [{"name": "nats a token", "x": [1], "y": [1.5]}]
    assert drawn["Reward"] == [{"name": "mean of all samples", "x": [2, 3], "y": [-1.0, 0.5]}]
    assert drawn["Similarity of valid samples"] == [{"name": "mean", "x": [2, 3], "y": [None, 0.75]}]
    assert drawn["Gradient norm"][0]["x"] == [1, 2, 3]
    assert "Groups" not in drawn


def test_groups_are_spread_over_the_run(tmp_path: Path) -> None:
    lines = [{"update": update, "kept": update % 2 == 0} for update in range(21)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [group["update"] for group in shown_groups(tmp_path, 3)] == [0, 10, 20]
    assert len(shown_groups(tmp_path, 100)) == 11


def test_a_bare_run_still_has_a_report_and_other_folders_have_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        write_report(tmp_path)
    (tmp_path / "recipe.toml").write_text('[model]\nname = "m"\n[[stages]]\nobjective = "sft"\n')
    out = write_report(tmp_path, tmp_path / "sub" / "page.html")
    assert out.stat().st_size < 20_000, "no charts, no plotting library"
    (tmp_path / "metrics.jsonl").write_text('{"broken\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1"):
        write_report(tmp_path)


def test_durations() -> None:
    assert [duration(s) for s in (4.24, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 05 min"]
