# Everything is set up by the first target that needs it: a virtual environment with the pinned versions of constraints.txt.

PYTHON ?= python3
# torch.compile can't link against a torch whose path has a space in it: then the environment lies in the cache folder.
VENV := $(if $(word 2,$(CURDIR)),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/autotune/venv-$(shell pwd | cksum | cut -d ' ' -f 1),.venv)
RUN := $(VENV)/bin/python

.PHONY: demo check test all-pipelines test-browser docs screenshots showcase gpu gpu-summary lint clean

demo: $(VENV)/installed  ## the main job on the pipeline that ships with autotune; run again, it continues
	$(RUN) -m autotune.cli search --pipeline demo --budget 4 --study demo-study --quick

check: $(VENV)/installed-dev  ## before every commit, in under 20 s: format, lint, types, the order of the rooms, the listings
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m ruff check --quiet .
	$(RUN) -m mypy
	$(RUN) -m tools.tree --check
	$(RUN) -m tools.docs --check
	$(RUN) -m pytest -q --durations=0 --durations-min=5 tests/test_layers.py

test: $(VENV)/installed-dev  ## two files at a time, one thread each: most of a test's time is a child that imports torch
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

all-pipelines: $(VENV)/installed-dev  ## a tiny checkpoint of every class of diffusers; `make test` draws with a third of them a day
	AUTOTUNE_CLASSES=all OMP_NUM_THREADS=1 $(RUN) -m pytest tests/pipelines/test_all_classes.py

test-browser: $(VENV)/installed-dev  ## the report in a real browser, headless
	@command -v chromium > /dev/null && command -v chromedriver > /dev/null || \
		{ echo 'chromium is missing: apt-get install chromium chromium-driver, then again' >&2; exit 1; }
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests/report -m browser

docs: $(VENV)/installed-docs  ## the site, into build/site: a dead link, a missing page or a stale reference fails
	$(RUN) -m tools.docs --check
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

screenshots: docs  ## every page of the site at 1280 and 390 pixels, light and dark, into build/screenshots
	$(RUN) -m tools.docs.screenshots

showcase: $(VENV)/installed-dev  ## remakes the demo's study, pictures, pasted outputs and figures of the README, on an idle machine
	$(RUN) -m tools.showcase $(STEP)

gpu: $(VENV)/installed-dev  ## what only a GPU can show, into reports/gpu-CARD, step by step: make gpu STEP=first-contact
	$(RUN) -m tools.gpu $(STEP)

gpu-summary: $(VENV)/installed-dev  ## which of these steps have run where
	$(RUN) -m tools.gpu --summary

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) demo-study build dist

$(VENV)/installed-docs: $(VENV)/installed-dev
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $(VENV)/installed-docs

# What develops and tests autotune is a quarter of the environment: the demo does without.
$(VENV)/installed-dev: $(VENV)/installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(VENV)/installed-dev

# torch comes first and alone: where its pinned version is at hand as a small CPU build, nothing larger is fetched. pip compiles
# what it installs to bytecode, except an editable package, which every process would compile where PYTHONDONTWRITEBYTECODE is set.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "autotune needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable .
	$(RUN) -m compileall -q autotune
	touch $(VENV)/installed
