# make alone prints the targets. PYTHON, TORCH, PRESET, DATA, OUT, SEED, SITE, WORKERS and MINUTES can be set on the
# command line.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PRESET ?= cpu
OUT    ?= runs/$(PRESET)
SEED   ?= 0
DATA   ?=
# PyTorch's build for a new .venv: cpu, cu126, auto, ... as `uv pip install --torch-backend` knows them, from PyTorch's own
# index; empty takes PyPI's. Only the empty one could be tried where the kit was made: no index but PyPI was in reach.
TORCH  ?=
# Its pins: no CUDA, and no hashes, which are those of PyPI's files.
CPU_PINS := /^(cuda-|nvidia-|triton)/d; s/^([a-z][^\\]*[^\\ ]) *\\?$$/\1/p
UNREACHED := The packages could not be installed; the reason is above. make env needs the network, once: run it again where there is one.
WORKERS ?=
MINUTES ?=
SITE   ?= $(OUT)/site

.DEFAULT_GOAL := help
.PHONY: help env lock reproduce ablations search beyond figures site weights test reliability audit lint lab doctor handout \
  demo clean

help:  ## print the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

env: $(VENV)/.ready  ## build .venv from requirements.lock; nothing to do when it is up to date (TORCH=cpu: without CUDA)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed; this is $$($(PYTHON) --version). Use make PYTHON=python3.12 (say)."; exit 2; }
	@echo "Building $(VENV), about 7 GB on Linux, some two minutes on a fast line. It downloads, from PyPI:"
	@echo "  torch, torchvision    the networks; 5 GB with the CUDA libraries, which make env TORCH=cpu leaves out"
	@echo "  numpy to umap-learn   numbers, tables, figures, images and video"
	@echo "  jupyterlab, papermill the notebooks, live and by command"
	@echo "  sphinx, voila         the course as web pages (make site, make demo)"
	@echo "  pytest, ruff, ...     what make test needs, with a driver for the Chromium that may be on this machine"
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 || { echo "$(UNREACHED)"; exit 2; }
	@$(if $(TORCH),sed -nE '$(CPU_PINS)' requirements.lock,cat requirements.lock) | $(BIN)/uv pip install --quiet \
	  --compile-bytecode --python $(BIN)/python $(if $(TORCH),--torch-backend $(TORCH),--require-hashes) -r - || \
	  { echo "$(UNREACHED)"; exit 2; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock: env  ## pin again what pyproject.toml asks for
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra dev --extra site --no-header \
	  --no-emit-index-url --generate-hashes pyproject.toml -o requirements.lock

reproduce: env  ## run the notebooks, then write tables and figures (PRESET=cpu DATA="train_on probe_too" OUT=runs/cpu SEED=0)
	$(BIN)/python -m pcl_lib.reproduce --preset $(PRESET) $(if $(DATA),--data $(DATA)) --out "$(OUT)" --seed $(SEED)

ablations: env  ## train and probe the variants of the ablation table, 3 seeds each; goes on where it was (PRESET=cpu WORKERS= MINUTES=)
	$(BIN)/python -m pcl_lib.ablations --preset $(PRESET) $(if $(DATA),--data $(DATA)) --out "runs/$(PRESET)-ablations" \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(MINUTES),--minutes $(MINUTES))

search: env  ## tries for a better pcl_plus, judged on the validation people (the test people are not rendered); goes on where it was
	$(BIN)/python data_scripts/render_faces.py --out runs/faces/search --preset $(PRESET) --identities 340 60 60 --seed 1
	$(BIN)/python -m pcl_lib.ablations --preset $(PRESET) --data runs/faces/search --out runs/$(PRESET)-search --search --seeds 2

beyond: env  ## the longer parts of notebooks 09 and 10: attributes, ageing, a GAN, detectors, depth, scaling; goes on where it was (PRESET=cpu WORKERS= MINUTES=)
	$(BIN)/python -m pcl_lib.reproduce.longer --preset $(PRESET) --out "runs/$(PRESET)-beyond"
	$(BIN)/python -m pcl_lib.ablations --preset $(PRESET) --scaling --seeds 2 --out "runs/$(PRESET)-beyond" \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(MINUTES),--minutes $(MINUTES))

figures: env  ## draw the rendered faces and copy tables and figures of the run in OUT to figures/
	$(BIN)/python figures/rendered_faces.py figures/
	$(BIN)/python figures/swap_gif.py figures/swap.gif
	mkdir -p figures/tables
	for name in main components disentanglement swap_table pdd training beyond_features beyond_swaps beyond_tasks other_ways \
	  other_ways_swaps; do cp "$(OUT)"/tables/$$name.* figures/tables/ || exit 1; done
	for name in swaps swaps_plus leakage training_curves embedding tracking other_ways; do cp "$(OUT)/figures/$$name.png" figures/ || exit 1; done
	if [ -f "$(OUT)-ablations/tables/ablation_main_table.md" ]; then cp "$(OUT)"-ablations/tables/ablation_*_table.* figures/tables/; \
	  cp "$(OUT)"-ablations/figures/ablation_*.png figures/; else echo "$(OUT)-ablations is not there: its tables stay as they are"; fi
	for set in search pdd lfw fer2013; do for name in main components lead lead_components swaps; do for end in csv md; do \
	  table="$(OUT)-$$set/tables/ablation_$${name}_table.$$end"; \
	  if [ -f "$$table" ]; then cp "$$table" figures/tables/$${set}_$${name}_table.$$end; fi; done; done; done
	for name in attributes_features attributes_swaps attributes_tasks oracles_features oracles_swaps oracles_tasks \
	  longer_ways longer_swaps detectors depth_input depth_target scaling_points scaling_law scaling_gain scaling_video; do \
	  for end in csv md; do if [ -f "$(OUT)-beyond/tables/$$name.$$end" ]; then \
	  cp "$(OUT)-beyond/tables/$$name.$$end" figures/tables/; fi; done; done
	for name in gan_swaps scaling; do if [ -f "$(OUT)-beyond/figures/$$name.png" ]; then \
	  cp "$(OUT)-beyond/figures/$$name.png" figures/; fi; done
	rm -f figures/tables/*.tex
	$(BIN)/python -m pcl_lib.reproduce.readme "$(OUT)"

site: env  ## the executed notebooks of the run in OUT as a web site that needs no network, in SITE (default OUT/site)
	$(BIN)/python -m pcl_lib.site "$(OUT)" "$(SITE)"

handout: env  ## a students' copy of the notebooks without solutions (OUT=handout)
	$(BIN)/python -m pcl_lib.reproduce.handout "$(if $(filter command line environment,$(origin OUT)),$(OUT),handout)"

weights: env  ## train the weights that ship (`shipped_weights.RECIPES`), a card beside each, and judge them (PRESET=cpu)
	$(BIN)/python -m pcl_lib.reproduce.shipped_weights --preset $(PRESET)
	$(BIN)/python -m pcl_lib.reproduce.shipped_report --preset $(PRESET)
	$(BIN)/python -m pcl_lib.reproduce.fairness

test: env  ## lint, types, unit tests and every notebook at the smoke preset
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

reliability: env  ## hours of kills, failing disks, damaged inputs, changed lines and a soak (see tests/README.md)
	$(BIN)/python tests/reliability/mutate.py --count 100000
	$(BIN)/python tests/reliability/kills.py --kills 50
	$(BIN)/python tests/reliability/disks.py
	$(BIN)/python tests/reliability/mutations.py
	$(BIN)/python tests/reliability/unprobed.py
	$(BIN)/python tests/reliability/hosted.py
	$(BIN)/python tests/reliability/soak.py --minutes 120

audit: env  ## known vulnerabilities of the pinned packages, licences and a bill of materials (to build/)
	$(BIN)/python tests/reliability/audit.py

lint: env  ## fix what ruff can fix, then check types
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

doctor: env  ## say what this machine has, what is missing, and how many minutes the notebooks take on it
	$(BIN)/python -m pcl_lib.reproduce.doctor

lab: env  ## open JupyterLab on the map of the course, for this machine alone (127.0.0.1, with a token)
	JUPYTER_CONFIG_PATH=notebooks/.jupyter $(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. \
	  --LabApp.default_url=/lab/tree/notebooks/README.md

demo: env  ## the widgets alone, as one page for a lecture hall or an open day; each visitor has sliders of their own
	$(BIN)/voila pcl_lib/site/demo/demo.ipynb

clean:  ## remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
