"""What the libraries say while a pipe loads or draws goes to the log, and nothing of anybody else's does."""

import logging
import subprocess
import sys
import threading
import warnings

import pytest

from autotune.production.library_messages import COMPILERS, kept_in_log


def say(library: str, level: int = logging.WARNING) -> None:
    logging.getLogger(f"{library}.somewhere").log(level, "torchvision is not installed")


def warn(library: str) -> None:
    warnings.warn_explicit("looks through a cache", UserWarning, f"/x/site-packages/{library}/functions.py", 1)


def test_what_libraries_say_is_kept_and_not_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "autotune.libraries"), warnings.catch_warnings():
        warnings.simplefilter("always")
        with kept_in_log():
            say("transformers")
            warn("torch")
    assert [(r.name, r.levelno) for r in caplog.records] == [("autotune.libraries", logging.INFO)] * 2
    assert "torchvision" in caplog.messages[0]
    assert "looks through a cache" in caplog.messages[1]
    assert capfd.readouterr().err == ""


def test_errors_and_the_words_of_others_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with kept_in_log():
            say("torch", logging.ERROR)
            say("my_server")
            warn("my_server")
    assert [r.name for r in caplog.records] == ["torch.somewhere", "my_server.somewhere"]
    assert len(shown) == 1


def test_what_diffusers_says_of_a_call_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "autotune.libraries"), kept_in_log(COMPILERS):
        say("diffusers")
        say("torch")
    assert [r.name for r in caplog.records] == ["diffusers.somewhere", "autotune.libraries"]


def test_all_is_as_it_was_when_the_last_thread_has_left() -> None:
    before = logging.Logger.callHandlers, warnings.showwarning
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with kept_in_log():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with kept_in_log(COMPILERS):
        thread.start()
        assert inside.wait(10)
    assert logging.Logger.callHandlers is not before[0]
    leave.set()
    thread.join()
    assert (logging.Logger.callHandlers, warnings.showwarning) == before


def test_the_real_libraries_say_nothing_while_they_are_imported() -> None:
    """torchao's extensions for other cards, transformers' torchvision: what a new user sees first of `load`."""
    code = (
        "from autotune.production.library_messages import kept_in_log\n"
        "with kept_in_log():\n"
        "    import torchao.quantization\n"
        "    from transformers import CLIPImageProcessor, SiglipImageProcessor\n"
        "    CLIPImageProcessor()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
