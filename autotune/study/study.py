"""Study: asks Optuna for the next Config and tells it what became of it.

Optuna proposes, our rules dispose: a proposal that can't run here, or that was run before, never becomes a trial. A
config that failed is told as a violated constraint with finite values; Optuna forgets trials told as FAIL, and its
samplers then propose the same config again. What happened is in the trials' own files; `study.db` is Optuna's view of
them, and is mended from them whenever a study is opened.
"""

import random
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from autotune.config import Config
from autotune.errors import UserError
from autotune.knobs import complete
from autotune.statistics.drift import corrected
from autotune.study.auto_sampler import our_sampler, silent, untried
from autotune.study.candidates import Candidates, as_params
from autotune.study.optuna_view import View
from autotune.study.proposals import Valid, distributions, make_sampler
from autotune.study.record import Record, Untried
from autotune.study.space import Recipe, SearchSpace
from autotune.study.storage import OnDisk, Store
from autotune.study.warm_start import WarmStart
from autotune.study_folder import StudyFolder
from autotune.trial import NOT_THE_CONFIG, WARM_START, Anchor, Failure, Trial


class Study:
    """The trials so far and where the next one comes from. `trials[0]` is the baseline."""

    def __init__(
        self,
        folder: StudyFolder,
        record: Record,
        space: SearchSpace,
        *,
        recipes: Sequence[Recipe] = (),
        sampler: str = "auto",
        seed: int = 0,
        store: Store | None = None,
    ) -> None:
        """Go on with what the store has: by default the folder."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.record, self.space = folder, record, space
        self._store = store or OnDisk(folder)
        self.trials: list[Trial] = self._store.trials()
        self.anchors: list[Anchor] = self._store.anchors()
        self._tried = {trial.config for trial in self.trials}
        self.untried: Untried | None = None  # what our sampler left alone when it was asked last: it can't fit
        self._asked: optuna.trial.Trial | None = None
        self._recipes = list(recipes)
        self._rng = random.Random(seed + len(self.trials))
        pool = Candidates(space, random.Random(seed))
        self._warm: WarmStart | None = None
        ours = partial(our_sampler, record, pool, self.trials, self._tried, seed, lambda: self.warm.told)
        self._ours = ours() if sampler == "auto" else None
        self._sampler = Valid(self._ours or make_sampler(sampler, seed + len(self.trials)), space, self.tried)
        self._optuna = _open(self._store.database, self._sampler, record)
        self._mend()

    @property
    def baseline(self) -> Trial:
        return self.trials[0]

    def tried(self) -> set[Config]:
        return self._tried

    @property
    def warm(self) -> WarmStart:
        """What earlier studies are worth here, in the light of the baseline."""
        if self._warm is None:
            self._warm = WarmStart(self.record.warm_start, self.space, self.record.goal, self.baseline)
        return self._warm

    def ask(self) -> tuple[int, Config, str] | None:
        """(number, config, origin) of the next trial; None where every allowed config was tried."""
        number = len(self.trials)
        if number == 0:
            return 0, self.record.baseline_config, "baseline"
        queued = self._interrupted(number) or self._next_of_earlier() or self._next_recipe()
        spare = None if queued else self.space.random(self._rng, self.tried())
        if queued is None and spare is None:
            return None
        self._sampler.queued, self._sampler.spare = queued[0] if queued else None, spare
        self._asked = self._optuna.ask()
        params = {n: self._asked.suggest_categorical(n, values) for n, values in self.space.free.items()}
        if queued is None and self._ours:
            self.untried = untried(self._ours, self.record, sum(trial.measured is not None for trial in self.trials))
            self._store.keep_untried(self.untried)
        return number, queued[0] if queued else self.space.config(params), queued[1] if queued else "sampler"

    def tell(self, trial: Trial) -> None:
        """Keep the trial, then tell Optuna. Of what was not the config's fault its samplers learn nothing."""
        self._store.keep_trial(trial)
        # Alone with the baseline: what was known of the others has not changed, and there may be a thousand.
        trial = corrected([*self.trials[:1], trial], self.anchors)[-1]
        self.trials.append(trial)
        self._tried.add(trial.config)
        self.space.learn(trial, self.trials)
        if self._ours and trial.measured and trial.measured.spot_check and trial.measured.spot_check.mismatch:
            self._ours.silence(silent(self.record, self.space, self.trials))
        asked, self._asked = self._asked, None
        if asked is None:
            self._add(trial)
            return
        asked.set_user_attr("trial", trial.number)
        view = View(trial, self.trials, self.record)
        for name, value in view.attributes.items():
            asked.set_user_attr(name, value)
        if _teaches_nothing(trial):
            self._optuna.tell(asked, state=TrialState.FAIL)
            return
        for name, value in view.constraints.items():
            asked.set_constraint(name, value)
        self._optuna.tell(asked, view.values)

    def tell_anchor(self, anchor: Anchor) -> None:
        """Keep a new measurement of the baseline, and see all trials in its light."""
        self._store.keep_anchor(anchor)
        self.anchors.append(anchor)
        self.trials = corrected(self.trials, self.anchors)

    def _interrupted(self, number: int) -> tuple[Config, str] | None:
        """The config of the trial that was running when an earlier search was killed."""
        values = self._store.cut_short(number)
        if values is None:
            return None
        config = complete(values)
        known = config not in self.tried() and not self.space.objection(config)
        return (config, "interrupted") if known else None

    def _next_of_earlier(self) -> tuple[Config, str] | None:
        """The next of those that earlier studies put first."""
        new = (config for config in self.warm.first if config not in self.tried() and not self.space.objection(config))
        config = next(new, None)
        return None if config is None else (config, WARM_START)

    def _next_recipe(self) -> tuple[Config, str] | None:
        """The next recipe that can run here and was not tried."""
        while self._recipes:
            recipe = self._recipes.pop(0)
            offered = all(value in self.space.values[name] for name, value in recipe.values.items())
            config = self.space.config(recipe.values)
            if offered and config not in self.tried() and not self.space.objection(config):
                return config, recipe.name
        return None

    def _mend(self) -> None:
        """Make Optuna's view agree with the trials on disk, after a kill at whatever moment."""
        ours = self._optuna.get_trials(deepcopy=False)
        known = {frozen.user_attrs.get("trial") for frozen in ours if frozen.state.is_finished()}
        for trial in self.trials:
            self.space.learn(trial, self.trials)
            if trial.number not in known:
                self._add(trial)
        for frozen in ours:
            if not frozen.state.is_finished():
                self._optuna.tell(frozen.number, state=TrialState.FAIL)  # cut short: not a trial, forgotten

    def _add(self, trial: Trial) -> None:
        """Add a trial that Optuna was not asked for. Of a baseline outside the space its samplers can learn nothing."""
        params = as_params(trial.config, self.space.free)
        inside = self.space.config(params) == trial.config
        view = View(trial, self.trials, self.record)
        attributes = {"trial": trial.number, **view.attributes}
        self._optuna.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=distributions(self.space),
                values=view.values,
                constraints=view.constraints,
                user_attrs=attributes,
            )
            if inside and not _teaches_nothing(trial)
            else optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes)
        )


class _Unflushed(sqlite3.Connection):
    """Optuna commits some thirty times a trial, and flushes to the disk each time. Its view needs none: after a power
    cut it is made again from the trials' own files, and a process that is killed has handed over what it wrote."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous=OFF")


def _open(database: Path | None, sampler: BaseSampler, record: Record) -> optuna.Study:
    directions = ["minimize"] * (record.latencies + 2)  # peak memory and quality loss, see front.objectives
    if database is None:
        return optuna.create_study(sampler=sampler, directions=directions)
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DatabaseError

    try:
        return optuna.create_study(
            study_name="autotune",
            storage=RDBStorage(
                URL.create("sqlite", database=str(database)).render_as_string(),  # the path may hold ? and %
                engine_kwargs={"connect_args": {"factory": _Unflushed}},
            ),
            sampler=sampler,
            directions=directions,
            load_if_exists=True,
        )
    except (DatabaseError, RuntimeError) as error:
        raise UserError(
            f"{str(database)!r} can't be opened ({type(error).__name__}): delete it, and the same command makes "
            "it again from the trials."
        ) from None


def _teaches_nothing(trial: Trial) -> bool:
    """Did it fail for what the device was doing? Then it says nothing of its config."""
    return isinstance(trial.outcome, Failure) and trial.outcome.cause in NOT_THE_CONFIG
