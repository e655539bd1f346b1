"""The command line: bad input is one sentence and exit code 2, before torch is loaded, with nothing left behind.

Real processes: forks of one that has its imports done (run), or fresh interpreters (run_fresh). In their path lie a
torch, a diffusers and a transformers that can't be imported, so that a command that loads one of them fails, and a
pynvml of a machine without a driver. Where a child must look at the pipeline first, the command runs here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import HEAVY, NO_DRIVER, check_refused, run, run_fresh, snapshot
from made_up import measured, record
from searches import command_here

from autotune import demo
from autotune.frozen_model import write_json
from autotune.production.tuned_config import SCHEMA_VERSION
from autotune.study.record import write_trial
from autotune.study_folder import StudyFolder
from autotune.tuning.export import export

FILES = {
    "prompts.txt": "a red circle\n",
    "bad.jsonl": '{"prompt": "a red circle"}\n{"prompt": "a red circle", "seed": -3}\n',
    "picture.jsonl": '{"prompt": "a red circle", "reference": "gone.png"}\n',
    "empty.txt": "\n# nothing\n",
    "typo.toml": '[knob]\ndtype = ["fp32"]\n',
    "knob.toml": '[knobs]\ndtipe = ["fp32"]\n',
    "recipe.toml": '[[recipes]]\nname = "mine"\nvalues = { dtype = "fp33" }\n',
    "shape.toml": "knobs = 3\n",
    "not.toml": "knobs: dtype\n",
    "truncated.json": '{"schema_version": 1, "knobs": {"dty',
    "stranger/thesis.txt": "mine",
    "no_pipeline/readme.txt": "mine",
}


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("trap")
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} was loaded')\n")
    (folder / "pynvml.py").write_text(NO_DRIVER)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with files to give as arguments, good and bad, and a finished study."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    good = export(record(), measured(1, {"qkv_fusion": True}), measured(0), None).to_json()
    write_json(tmp_path / "good.json", good)
    write_json(tmp_path / "picture.json", {**good, "inputs": {"image": "photo"}})
    write_json(tmp_path / "newer.json", {**good, "schema_version": SCHEMA_VERSION + 1})
    write_json(tmp_path / "knob.json", {**good, "knobs": {"dtipe": "bf16"}})
    study = StudyFolder(tmp_path / "study")
    study.create()
    write_json(study.study, record().to_json())
    write_trial(study, measured(0))
    return tmp_path


def test_the_trap_catches_whoever_loads_torch(here: Path, trap: Path) -> None:
    """Otherwise the tests below would show nothing."""
    code = "import torch"
    env = {**os.environ, "PYTHONPATH": str(trap)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch was loaded" in done.stderr


@pytest.mark.parametrize("words", [["serch"], ["search", "--help"], ["search", "--budget", "0"]])
def test_a_fork_does_what_a_fresh_interpreter_does(here: Path, trap: Path, words: list[str]) -> None:
    """A command line that can't be read, a help text, and bad input."""
    fork, fresh = run(here, *words, path=trap), run_fresh(here, *words, path=trap)
    assert (fork.returncode, fork.stdout, fork.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


SEARCHES = [
    # an unknown pipeline, knob or value, with the nearest name
    (
        ["--pipeline", "demoo"],
        "nor a folder with a model_index.json: did you mean 'demo'?",
    ),
    (["--pipeline", "no_pipeline"], "it has no model_index.json"),
    (["--isolation", "spoon"], "--isolation takes fork or spawn, not 'spoon'."),
    (["--task", "image3image"], "unknown task 'image3image': did you mean 'image2image'?"),
    (["--pipeline", "sd15-img2img", "--task", "inpainting"], "sd15-img2img comes with another (image2image)"),
    (["--controlnet", "no_pipeline"], "'no_pipeline' is not a ControlNet: it has no config.json"),
    (["--controlnet", "prompts.txt"], "--controlnet prompts.txt is a file: give its folder, or a hub id (owner/name)"),
    (["--lora", "prompts.txt"], "'prompts.txt' is not a .safetensors file"),
    (["--lora", "no_pipeline"], "it has no .safetensors file"),
    (["--lora", "gone.safetensors"], "a folder or a .safetensors file, not 'gone.safetensors'"),
    (["--pipeline", "demo", "--weights", "random"], "--weights random is not available for demo"),
    (["--fix", "dtipe=bf16"], "unknown knob 'dtipe': did you mean 'dtype'?"),
    (["--fix", "dtype=bf61"], "dtype can't be 'bf61': did you mean 'bf16'?"),
    (["--fix", "dtype"], "--fix takes KNOB=VALUE"),
    (["--fix", "qkv_fusion=1"], "qkv_fusion can't be 1"),
    (["--exclude", "dtipe"], "unknown knob 'dtipe': did you mean 'dtype'?"),
    (["--sampler", "tpee"], "unknown sampler 'tpee': did you mean 'tpe'?"),
    (["--baseline", "fp61"], "--baseline takes default, fp16, bf16, KNOB=VALUE pairs such as bf16,offload=model, or"),
    # impossible numbers
    (["--size", "60x64"], "multiples of 8"),
    (["--workload", "64"], "--workload takes WIDTHxHEIGHT[@BATCH]"),
    (["--workload", "64x64@0"], "give at least 1 picture per call"),
    (["--workload", "64x64", "--size", "64x64"], "omit --size and --batch"),
    (["--workload", "64x64", "--batch", "1"], "omit --size and --batch"),
    (["--workload", "64x64", "--workload", "64x64@1"], "--workload 64x64@1 is given twice"),
    (["--minimise", "all"], "--minimise takes sum or each, not 'all'"),
    (["--steps", "0"], "--steps 0: give at least 1"),
    (["--batch", "0"], "--batch 0: give at least 1"),
    (["--budget", "0"], "the budget is 0 trials"),
    (["--seed", "-1"], "the seed -1"),
    (["--max-vram", "lots"], "'lots' is not a size"),
    (["--max-quality-drop", "nan"], "quality may drop is nan"),
    (["--time-budget", "a while"], "'a while' is not a duration"),
    (["--timeout", "99999999999h"], "is not a duration"),
    # files
    (["--prompts", "gone.txt"], "the prompts file 'gone.txt' can't be read"),
    (["--prompts", "empty.txt"], "the prompts file 'empty.txt' has no prompt"),
    (["--prompts", "bad.jsonl"], "'bad.jsonl', line 2 can't be used: seed: "),
    (["--prompts", "picture.jsonl"], "the reference picture 'gone.png' of 'picture.jsonl', line 1 can't be read"),
    (["--space", "gone.toml"], "there is no space file 'gone.toml'"),
    (["--space", "typo.toml"], "'knob' is unknown, did you mean 'knobs'?"),
    (["--space", "knob.toml"], "unknown knob 'dtipe': did you mean 'dtype'?"),
    (["--space", "recipe.toml"], "dtype can't be 'fp33': did you mean 'fp32'?"),
    (["--space", "shape.toml"], "the space file 'shape.toml' can't be used: knobs"),
    (["--space", "not.toml"], "the space file 'not.toml' can't be read"),
    (["--baseline", "truncated.json"], "'truncated.json' is not whole JSON"),
    (["--baseline", "knob.json"], "unknown knob 'dtipe': did you mean 'dtype'?"),
    (["--warm-start", "gone"], "--warm-start: there is no study and no table at 'gone'"),
    (["--warm-start", "prompts.txt"], "--warm-start takes folders of studies and recorded tables (.parquet)"),
    (["--warm-start", "stranger"], "'stranger' is not a study folder (no study.json in it)"),
    # places
    (["--study", "stranger"], "it is no study"),
    (["--study", "prompts.txt"], "is a file, not a study folder"),
    (["--device", "cuda"], "no NVIDIA GPU was found here (NVML: Driver Not Loaded); use --device cpu."),
    (["--device", "tpu"], "--device takes cuda, cuda:N or cpu, not 'tpu'"),
]
OTHERS = [
    (["record", "--sample", "2", "--isolation", "spoon"], "--isolation takes fork or spawn, not 'spoon'."),
    (["run", "gone.json", "--prompt", "a"], "there is no config at 'gone.json'"),
    (["run", "truncated.json", "--prompt", "a"], "'truncated.json' is not whole JSON"),
    (["run", "newer.json", "--prompt", "a"], f"newer autotune (schema {SCHEMA_VERSION + 1})"),
    (["run", "knob.json", "--prompt", "a"], "unknown knob 'dtipe': did you mean 'dtype'?"),
    (["run", "good.json", "--prompt", " "], "--prompt is empty"),
    (["run", "good.json", "--prompt", "a", "-o", "out.txt"], "'out.txt' is not a picture file"),
    (["run", "good.json", "--prompt", "a", "-o", "gone/out.png"], "there is no folder 'gone'"),
    (["run", "good.json", "--prompt", "a", "--seed", "-1"], "the seed -1"),
    (["run", "good.json", "--prompt", "a", "--device", "cuda"], "no NVIDIA GPU was found here"),
    (["run", "good.json", "--prompt", "a", "--image", "gone.png"], "takes no picture to start from: leave out --image"),
    (["run", "picture.json", "--prompt", "a", "--mask", "gone.png"], "takes no mask: leave out --mask"),
    (["run", "picture.json", "--prompt", "a", "--image", "gone.png"], "the picture 'gone.png' can't be read: No such"),
    (["run", "picture.json", "--prompt", "a", "--image", "prompts.txt"], "it is not a picture, or is damaged"),
    (["run", "picture.json", "--prompt", "a", "--image", "stranger"], "the picture 'stranger' can't be read: Is a dir"),
    (["score", "gone", "--metric", "ssim"], "'gone' is not a study folder"),
    (["score", "study", "--metric", "ssimm"], "unknown metric 'ssimm': did you mean 'ssim'?"),
    (["score", "study", "--metric", "ssim"], "trial 0 has no picture"),
    (["score", "study", "--metric", "mine.py:f"], "there is no file 'mine.py'"),
    (["export", "gone"], "'gone' is not a study folder"),
    (["export", "stranger"], "'stranger' is not a study folder"),
    (["export", "study", "-o", "gone/best.json"], "'gone/best.json' can't be written"),
    (
        ["knobs", "--pipeline", "demoo"],
        "nor a folder with a model_index.json: did you mean 'demo'?",
    ),
    (["knobs", "--space", "typo.toml"], "'knob' is unknown, did you mean 'knobs'?"),
    (["knobs", "--device", "cuda"], "no NVIDIA GPU was found here"),
    (["knobs", "--task", "painting"], "unknown task 'painting': did you mean 'inpainting'?"),
]


@pytest.mark.parametrize(
    ("words", "says"), [*((["search", *words], says) for words, says in SEARCHES), *OTHERS], ids=lambda x: str(x)[:60]
)
def test_bad_input_is_one_sentence_before_torch_is_loaded_and_leaves_nothing(
    here: Path, trap: Path, words: list[str], says: str
) -> None:
    before = snapshot(here)
    done = run(here, *words, path=trap)
    check_refused(done, says)
    assert done.stdout == ""
    assert snapshot(here) == before


@pytest.mark.parametrize(
    "words",
    [["serch"], ["search", "--budgett", "3"], ["search", "--budget", "many"], ["run", "good.json"]],
)
def test_a_command_line_that_can_not_be_read_exits_with_2_and_no_traceback(
    here: Path, trap: Path, words: list[str]
) -> None:
    before = snapshot(here)
    done = run(here, *words, path=trap)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(here) == before


FULL_DISK = """
import autotune.study_folder
autotune.study_folder.MIN_FREE_BYTES = 2**80
from autotune.cli import main
main()
"""


def test_no_room_on_the_disk_is_one_sentence_before_a_child_is_started(here: Path, trap: Path) -> None:
    before = snapshot(here)
    command = [sys.executable, "-c", FULL_DISK, "search", "--study", "new"]
    env = {**os.environ, "PYTHONPATH": str(trap)}
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
    check_refused(done, "no room on the disk")
    assert snapshot(here) == before


def test_weights_that_are_not_here_are_named_and_nothing_is_left(here: Path) -> None:
    before = snapshot(here)
    hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "hub")}
    done = run_fresh(here, "search", "--pipeline", "sd15", "--device", "cpu", **hub)
    check_refused(done, "hf download stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert {path: text for path, text in snapshot(here).items() if not path.startswith(str(here / "hub"))} == before


IN_THE_CHILD = [
    (["--fix", "dtype=fp16"], "--fix dtype=fp16: diffusers does not support float16 on a CPU"),
    (["--controlnet", str(demo.PIPELINE / "unet")], "that autotune can load: it is a UNet2DConditionModel"),
]


@pytest.mark.parametrize(("words", "says"), IN_THE_CHILD, ids=lambda x: str(x)[:60])
def test_what_only_a_look_at_the_pipeline_can_show_is_one_sentence_too_and_leaves_nothing(
    here: Path, words: list[str], says: str
) -> None:
    before = snapshot(here)
    done = command_here("search", *words, "--device", "cpu", "--study", here / "new")
    check_refused(done, says)
    assert snapshot(here) == before


IMPORTS = """
import sys
import autotune.cli
print(sorted({"torch", "diffusers", "transformers", "optuna", "sqlalchemy", "numpy", "PIL"} & sys.modules.keys()))
"""


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_whole_parent_side_of_a_search_loads_no_torch(here: Path, trap: Path) -> None:
    """Every module that the parent uses can be imported where torch, diffusers and transformers can not."""
    parent = ("cli", "report.terminal.show", "tuning.search", "execution.probe", "tuning.export", "production.run")
    code = f"import {', '.join(f'autotune.{module}' for module in parent)}"
    env = {**os.environ, "PYTHONPATH": str(trap)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_is_instant(here: Path, trap: Path) -> None:
    """By the processor's time: other tests run beside this one. To load torch takes seconds."""
    seconds = []
    for _ in range(5):
        start = os.times()
        done = run_fresh(here, "--help", path=trap)
        end = os.times()
        seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
        assert done.returncode == 0
        assert "search" in done.stdout
    assert min(seconds) < 0.8, f"the best of {seconds}"


def test_no_words_at_all_show_the_help(here: Path, trap: Path) -> None:
    done = run_fresh(here, path=trap)
    assert "search" in done.stdout + done.stderr
    assert done.returncode == 2


def test_export_needs_no_torch(here: Path, trap: Path) -> None:
    done = run(here, "export", "study", "-o", "mine.json", path=trap)
    assert done.returncode == 0, done.stderr
    assert json.loads((here / "mine.json").read_text())["schema_version"] == SCHEMA_VERSION
