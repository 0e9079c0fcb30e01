"""What `swe-srl evaluate oracle-edit` and `localise-edit` do: tasks, the files of their fixes, the policy, and the rollouts.

Invariant: of a task's fix nothing but the names of the files it changes is used, and those in the oracle setting alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from unidiff import PatchSet
from unidiff.errors import UnidiffParseError

from swe_srl.cluster.select import open_cluster
from swe_srl.environments.task import Task
from swe_srl.errors import UserError
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rollouts.command import EXPERT, PolicyChoice, nothing_to_do, open_policy, read_tasks
from swe_srl.rollouts.edit_agent import SCAFFOLD, EditConfig, edit
from swe_srl.rollouts.run import RolloutOptions, RolloutReport, run_rollouts
from swe_srl.rollouts.starts import Start, at_issue


def edit_command(
    task_paths: Sequence[Path],
    only: Sequence[str] | None,
    test_command: str | None,
    out: Path,
    choice: PolicyChoice,
    options: RolloutOptions,
    say: Callable[[str], None],
) -> RolloutReport:
    """Make the rollouts. Raises UserError where there is nothing to roll out, or options do not go together."""
    if choice.model == EXPERT and choice.endpoint is None:
        raise UserError("--model expert plays recorded actions, and edits are none: name a model or an --endpoint")
    if not isinstance(options.agent, EditConfig):
        raise TypeError("edits are made as an EditConfig says")
    tasks, failed = read_tasks(task_paths, only, test_command, say)
    begin, left_out = edit_starts(tasks.values(), options.agent)
    failed += left_out
    if not begin:
        raise nothing_to_do(failed)
    with (
        open_cluster(options.cluster, options.workers, say) as cluster,
        open_policy(choice, PromptOptions(), [], cluster) as (policy, _),
    ):
        report = run_rollouts(begin, tasks, policy, out, choice.decisive(), options, say, edit, cluster)
    for rollout in report.rollouts:
        if rollout.exit_status in ("context", "unshowable"):
            say(f"{rollout.id}: was not asked for edits: {rollout.extra['edit']['reason']}")
    report.failed = failed + report.failed
    return report


def edit_starts(tasks: Iterable[Task], config: EditConfig) -> tuple[list[Start], list[dict[str, str]]]:
    """A start for each task, and the id and reason of those whose files to edit are not known, in the oracle setting."""
    begin, left_out = [], []
    for task in tasks:
        start = at_issue(task, SCAFFOLD)
        if config.setting == "oracle":
            try:
                start = replace(start, files=files_to_edit(task))
            except ValueError as error:
                left_out.append({"id": task.id, "reason": str(error)})
                continue
        begin.append(start)
    return begin, left_out


def files_to_edit(task: Task) -> tuple[str, ...]:
    """The files of the repository that the task's fix changes.

    The fix is the row's `patch`; where there is none the patches of the source are taken for the bug, which the fix undoes.
    Files that the fix makes are not among them. Raises ValueError where the fix is not known or changes no file that is there.
    """
    fix = task.extra.get("patch")
    bugs = [*(patch.read_text() for patch in task.source.patches), *([task.source.diff] if task.source.diff else [])]
    try:
        if isinstance(fix, str) and fix.strip():
            files = [_path(file.source_file) for file in PatchSet(fix) if not file.is_added_file]
        else:
            files = [file.path for bug in bugs for file in PatchSet(bug) if not file.is_removed_file]
    except UnidiffParseError as error:
        raise ValueError(f"its fix is not a unified diff: {error}") from error
    if not files:
        known = "changes no file that is there" if fix or bugs else "is not known: it has no `patch`, and its source none"
        raise ValueError(f"the oracle setting shows the files that the fix changes, and its fix {known}")
    return tuple(sorted(set(files)))


def _path(name: str) -> str:
    return name.removeprefix("a/")
