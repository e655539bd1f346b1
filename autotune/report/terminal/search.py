"""A search in a terminal: its header, the table of the Pareto front, and how it ended."""

import shlex
from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.goal import Minimise
from autotune.pipeline import Traits
from autotune.report import words
from autotune.report.terminal.theme import heading_words
from autotune.statistics.drift import PRIOR_SPREAD
from autotune.study.noise_floor import NoiseFloor
from autotune.study.pareto_front import objectives, pareto_front
from autotune.trial import Failure, Trial
from autotune.tuning.events import Probed
from autotune.tuning.search import Result


def header(event: Probed) -> str:
    """What is tuned and where, the inputs beside the prompts, the size of the space, and the study's folder."""
    target, space = event.target, event.space
    count = space.count()
    left_out = f"{len(space.impossible) - len(space.not_worth_trying)} values are not possible here"
    left_out += f", {len(space.not_worth_trying)} not worth trying" if space.not_worth_trying else ""
    allowed = f"{count} configs" if count is not None else f"up to {space.combinations()} configs"
    if space.ranges:
        allowed += f" and the numbers between ({', '.join(space.ranges)})"
    about = f"{target.pipeline.name} ({target.pipeline.known.class_name}) on {target.device.name}"
    lines = [
        heading_words("search", f"{about}, {target.calls}"),
        inputs_words(target.pipeline.known, target.workload.pictures),
        target.doubt or "",
        *target.notes,
        f"{allowed} over {len(space.free)} knobs; {left_out} "
        f"({shlex.join(['autotune', 'knobs', *words.naming(target.pipeline)])})",
        f"study in {event.folder}",
    ]
    return "\n".join(line for line in lines if line)


def inputs_words(traits: Traits, own: Collection[str] = ()) -> str:
    """The inputs of the pipeline beside, or instead of, the prompts; empty where it takes the prompts alone.

    own  the arguments that are given the user's pictures
    """
    made = [kind for name, kind in traits.inputs.items() if name not in own]
    inputs = [f"starts from your own pictures ({', '.join(own)})"] if own else []
    inputs += [f"starts from pictures made by autotune ({', '.join(made)})"] if made else []
    inputs += ["prompts replaced by random embeddings"] if traits.random_prompt_embeds else []
    return "; ".join(inputs)


def front_table(
    trials: Sequence[Trial], best: int | None = None, *, spread: float = PRIOR_SPREAD, minimise: Minimise = "sum"
) -> Table:
    """The Pareto front, fastest first, with the baseline below it. * marks the trial in best.json.

    spread  of one config's latency from process to process; a speedup within the noise is shown as "~1x"

    Where the workload has several sizes, the sum of their latencies is above the latency of each.
    """
    baseline, front = trials[0], pareto_front(trials, trials[0], minimise)
    table = Table(title="Pareto front", box=None, title_justify="left", pad_edge=False)
    for name in ("", "latency", "speed", "memory", "quality", "config"):
        table.add_column(
            name, justify="left" if name in ("", "quality", "config") else "right", no_wrap=name != "config"
        )
    rows = [*front, *([baseline] if baseline not in front else [])]
    for trial in rows:
        latency_s, memory_bytes, _ = objectives(trial, baseline)
        config = "baseline" if trial.number == 0 else words.config(trial.config)
        table.add_row(
            f"{trial.number}{'*' if trial.number == best else ''}",
            "\n".join([words.seconds(latency_s), *_each_latency(trial)]),
            words.speed(trial, baseline, spread),
            words.memory(memory_bytes),
            Text("\n".join(words.quality_lines(trial, baseline))),
            config,
        )
    return table


def _each_latency(trial: Trial) -> list[str]:
    several = trial.measured is not None and trial.measured.also
    return [words.seconds(latency_s) for latency_s in trial.measured.latencies_s] if trial.measured and several else []


def search_result(result: Result) -> RenderableType:
    """How a search ended: the front, the sentence about the pick, the path of the report."""
    failed = [t for t in result.trials if isinstance(t.outcome, Failure)]
    lines = [f"\nbest.json is trial {result.best.number}: {result.tuned.about}"]
    choice = result.record.baseline_choice
    if choice is not None and choice.rejected:
        lines.append(f"The baseline is {words.config(result.record.baseline_config)}, {choice.reason}.")
    lines += [
        f"Trial {one.trial.number} was better at first and is not confirmed: {one.why}." for one in result.not_confirmed
    ]
    if len(result.trials) == 1:
        lines.append("No other config was tried.")
    elif result.best.number == 0 and not result.not_confirmed:
        lines.append("No other config that keeps the limits was better beyond the noise.")
    lines += noise_floor_words(result.noise_floor)
    if failed:
        lines.append(
            f"{len(failed)} of {len(result.trials)} trials failed, each with its reason in trials/*/trial.json."
        )
    if result.exhausted:
        lines.append("Every config that the space allows has been tried.")
    lines.append(f"report: {result.folder / 'report.html'}")
    table = front_table(result.trials, result.best.number, spread=result.spread, minimise=result.record.goal.minimise)
    return Group(table, Text("\n".join(lines)))


def noise_floor_words(floor: NoiseFloor) -> list[str]:
    """The SSIM that means "no difference" in this study; no line where it was not measured."""
    parts = []
    if floor.repeated_mean is not None:
        parts.append(f"the baseline drawn again SSIM {floor.repeated_mean:.3f} (worst {floor.repeated_worst:.3f})")
    if floor.equivalent_mean is not None:
        parts.append(
            f"an equivalent config (trial {floor.equivalent_trial}) SSIM {floor.equivalent_mean:.3f} "
            f"(worst {floor.equivalent_worst:.3f})"
        )
    return [f"Noise floor of likeness: {'; '.join(parts)}."] if parts else []
