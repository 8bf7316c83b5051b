# The road from a fresh checkout to captions: `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SAMPLE := data/sample
RUN ?= runs/sample
MODELS ?= models/bmt
SERVER ?= 127.0.0.1:8500
# Photos to measure a server with, in place of made ones.
PHOTOS ?=
TRIES ?= 10000
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help install sample train evaluate export serve caption bench bench-peers bench-serving load-serving hostile test check-cpp backends beam golden lint types dist clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install: $(VENV)/.installed  ## Make the virtual environment with the tested versions

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

sample: $(SAMPLE)/sample.json  ## Generate the offline sample in COCO's layout

$(SAMPLE)/sample.json: | install
	$(BIN)/bmt sample --out $(SAMPLE)

train: install sample  ## Set up, train on the sample, evaluate, export, caption six pictures
	$(BIN)/bmt train --preset sample --out $(RUN) \
		--captions $(SAMPLE)/captions_train.json --images $(SAMPLE)/images/train \
		--val-captions $(SAMPLE)/captions_val.json --val-images $(SAMPLE)/images/val
	$(MAKE) --no-print-directory evaluate export
	$(BIN)/bmt caption --captioner $(RUN)/captioner --grid $(RUN)/captions.png \
		$$(ls $(SAMPLE)/images/val/*.jpg | head -6)

evaluate: install  ## Score the captions of the sample's validation pictures
	$(BIN)/bmt evaluate --captioner $(RUN)/captioner --out $(RUN) \
		--captions $(SAMPLE)/captions_val.json --images $(SAMPLE)/images/val \
		--facts $(SAMPLE)/facts_val.json --report $(RUN) \
		--train-captions $(SAMPLE)/captions_train.json

export: install  ## Export the captioner as the next version in models/bmt
	$(BIN)/bmt export --captioner $(RUN)/captioner --out $(MODELS)

serve: install  ## Serve the latest exported version on port 8500
	$(BIN)/bmt serve --models $(MODELS)

caption: install  ## Ask the server for a caption: make caption IMAGE=photo.jpg
	@test -n "$(IMAGE)" || { echo "make caption: IMAGE=photo.jpg is missing" >&2; exit 2; }
	@$(BIN)/bmt request $(IMAGE) --server $(SERVER) --wait 30

bench: install  ## Measure training, preparation and captioning; writes benchmarks/*.json
	$(BIN)/python tests/benchmarks/training.py --out benchmarks/training.json
	$(BIN)/python tests/benchmarks/preparation.py --out benchmarks/preparation.json
	$(BIN)/python tests/benchmarks/captioning.py --out benchmarks/captioning.json

bench-peers: install  ## Compare captioning with GIT and BLIP, in an environment of its own
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable . 'torch>=2.13'
	$(VENV)-peers/bin/python tests/benchmarks/peers.py --out benchmarks/peers.json

bench-serving: install  ## Compare a server with the direct call (MODELS=, PHOTOS=)
	$(BIN)/python tests/benchmarks/serving.py --models $(MODELS) \
		--out $(RUN)/bench-serving.json $(PHOTOS)

load-serving: install  ## Load a server for a minute, with corrupt photos and a reload (MODELS=, PHOTOS=)
	$(BIN)/python tests/benchmarks/load_serving.py --models $(MODELS) \
		--out $(RUN)/load-serving.json $(PHOTOS)

hostile: install  ## Feed mutated captions, photos, requests and stops (TRIES=, an hour)
	$(BIN)/python tests/benchmarks/hostile.py --tries $(TRIES) --out benchmarks/hostile.json

test: install  ## Run all tests
	$(BIN)/python -m pytest -n auto --dist loadfile

backends: install  ## Run the layers on JAX and on torch, in an environment of its own
	$(PYTHON) -m venv $(VENV)-backends
	$(VENV)-backends/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt keras numpy 'jax>=0.10' torch==2.13.0
	mkdir -p build
	KERAS_BACKEND=tensorflow $(BIN)/python tests/backends/run_layers.py build/layers.npz
	for backend in jax torch; do KERAS_BACKEND=$$backend PYTHONPATH=. $(VENV)-backends/bin/python \
		tests/backends/run_layers.py --compare build/layers.npz || exit 1; done

check-cpp: install  ## Compare captions of the C++ loader (2.20.0 too), saved_model_cli and a session (g++)
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)-tf220 tensorflow-cpu==2.20.0
	$(BIN)/python tests/cpp/check.py $(VENV)-tf220/tensorflow

beam: install  ## Run the tests that need Apache Beam, in an environment of its own
	$(PYTHON) -m venv $(VENV)-beam
	sed 's/==.*/==/; s/^/^/' tests/beam/constraints.txt \
		| grep -vf - constraints.txt > $(VENV)-beam/constraints.txt
	cat tests/beam/constraints.txt >> $(VENV)-beam/constraints.txt
	$(VENV)-beam/bin/pip install --quiet --disable-pip-version-check \
		--constraint $(VENV)-beam/constraints.txt --editable '.[beam]' pytest
	$(VENV)-beam/bin/python -m pytest tests/beam

golden: install  ## Compute the stored reference figures anew and compare (PyTorch, TensorFlow 2.18)
	$(BIN)/pip install --quiet --editable '.[reference]'
	$(BIN)/python tests/golden/albert/make.py --check
	$(PYTHON) -m venv $(VENV)-notebook
	$(VENV)-notebook/bin/pip install --quiet --requirement tests/golden/notebook/requirements.txt
	$(VENV)-notebook/bin/python tests/golden/notebook/make.py --check

lint: install  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## Check types
	$(BIN)/mypy bmt_keras
	$(BIN)/mypy export serving

dist: install  ## Build the wheel and check what is in it
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python tests/check_wheel.py dist

clean:  ## Remove what was built (not data, runs and models)
	rm -rf $(VENV) $(VENV)-notebook $(VENV)-tf220 $(VENV)-beam $(VENV)-peers $(VENV)-backends build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
