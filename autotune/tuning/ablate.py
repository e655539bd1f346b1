"""ablate(): measures what each knob of the pick brings, by putting it back alone to the baseline's value.

Each config without one knob is measured interleaved with the pick. Knobs that bring nothing beyond the noise are
dropped together. The config that is left (the minimal config) is measured interleaved with the pick and with the
baseline before it replaces the pick in the export.
"""

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.knobs import all_knobs, complete, find_knob
from autotune.production.fingerprint import choose_same_kind, device_differences
from autotune.production.tuned_config import TunedConfig
from autotune.study.record import Record, read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Trial
from autotune.tuning.ablation import Ablation, LeftOut, read_ablation
from autotune.tuning.export import chosen_trial
from autotune.tuning.minimal_config import Bench, lost_without, try_minimal

Listener = Callable[[str, int], None]


def ablate(
    study: Path,
    *,
    pick: str | None = None,
    rounds: int = 3,
    timeout_s: float = 1800.0,
    listen: Listener = lambda what, number: None,
    runner: Runner | None = None,
) -> Ablation:
    """Measure what each knob of a study's pick brings and write ablation.json; replace best.json by a minimal config.

    study   the study's folder
    pick    "fastest", "smallest", "balanced" or a trial's number; None: the trial that best.json was made from
    rounds  measure each knob at least this often, interleaved with the pick
    listen  is called with (what is being measured, round from 1)

    best.json is replaced only where the minimal config holds up. With `pick` given, the minimal config is written to
    minimal.json instead. The same call continues an ablation that was stopped.
    Raises UserError for a study or a pick that can't be used, and where this is not the device of the study.
    """
    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give --rounds 2 or more.")
    folder = StudyFolder(study)
    record, trials = read_record(folder), read_trials(folder)
    if not trials or trials[0].measured is None:
        raise UserError(f"the study {str(study)!r} has no baseline yet: there is nothing to compare with.")
    trial = chosen_trial(folder, record, trials, pick) if pick else _exported(folder, trials)
    if trial.config == trials[0].config:
        raise UserError("the pick is the baseline itself: there is no knob to take out.")
    target = _target_here(record.target)
    with folder.lock():
        limit = record.goal.max_vram_bytes
        chosen = runner or Runner(folder, target, timeout_s, max_memory_bytes=limit, isolation="spawn")
        work = _Ablating(Bench(folder, record, trials, trial, chosen, rounds, listen))
        made = work.minimal(work.left_out(), folder.best if pick is None else folder.path / "minimal.json")
    shutil.rmtree(folder.cache, ignore_errors=True)
    return made


def _exported(folder: StudyFolder, trials: list[Trial]) -> Trial:
    """The trial that best.json was exported from, also where a minimal config has replaced it. Raises UserError."""
    config = Config(TunedConfig.load(folder.best).knobs)
    earlier = read_ablation(folder)
    number = earlier.trial if earlier and earlier.minimal and Config(earlier.minimal.values) == config else None
    found = next((trial for trial in trials if trial.config == config or trial.number == number), None)
    if found is None:
        raise UserError(f"{str(folder.best)!r} is no trial of its study; name one with --pick.")
    return found


def _target_here(target: Target) -> Target:
    """The target on this machine's device of the same model. Raises UserError where there is none.

    On another device, another config may be the best.
    """
    device = choose_same_kind(target.device, None)
    differences = device_differences(target.device, device)
    if differences:
        raise UserError(f"{' '.join(differences)} Ablate it where the study was made.")
    return target.on_card(device)


class _Ablating:
    """One run of ablate(), knob by knob. Results go to ablation.json after each knob."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.pick, self.folder = bench, bench.pick, bench.folder
        self.place = bench.folder.path / "ablation" / f"{bench.pick.number:04d}"

    def left_out(self) -> Ablation:
        """Take out each knob of the pick that differs from the baseline, one at a time."""
        done = self._done()
        ablation = Ablation(
            trial=self.pick.number,
            values=self.pick.values,
            rounds=self.bench.rounds,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        for config in without_each(self.pick.config, self.bench.record):
            changed = difference(self.pick.config, config)
            unmeasured = LeftOut(knobs=changed, put_back={name: value_of(config, name) for name in changed})
            left_out = done.get(unmeasured.name) or self._leave_out(config, unmeasured)
            ablation = ablation.model_copy(update={"left_out": (*ablation.left_out, left_out)})
            write_json(self.folder.ablation, ablation.to_json())
        return ablation

    def _done(self) -> dict[str, LeftOut]:
        """What an earlier ablation of this pick has measured: knob's name -> its result. Failures are tried again."""
        known = read_ablation(self.folder)
        if known is None or (known.values, known.rounds) != (self.pick.values, self.bench.rounds):
            return {}
        return {left_out.name: left_out for left_out in known.left_out if left_out.failure is None}

    def _leave_out(self, config: Config, unmeasured: LeftOut) -> LeftOut:
        """Measure the config without the knob, interleaved with the pick. Raises UserError where the pick fails."""
        why = objection(config, self.bench.record.target)
        if why:
            return unmeasured.model_copy(update={"failure": why})
        place, names = self.place / "-".join(unmeasured.knobs), (f"without {unmeasured.name}", "the pick")
        pairs = self.bench.interleave(config, self.pick.config, place, names, pictures="first")
        if isinstance(pairs, tuple):
            side, failure = pairs
            if side == "second":
                raise UserError(f"the pick can't be measured any more ({failure.cause}: {failure.reason}).")
            return unmeasured.model_copy(update={"failure": f"{failure.cause}: {failure.reason}"})
        without, pick = zip(*pairs, strict=True)
        figures = {
            "without_latency_s": tuple(one.latency_s for one in without),
            "pick_latency_s": tuple(one.latency_s for one in pick),
            "without_peak_memory_bytes": tuple(one.peak_memory_bytes for one in without),
            "pick_peak_memory_bytes": tuple(one.peak_memory_bytes for one in pick),
        }
        return unmeasured.model_copy(update={**figures, "gained": lost_without(without[0].quality, self.bench)})

    def minimal(self, ablation: Ablation, path: Path) -> Ablation:
        """Try the pick without the knobs that bring nothing; where that holds up, export it to `path`."""
        if not ablation.idle:
            return ablation
        config = self.pick.config
        for knob in ablation.idle:
            config = put_back(config, knob.put_back)
        minimal, tuned = try_minimal(self.bench, config, self.place / "minimal")
        shares = ", ".join(share(knob) for knob in ablation.idle)
        them = "it" if len(ablation.idle) == 1 else "them"
        kept = f"{shares}. The config without {them} was tried, and {minimal.why}: kept."
        why = f"{shares}: removed. {minimal.why}" if tuned else kept
        ablation = ablation.model_copy(update={"minimal": minimal.model_copy(update={"why": why})})
        if tuned is not None:
            tuned.save(path)
        write_json(self.folder.ablation, ablation.to_json())
        return ablation


def share(left_out: LeftOut) -> str:
    """ "qkv_fusion=True brought +0.1% +-0.6%"."""
    verdict = left_out.verdict
    assert verdict is not None
    return f"{left_out.name} brought {verdict.speedup - 1:+.1%} +-{(verdict.high - verdict.low) / 2:.1%}"


def without_each(pick: Config, record: Record) -> list[Config]:
    """The pick with one knob put back to the baseline's value, for each knob that the search was free to change.

    Knobs that modify the knob are put back with it. A knob that the user has fixed (--fix) is not taken out.
    """
    baseline = record.baseline_config
    held = {name for name, values in record.space.items() if len(values) == 1}
    own = [name for name in pick if value_of(baseline, name) != pick[name] and name not in held]
    masters = [name for name in own if find_knob(name).modifies not in own]
    return [put_back(pick, _with_modifiers(name, baseline)) for name in masters]


def _with_modifiers(name: str, baseline: Config) -> dict[str, Value]:
    """The baseline's value of a knob, and of the knobs that modify it there."""
    modifiers = {other: value for other, value in baseline.items() if find_knob(other).modifies == name}
    return {name: value_of(baseline, name), **modifiers}


def put_back(config: Config, values: Mapping[str, Value]) -> Config:
    """The config with these values, without the modifiers of knobs that are then at their default."""
    return complete({**config, **values})


def difference(pick: Config, other: Config) -> dict[str, Value]:
    """The knobs of the pick whose value is another one in `other` -> the pick's value."""
    changed = [name for name in pick if pick[name] != value_of(other, name)]
    return {name: pick[name] for name in changed}


def value_of(config: Config, name: str) -> Value:
    """The knob's value, or its default where the config does not name it (an older study, or not applicable)."""
    return config.get(name, find_knob(name).default)


def objection(config: Config, target: Target) -> str | None:
    """Why this config can't run, by the rules of its knobs; None where no rule forbids it."""
    for name, knob in all_knobs().items():
        if name in config:
            why = knob.why_not(config[name], target) or knob.clash(config, target)
            if why:
                return why
    return None
