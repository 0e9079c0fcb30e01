"""Exports read back: by this project's readers, by datasets, by a real chat template, and by their documented columns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from documents_of_every_format import DOCUMENTS
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.errors import UserError
from swe_srl.policy.model import load_tokenizer
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.scaffolds.mini_swe_agent import MiniSweAgent
from swe_srl.trajectories.exporting import run_export
from swe_srl.trajectories.exports import FORMATS, sft_chat, tool_definitions
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import Origin
from swe_srl.trajectories.readers import find_reader
from swe_srl.trajectories.storage import write_jsonl

BOTH = Action((ToolCall("bash", {"command": "ls"}, "c1"), ToolCall("edit", {"path": "/a", "lines": [1, 2]}, "c2")))
RESULTS = Observation("a.py\ndone", extra={"results": [{"length": 4}, {"length": 4}]})
RUN = Trajectory(
    "r1",
    "org__lib-7",
    "mini-swe-agent",
    "mini-swe-agent-1",
    (
        Turn("system", "Be good."),
        Turn("user", "Fix it."),
        Turn(
            "agent", "demo", "Demo.", Action((ToolCall("bash", {"command": "true"}),)), Observation("", ""), context_only=True
        ),
        Turn("agent", "See.\n```bash\nls\n```", "See.", Action((ToolCall("bash", {"command": "ls"}),)), Observation("a.py")),
        Turn("agent", "Hm.", "Hm.", Action(error="found 0 bash blocks"), Observation("Try again.")),
        Turn("agent", "", "Both.", BOTH, RESULTS),
    ),
    model="m",
    resolved=True,
)


def exported(to_format: str, tmp_path: Path, *runs: Trajectory) -> Path:
    source, to = tmp_path / "in.jsonl", tmp_path / ("out.parquet" if to_format == "verl" else "out.jsonl")
    write_jsonl(source, runs or [RUN])
    report = run_export([source], to, to_format)
    assert report.bad == []
    assert report.trajectories == len(runs or [RUN])
    return to


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sft_chat(tmp_path: Path) -> None:
    def called(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    (row,) = rows(exported("sft-chat", tmp_path))
    assert row["messages"] == [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "Fix it."},
        {"role": "assistant", "content": "Demo.", "weight": 0, "tool_calls": [called("call_2_0", "bash", {"command": "true"})]},
        {"role": "tool", "content": "", "tool_call_id": "call_2_0", "name": "bash"},
        {"role": "assistant", "content": "See.", "weight": 1, "tool_calls": [called("call_3_0", "bash", {"command": "ls"})]},
        {"role": "tool", "content": "a.py", "tool_call_id": "call_3_0", "name": "bash"},
        {"role": "assistant", "content": "Hm.", "weight": 0},
        {"role": "user", "content": "Try again."},
        {"role": "assistant", "content": "Both.", "weight": 1, "tool_calls": [
            called("c1", "bash", {"command": "ls"}), called("c2", "edit", {"path": "/a", "lines": [1, 2]})]},
        {"role": "tool", "content": "a.py", "tool_call_id": "c1", "name": "bash"},
        {"role": "tool", "content": "done", "tool_call_id": "c2", "name": "edit"},
    ]  # fmt: skip
    assert row["tools"] == tool_definitions(RUN)
    about = {"id": "r1", "task_id": "org__lib-7", "scaffold": "mini-swe-agent", "model": "m", "resolved": "true"}
    assert {key: row[key] for key in about} == about


def test_trl_prompts_hold_all_before_the_step_and_the_answer(tmp_path: Path) -> None:
    (chat,) = sft_chat(RUN)
    plain = [{key: value for key, value in message.items() if key != "weight"} for message in chat["messages"]]
    made = rows(exported("trl-prompt", tmp_path))
    assert [(row["prompt"], row["completion"]) for row in made] == [(plain[:4], plain[4:5]), (plain[:8], plain[8:9])]
    assert [json.loads(row["expected_action"]) for row in made] == [
        [{"name": "bash", "arguments": {"command": "ls"}}],
        [{"name": "bash", "arguments": {"command": "ls"}}, {"name": "edit", "arguments": {"path": "/a", "lines": [1, 2]}}],
    ]


def test_trl_takes_its_rows(builtin_model: str, tmp_path: Path) -> None:
    """By `datasets`, and through the chat template as TRL's trainers apply it."""
    from datasets import load_dataset
    from trl.data_utils import apply_chat_template, is_conversational

    tokenizer = load_tokenizer(builtin_model)

    def taken(to_format: str) -> list[dict[str, Any]]:
        path = exported(to_format, tmp_path)
        return list(load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")))

    prompts, (chat,) = taken("trl-prompt"), taken("sft-chat")
    assert all(is_conversational(row) for row in [*prompts, chat])
    first = apply_chat_template({"prompt": prompts[0]["prompt"], "completion": prompts[0]["completion"]}, tokenizer)
    assert first["prompt"].startswith("<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nFix it.<|im_end|>\n")
    assert first["prompt"].endswith("<|im_start|>assistant\n")
    assert first["completion"] == "See.<|im_end|>\n"
    text = apply_chat_template({"messages": chat["messages"], "tools": chat["tools"]}, tokenizer)["text"]
    assert "<|im_start|>assistant\nBoth.<|im_end|>\n<|im_start|>tool\na.py<|im_end|>\n" in text


def test_verl_rows_are_one_table_with_its_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(exported("verl", tmp_path, RUN))
    assert table.column_names == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    first, second = table.to_pylist()
    assert [message["role"] for message in first["prompt"]] == ["system", "user", "assistant", "tool"]
    assert first["prompt"][2]["tool_calls"][0]["function"] == {"name": "bash", "arguments": '{"command": "true"}'}
    assert first["reward_model"] == {"style": "rule", "ground_truth": '[{"name": "bash", "arguments": {"command": "ls"}}]'}
    assert (second["extra_info"]["index"], second["extra_info"]["id"]) == (1, "r1")


def test_nemo_gym_rows_read_back_as_one_step_each(tmp_path: Path) -> None:
    path = exported("nemo-gym", tmp_path)
    made = load([path])
    assert [item.format for item in made] == ["nemo-gym-pivot"] * 3
    shell, edit = ToolCall("bash", {"command": "ls"}), ToolCall("edit", {"path": "/a", "lines": [1, 2]})
    assert [next(item.steps()).action.call for item in made] == [shell, shell, edit]
    assert [sum(1 for _ in item.steps()) for item in made] == [1, 1, 1]
    assert [item.task_id for item in made] == ["org__lib-7"] * 3
    assert rows(path)[0]["responses_create_params"]["tools"][0]["name"] == "bash"


def test_adp_rows_read_back(tmp_path: Path) -> None:
    path = exported("adp", tmp_path)
    (made,) = load([path])
    assert [[(call.name, call.arguments) for call in step.action.calls] for step in made.steps()] == [
        [("bash", {"command": "ls"})],
        [("bash", {"command": "ls"}), ("edit", {"path": "/a", "lines": [1, 2]})],
    ]
    assert [turn.text for turn in made.turns if turn.role == "agent" and not turn.is_step] == ["demo", "Hm."]
    assert (made.id, made.task_id, made.resolved, made.model) == ("r1", "org__lib-7", True, "m")
    assert all(isinstance(value, str) for value in rows(path)[0]["details"].values())


@pytest.mark.parametrize("to_format", ["sft-chat", "trl-prompt", "adp", "nemo-gym"])
def test_datasets_reads_the_rows_as_they_were_written(to_format: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = exported(to_format, tmp_path)
    read = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    column = {"sft-chat": "messages", "trl-prompt": "completion", "adp": "content", "nemo-gym": "expected_action"}[to_format]
    assert [present(row[column]) for row in read] == [present(row[column]) for row in rows(path)]


def test_datasets_reads_runs_that_differ_in_all_they_may_lack(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    big = "x" * 4_000_000  # datasets types a table by its first 10 MB
    runs = [RUN]
    for i, (name, document) in enumerate(DOCUMENTS.items()):
        reader = find_reader(document)
        assert reader is not None
        run = reader.read(document, Origin(name))
        runs += [replace(run, id=f"{name}-{i}", turns=(Turn("user", big), *run.turns))]
    for to_format in ("trl-prompt", "adp"):
        path = exported(to_format, tmp_path, *runs)
        read = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / to_format))
        assert [present(row) for row in read] == [present(row) for row in rows(path)]


def present(value: Any) -> Any:
    """Without the nulls that a table has where a row lacks a field."""
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    return [present(item) for item in value] if isinstance(value, list) else value


def test_tools_come_from_the_scaffold_the_source_or_the_calls() -> None:
    def tools(scaffold: str, **extra: Any) -> list[dict[str, Any]]:
        return tool_definitions(Trajectory("a", "t", scaffold, "atif", RUN.turns, extra=extra))

    def defined(name: str, **properties: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties, "required": [], "additionalProperties": True}
        return {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}

    (bash,) = MiniSweAgent.tools
    (filled,) = tools("mini-swe-agent", tools=[defined("x")])
    assert filled["function"]["parameters"] == bash["function"]["parameters"] | {"additionalProperties": True}
    assert tools("other", tools=[{"type": "function", "function": {"name": "x", "parameters": {}}}]) == [defined("x")]
    assert tools("other", responses_create_params={"tools": [{"type": "function", "name": "x"}]}) == [defined("x")]
    shown = [defined("bash", command={"type": "string"}), defined("edit", path={"type": "string"}, lines={"type": "array"})]
    assert tools("other", tools=[7]) == tools("other") == shown


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [RUN])
    for to, to_format, reason in (
        ("a.jsonl", "csv", "--to-format csv: unknown format; known: atif, sft-chat, trl-prompt, verl, nemo-gym, adp"),
        ("a.jsonl", "verl", "it must end in .parquet"),
        ("a.parquet", "adp", "it must be a JSON Lines file"),
    ):
        with pytest.raises(UserError, match=reason):
            run_export([tmp_path / "in.jsonl"], tmp_path / to, to_format)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("to_format", FORMATS)
def test_every_format_goes_out_to_every_other_with_its_steps(name: str, to_format: str) -> None:
    reader = find_reader(DOCUMENTS[name])
    assert reader is not None
    run = reader.read(DOCUMENTS[name], Origin("file"))
    made = list(FORMATS[to_format](run))
    assert made == json.loads(json.dumps(made))
    expected = [[(call.name, dict(call.arguments)) for call in step.action.calls] for step in run.steps()]
    assert targets(to_format, made) == expected


def targets(to_format: str, made: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    """The calls that the rows of a format make targets."""
    if to_format in ("trl-prompt", "verl"):
        texts = [row["expected_action"] if to_format == "trl-prompt" else row["reward_model"]["ground_truth"] for row in made]
        return [[(call["name"], call["arguments"]) for call in json.loads(text)] for text in texts]
    if to_format == "nemo-gym":
        return [[(row["expected_action"]["name"], json.loads(row["expected_action"]["arguments"]))] for row in made]
    if to_format == "sft-chat":
        answers = [message for row in made for message in row["messages"] if message.get("weight")]
        functions = [[call["function"] for call in answer["tool_calls"]] for answer in answers]
        return [[(function["name"], function["arguments"]) for function in part] for part in functions]
    reader = find_reader(made[0])
    assert reader is not None
    steps = reader.read(made[0], Origin("x")).steps()
    return [[(call.name, dict(call.arguments)) for call in step.action.calls] for step in steps]


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)


@given(TEXT, st.dictionaries(TEXT, st.integers() | TEXT, max_size=3))
def test_any_arguments_go_out_unchanged(thought: str, arguments: dict[str, Any]) -> None:
    turn = Turn("agent", "", thought, Action((ToolCall("bash", arguments, "c"),)), Observation(thought))
    run = Trajectory("a", "t", "other", "atif", (Turn("user", "Fix."), turn))
    for to_format, row_function in FORMATS.items():
        assert targets(to_format, list(row_function(run))) == [[("bash", arguments)]]
