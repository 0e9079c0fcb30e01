"""A plan as terminal tables, with what it assumed in words."""

from __future__ import annotations

from typing import Any

from swe_srl.planning.plan import Plan


def plan_tables(plan: Plan) -> Any:
    """Everything a person needs of the plan, as one thing that rich prints."""
    from rich.console import Group

    parts = [_stages(plan), _memory(plan), _time(plan)]
    return Group(_head(plan), *(part for table in parts for part in ("", table)), "", _verdict(plan))


def duration(seconds: float) -> str:
    """Two units at most: 45 s, 3 min 20 s, 5 h 12 min, 3 d 4 h."""
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds else "0"
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    size, unit, below, smaller = next(found for found in units if round(seconds) >= found[0])
    whole, rest = divmod(round(seconds / below), size // below)
    return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"


def _head(plan: Plan) -> str:
    model, data = plan.model, plan.data
    trained = "all trained" if model.trained == model.parameters else f"{model.trained:,} trained in adapters"
    lines = [
        f"model: {model.family}, {model.parameters:,} parameters, {trained}, {model.layers} layers ({model.source})",
        f"data: {data['trajectories']:,} trajectories, {data['steps']:,} steps to train on, {data['validation_steps']:,} held "
        f"out ({data['source']})",
        f"unit costs: {plan.device}, {'measured' if plan.measured else 'estimated'}: {plan.costs_source}",
    ]
    lines += [f"left out: {count:,} steps: {reason}" for reason, count in data["left_out"].items()]
    return "\n".join(lines)


def _stages(plan: Plan) -> Any:
    from rich.table import Table

    table = Table(title="Stages; tokens of one update", title_justify="left")
    for column in (
        "stage",
        "updates",
        "steps or groups",
        "prompt",
        "answer",
        "separate",
        "through the model",
        "times fewer",
        "engine",
    ):
        table.add_column(column, justify="left" if column in ("stage", "engine") else "right")
    for number, stage in enumerate(plan.stages, start=1):
        batch = stage.batch
        table.add_row(
            f"{number} {stage.objective}",
            f"{stage.updates:,}",
            f"{stage.kept:,.0f}" + (f" of {stage.drawn:,.0f}" if stage.drawn > stage.kept else ""),
            f"{stage.prompt_tokens:,.0f}",
            (f"{stage.turns:.3g} × " if stage.turns > 1 else "") + f"{stage.answer_tokens:,.0f}",
            f"{batch.separate:,}",
            f"{batch.forward:,}",
            f"{batch.separate / batch.forward:.1f}",
            stage.engine,
        )
    return table


def _memory(plan: Plan) -> Any:
    from rich.table import Table

    table = Table(title=f"GiB on each device, of {plan.device_memory_gib:g}", title_justify="left")
    table.add_column("part")
    for size in plan.sizes:
        table.add_column(_devices(size.devices), justify="right")
    for part in plan.sizes[0].memory_gib:
        table.add_row(part, *(f"{size.memory_gib[part]:.1f}" for size in plan.sizes))
    table.add_section()
    table.add_row("peak", *(f"{size.peak_gib:.1f}" + ("" if size.fits else " too much") for size in plan.sizes))
    return table


def _time(plan: Plan) -> Any:
    from rich.table import Table

    table = Table(title=f"Time ({'measured' if plan.measured else 'estimated'} unit costs)", title_justify="left")
    table.add_column("phase")
    for size in plan.sizes:
        table.add_column(_devices(size.devices), justify="right")
    for phase in plan.sizes[0].seconds:
        table.add_row(phase, *(duration(size.seconds[phase]) for size in plan.sizes))
    table.add_section()
    if any(size.sampling_devices for size in plan.sizes):
        table.add_row("devices that only sample", *(str(size.sampling_devices or "none") for size in plan.sizes))
    table.add_row("all", *(duration(size.total_seconds) for size in plan.sizes))
    table.add_row("device hours", *(f"{size.device_hours:,.1f}" for size in plan.sizes))
    if any(size.cost is not None for size in plan.sizes):
        table.add_row("cost", *(f"{size.cost:,.0f}" for size in plan.sizes))
    table.add_row("bottleneck", *(size.bottleneck for size in plan.sizes))
    return table


def _verdict(plan: Plan) -> str:
    if plan.fits_from is None:
        return f"It does not fit any number of devices of {plan.device_memory_gib:g} GiB: what one holds unsharded is too much."
    return f"It fits {_devices(plan.fits_from)} and more." if plan.fits_from > 1 else "It fits one device."


def _devices(count: int) -> str:
    return f"{count} device{'s' if count > 1 else ''}"
