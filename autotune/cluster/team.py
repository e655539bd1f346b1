"""Team: the two ways in which a search uses its cards: all to explore, one to confirm."""

from autotune.cluster.card_runner import CardRunner
from autotune.cluster.crew import Crew
from autotune.cluster.explore import ParallelExplorer
from autotune.execution.runner import Runner
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.tuning.events import Listener
from autotune.tuning.explore import Explorer


class Team(Crew):
    """What tuning/search.py is given, see tuning.explore.Team."""

    def explorer(self, folder: StudyFolder, study: Study, runner: Runner, listen: Listener, *, reuse: bool) -> Explorer:
        return ParallelExplorer(folder, study, runner, listen, crew=self, reuse=reuse)

    def confirming(self, runner: Runner) -> Runner:
        return CardRunner(runner, self)
