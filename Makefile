# Every target sets itself up: the first one creates .venv and installs all that the book needs.
# Paths are relative, so the folder may have a space in its name.
#
#   make book RXT_PROFILE=ci      smaller models, seconds instead of minutes (ci | cpu | gpu)
#   make book PYTHON=python3.12   another Python, 3.10 or newer
#   make book TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"     Linux without CUDA packages

TORCH ?= torch==2.13.0
TESTS ?= tests
NOTEBOOKS ?= book/*.ipynb
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)

PY := .venv/bin/python
SETUP := .venv/.installed
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help book pdf runtimes test notebooks lint stories results bench live serve lab labs release students strip outputs clean

help:
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

book: $(SETUP)  ## execute every notebook and build the site in _build/html
	$(PY) tools/build.py

pdf: book  ## the whole book as one PDF, _build/book.pdf (needs Chromium)
	$(PY) tools/pdf.py

test: $(SETUP)  ## all tests (page tests need Chromium)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

notebooks: $(SETUP)  ## execute every notebook once more with nbval, marked cells compared
	$(PY) tools/notebooks.py compare $(NOTEBOOKS)

lint: $(SETUP)  ## ruff and codespell
	$(PY) -m ruff check . && .venv/bin/codespell

stories: $(SETUP)  ## train two minutes on real stories: make stories STORIES=file.txt
	$(PY) tools/stories.py "$(STORIES)"

results: $(SETUP)  ## hours: train the models behind the book's figures anew, and write book/results
	$(PY) tools/results.py --profile $(if $(filter ci,$(PROFILE)),ci,full)

runtimes: book  ## time and memory of every chapter as built, into book/results/runtimes.jsonl: make runtimes RXT_PROFILE=ci
	$(PY) tools/runtimes.py

bench: $(SETUP)  ## speed beside a plain loop and PyTorch's own layers, as a table: make bench BENCH="--bf16 --compile"
	.venv/bin/rxt-lite bench $(BENCH)

live: $(SETUP)  ## speed of the live page in this machine's Chromium, with SIMD and without
	$(PY) tools/live.py

serve: book  ## build the book and serve it on http://127.0.0.1:8000
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html 8000

lab: $(SETUP)  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab book

labs: $(SETUP)  ## labs: right answers earn all, releases nothing, wrong answers lose what they should; student notebooks are up to date
	OMP_NUM_THREADS=1 .venv/bin/rxt-lite lab check labs/source/*.ipynb --released labs
	OMP_NUM_THREADS=1 .venv/bin/rxt-lite lab check labs/example/source.ipynb --released labs/example

release: $(SETUP)  ## write the student notebooks anew from labs/source
	for lab in labs/source/*.ipynb; do .venv/bin/rxt-lite lab release $$lab --out labs || exit 1; done
	.venv/bin/rxt-lite lab release labs/example/source.ipynb --out labs/example

students: $(SETUP)  ## export what students get, without a solution, into _build/students
	rm -rf _build/students && mkdir -p _build/students
	cp labs/*.ipynb labs/README.md LICENSE LICENSE-text _build/students/

strip: $(SETUP)  ## before a commit: drop outputs, except those of compared cells
	$(PY) tools/notebooks.py strip $(NOTEBOOKS)

outputs: $(SETUP)  ## execute the notebooks and store the outputs of compared cells anew
	$(PY) tools/notebooks.py outputs $(NOTEBOOKS)

clean:  ## delete everything that can be built again, .venv too
	rm -rf _build .venv .pytest_cache .ruff_cache rxt_lite.egg-info

$(SETUP): requirements.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "rxt_lite needs Python 3.10 or newer; name one with: make book PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv with $(PYTHON): a few minutes, once"
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) -r requirements.txt -c constraints.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $(SETUP)
