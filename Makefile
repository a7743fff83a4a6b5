# Each target makes .venv from the pins when it is missing or older than them.
PYTHON ?= python3
# Which build of torch, by uv's name: cpu, cu130, rocm6.4, …; pinned: the package index's own, which on Linux brings
# 4 GB of CUDA. By default the CPU's, where Linux has no NVIDIA driver and PyTorch's own index can be reached.
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KEYS := metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution

.PHONY: demo test test-slow test-all lab strip lint cells bench docs pins clean

demo: $(STAMP)  ## the notebooks on drawn hands, to a report
	$(BIN)/handclip run 01 02 03 04 05 06 -p 03.epochs 6 -p 04.epochs 6 -p 04.prompt_run latest --force

MARKED := slow or fault or browser
# long files come first (tests/conftest.py), so that no core waits at the end
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -rs

test: $(STAMP)  ## the tests, in less than five minutes; those that lack the photographs say so and skip
	$(PYTEST) -m "not ($(MARKED))" $(ARGS)

test-slow: $(STAMP)  ## the others: whole notebooks, killed processes, Slurm, a browser; what is missing is said and skipped
	$(PYTEST) -m "$(MARKED)" $(ARGS)

test-all: $(STAMP)  ## both in one run, as continuous integration has them: what both import is imported once
	$(PYTEST) $(ARGS)

lab: $(STAMP) strip  ## JupyterLab on notebooks/README.md; its python3 is this environment's, whatever kernels the user has
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/README.md \
	  --LabApp.app_settings_dir="$(CURDIR)/notebooks/.lab" $(ARGS)

strip: $(STAMP)  ## git adds notebooks without their outputs, which hold photographs; nothing outside a checkout
	@if git rev-parse --git-dir >/dev/null 2>&1; then \
	  git config filter.nbstripout.clean '"$(CURDIR)/$(BIN)/python" -m nbstripout --keep-id --extra-keys "$(KEYS)"' && \
	  git config filter.nbstripout.smudge cat && git config filter.nbstripout.required true && \
	  file="$$(git rev-parse --git-path info/attributes)" && mkdir -p "$$(dirname "$$file")" && touch "$$file" && \
	  { grep -qxF '*.ipynb filter=nbstripout' "$$file" || echo '*.ipynb filter=nbstripout' >>"$$file"; }; fi

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

cells: $(STAMP)  ## the notebooks' parameters cells, from the models in handclip_lib/parameters
	$(BIN)/python -m tools.parameter_cells

bench: $(STAMP)  ## our way beside the peers', in one process: ratios
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.prompts
	$(BIN)/python -m benchmarks.fine_tune
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.people
	$(BIN)/python -m benchmarks.gpu

FEW := -p drawn_subjects 40 -p draws 3 -p 02.epochs 20 -p 03.epochs 6 -p 04.epochs 6 -p 04.prompt_run latest

docs: $(VENV)/.docs  ## the documentation, with the notebooks run on few drawn hands: site/html/index.html, offline
	HANDCLIP_REPORTS="$(CURDIR)/site/reports" $(BIN)/handclip run 01 02 03 04 05 06 $(FEW)
	$(BIN)/python -m tools.site_pages site/source --reports site/reports
	$(BIN)/python -m sphinx -W --keep-going -q site/source site/html
	@echo "site/html/index.html"

$(VENV)/.docs: $(STAMP) docs/requirements.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet -r docs/requirements.txt
	@touch $@

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "HandCLIP needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@torch="$(TORCH)"; uv="$(BIN)/uv pip install --python $(BIN)/python"; \
	of_torch="-r pyproject.toml --group dev --all-extras --constraint requirements.txt --torch-backend"; \
	if [ -z "$$torch" ] && [ "$$(uname)" = Linux ] && [ ! -e /proc/driver/nvidia/version ] && \
	  ! command -v nvidia-smi >/dev/null && \
	  UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=10 $$uv --quiet --dry-run $$of_torch cpu 2>/dev/null; then torch=cpu; fi; \
	echo "torch: $${torch:-pinned}"; \
	case "$${torch:-pinned}" in \
	  pinned) $$uv --compile-bytecode -r requirements.txt ;; \
	  *) $$uv --compile-bytecode $$of_torch "$$torch" ;; \
	esac
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .
	@touch $@

pins: $(STAMP)  ## requirements.txt anew from pyproject.toml; name packages to upgrade in UPGRADE="--upgrade-package torch"
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --no-emit-index-url \
	  --no-annotate --custom-compile-command "make pins" --quiet $(UPGRADE) --output-file requirements.txt
	$(BIN)/uv pip compile --group docs --constraint requirements.txt --universal --python-version 3.11 --no-emit-index-url \
	  --no-annotate --custom-compile-command "make pins" --quiet $(UPGRADE) --output-file docs/requirements.txt

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
