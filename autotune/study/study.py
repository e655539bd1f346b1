"""Study: asks Optuna for the next config and tells it the outcome.

A proposal that is not allowed here, or that was tried before, never becomes a trial. A config that failed is told as a
violated constraint with finite values: Optuna ignores trials told as FAIL, and its samplers would propose the same
config again. The trials' own files are the truth. `study.db` is Optuna's view of them, and is brought up to date from
them whenever a study is opened.
"""

import logging
import random
from bisect import insort
from collections.abc import Mapping, Sequence

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from autotune.config import Config, Value
from autotune.knobs import complete
from autotune.sampler import AutoSampler
from autotune.statistics.drift import corrected
from autotune.study.auto_sampler import irrelevant_knobs, make_auto_sampler, untried
from autotune.study.candidates import Candidates
from autotune.study.optuna_view import OptunaView, Parameters
from autotune.study.proposals import ValidProposals, make_sampler
from autotune.study.record import Record, Untried
from autotune.study.space import SearchSpace
from autotune.study.space_file import Recipe
from autotune.study.storage import OnDisk, Store, open_view
from autotune.study.warm_start import WarmStart
from autotune.study_folder import StudyFolder
from autotune.trial import NOT_THE_CONFIG, WARM_START, Anchor, Failure, Trial

LOG = logging.getLogger("autotune")
NOTHING_PENDING: Mapping[int, Config] = {}


class Study:
    """The trials so far, and where the next one comes from.

    trials   by number, with their drift; `trials[0]` is the baseline
    anchors  the baseline's later measurements
    untried  what AutoSampler left out of its last proposal, because it is predicted not to fit in memory
    leads    is the config that was asked for last expected to be the best one? Only AutoSampler expects anything
    """

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
        parallel: bool = False,
    ) -> None:
        """A new study, or one that goes on with the trials in its store.

        recipes   tried in their order, before the sampler proposes any config
        sampler   one of SAMPLERS (proposals.py)
        store     default: the folder
        parallel  trials run at the same time, see ask()

        Raises UserError if the trials or the database can't be read.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.record, self.space = folder, record, space
        self._store = store or OnDisk(folder)
        self.trials: list[Trial] = self._store.trials()
        self.anchors: list[Anchor] = self._store.anchors()
        self._tried = {complete(trial.values) for trial in self.trials}  # earlier versions had fewer knobs
        self.untried: Untried | None = None
        self.leads = False
        self._asked: dict[int, optuna.trial.Trial] = {}  # by ask(), not told yet: number -> Optuna's trial
        self._pending: Mapping[int, Config] = {}  # what ask() was told last
        self._cut_short = dict(self._store.cut_short())
        self._recipes = list(recipes)
        self._parameters = Parameters(space.free, space.ranges)
        self._rng = random.Random(seed + len(self.trials))
        self._warm: WarmStart | None = None
        self._auto_sampler: AutoSampler | None = None
        if sampler == "auto":
            candidates = Candidates(space, random.Random(seed))
            self._auto_sampler = make_auto_sampler(
                record, candidates, self.trials, self._tried, seed, lambda: self.warm.told, self._pending_params
            )
        inner = self._auto_sampler or make_sampler(sampler, seed + len(self.trials), parallel=parallel)
        self._sampler = ValidProposals(inner, space, self.tried)
        self._optuna = open_view(self._store.database, self._sampler, record)
        try:
            self._update_optuna()
        except StorageInternalError as error:
            self._leave_database(error)

    @property
    def baseline(self) -> Trial:
        return self.trials[0]

    @property
    def next_number(self) -> int:
        """The number of the trial that comes next. There may be gaps below: no number is given twice."""
        return self._store.next_number(self.trials)

    def tried(self) -> set[Config]:
        return self._tried

    @property
    def warm(self) -> WarmStart:
        """The earlier studies in the terms of this one, which must have a baseline."""
        if self._warm is None:
            self._warm = WarmStart(self.record.warm_start, self.space, self.record.goal, self.baseline)
        return self._warm

    def ask(self, pending: Mapping[int, Config] = NOTHING_PENDING) -> tuple[int, Config, str] | None:
        """(number, config, origin) of the next trial; None if no untried config is found.

        pending  the trials that were asked for and run now: number -> config. None of them is proposed again, and our
                 sampler believes what it predicts for them until they are told
        """
        number = max([self.next_number, *(n + 1 for n in pending)])
        if number == 0:
            return 0, self.record.baseline_config, "baseline"
        self._pending = dict(pending)
        self._tried.update(pending.values())
        number, queued = self._queued(number)
        fallback = None if queued else self.space.random(self._rng, self.tried())
        if queued is None and fallback is None:
            return None
        self._sampler.queued, self._sampler.fallback = queued[0] if queued else None, fallback
        try:
            params = self._propose(number)
        except StorageInternalError as error:
            self._leave_database(error)
            params = self._propose(number)
        self.leads = queued is None and self._auto_sampler is not None and self._auto_sampler.leads
        if queued is None and self._auto_sampler:
            measured = sum(trial.measured is not None for trial in self.trials)
            self.untried = untried(self._auto_sampler, self.record, measured)
            self._store.keep_untried(self.untried)
        return number, queued[0] if queued else self._config(params), queued[1] if queued else "sampler"

    def tell(self, trial: Trial) -> None:
        """Keep the trial, then tell Optuna. A failure that is not the config's fault is told as FAIL, and ignored."""
        self._store.keep_trial(trial)
        # Only this trial: the drift of the others has not changed, and there may be a thousand.
        trial = corrected([*self.trials[:1], trial], self.anchors)[-1]
        insort(self.trials, trial, key=lambda each: each.number)  # those that run at the same time end in any order
        self._tried.add(complete(trial.values))
        self.space.learn(trial, self.trials)
        spot_check = trial.measured.spot_check if trial.measured else None
        if self._auto_sampler and spot_check and spot_check.mismatch:
            self._auto_sampler.set_irrelevant(irrelevant_knobs(self.record, self.space, self.trials))
        asked = self._asked.pop(trial.number, None)
        try:
            self._tell_optuna(asked, trial)
        except StorageInternalError as error:
            self._leave_database(error)  # with this trial

    def _propose(self, number: int) -> dict[str, Value]:
        """The sampler's values of the knobs that are free, or those of the queued config, for this trial."""
        self._asked[number] = self._optuna.ask()
        return self._parameters.suggest(self._asked[number])

    def _pending_params(self) -> list[dict[str, Value]]:
        return [self._parameters.of(config) for config in self._pending.values()]

    def _config(self, params: Mapping[str, Value]) -> Config:
        return self.space.config(self._parameters.values(params))

    def _tell_optuna(self, asked: optuna.trial.Trial | None, trial: Trial) -> None:
        if asked is None:
            self._add(trial)
            return
        asked.set_user_attr("trial", trial.number)
        view = OptunaView(trial, self.trials, self.record)
        for name, value in view.attributes.items():
            asked.set_user_attr(name, value)
        if _failure_is_unrelated(trial):
            self._optuna.tell(asked, state=TrialState.FAIL)
            return
        for name, value in view.constraints.items():
            asked.set_constraint(name, value)
        self._optuna.tell(asked, view.values)

    def _leave_database(self, error: StorageInternalError) -> None:
        """Go on with Optuna's view in memory: study.db was moved, or another program holds it."""
        reason = str(error.__cause__ or error).splitlines()[0]
        LOG.warning(
            "%s can't be used any more (%s): the search goes on without it, and the next search of this study brings "
            "it up to date from the trials.",
            self._store.database,
            reason,
        )
        self._asked.clear()
        self._optuna = open_view(None, self._sampler, self.record)
        self._update_optuna()

    def tell_anchor(self, anchor: Anchor) -> None:
        """Keep a new measurement of the baseline, and correct the drift of all trials by it."""
        self._store.keep_anchor(anchor)
        self.anchors.append(anchor)
        self.trials = corrected(self.trials, self.anchors)

    def _queued(self, number: int) -> tuple[int, tuple[Config, str] | None]:
        """(number, (config, origin)) of what comes before any proposal; None in place of the latter: nothing does.

        A trial that was running when the last search was killed comes first, and keeps its number.
        """
        while self._cut_short:
            begun = min(self._cut_short)
            config = complete(self._cut_short.pop(begun))
            if config not in self.tried() and not self.space.objection(config):
                return begun, (config, "interrupted")
        return number, self._next_of_earlier() or self._next_recipe()

    def _next_of_earlier(self) -> tuple[Config, str] | None:
        """The next config that the warm start puts first."""
        new = (config for config in self.warm.first if config not in self.tried() and not self.space.objection(config))
        config = next(new, None)
        return None if config is None else (config, WARM_START)

    def _next_recipe(self) -> tuple[Config, str] | None:
        """The next recipe that is allowed here and was not tried."""
        while self._recipes:
            recipe = self._recipes.pop(0)
            offered = all(self.space.offers(name, value) for name, value in recipe.values.items())
            config = self.space.config(recipe.values)
            if offered and config not in self.tried() and not self.space.objection(config):
                return config, recipe.name
        return None

    def _update_optuna(self) -> None:
        """Make Optuna's view agree with the trials on disk, whenever the last search was killed."""
        known_to_optuna = self._optuna.get_trials(deepcopy=False)
        numbers = {frozen.user_attrs.get("trial") for frozen in known_to_optuna if frozen.state.is_finished()}
        for trial in self.trials:
            self.space.learn(trial, self.trials)
            if trial.number not in numbers:
                self._add(trial)
        for frozen in known_to_optuna:
            if not frozen.state.is_finished():
                self._optuna.tell(frozen.number, state=TrialState.FAIL)  # cut short: not a trial, ignored

    def _add(self, trial: Trial) -> None:
        """Add a trial that Optuna did not propose. A baseline outside the space is added as FAIL, which is ignored."""
        params = self._parameters.of(trial.config)
        inside = self._config(params) == trial.config
        view = OptunaView(trial, self.trials, self.record)
        attributes = {"trial": trial.number, **view.attributes}
        self._optuna.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=self._parameters.distributions(),
                values=view.values,
                constraints=view.constraints,
                user_attrs=attributes,
            )
            if inside and not _failure_is_unrelated(trial)
            else optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes)
        )


def _failure_is_unrelated(trial: Trial) -> bool:
    """Did it fail for a reason unrelated to its config, such as other work on the device?"""
    return isinstance(trial.outcome, Failure) and trial.outcome.cause in {*NOT_THE_CONFIG, "environment"}
