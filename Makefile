# make demo [AUDIO=my.wav]   corpus -> shards -> train -> evaluate -> animate a recording
# make diffusion             after make demo: the diffusion model, a student of it, and a table of both
#                            beside the regression model (about an hour on two cores)
# make test                  the fast tests (slow ones: make test-slow)
# make test-jax              the fast tests that depend on the version of jax, flax, orbax or grain
# make fuzz [MINUTES=2]      every command on files damaged by structure; SEED=N repeats a run
# make parity                compares encoders and bundles with PyTorch and CTranslate2, which it installs
#                            if it can
# All of them set up the environment first; PYTHON=python3.13 selects another interpreter.

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(origin PYTHON),file)
VENV ?= .venv
else
VENV ?= .venv-$(VERSION)
endif
BIN := $(VENV)/bin
DEMO ?= demo
AUDIO ?=
# Extras of pyproject.toml to install with the package.
EXTRAS ?= captures,demo,dev,export,serve,view
export PYTHONUNBUFFERED = 1
# Without bytecode, each of the many processes that tests start compiles jax again (3 s).
unexport PYTHONDONTWRITEBYTECODE
# uv installs in a third of pip's time. It does not read pip's settings, such as a mirror's address, so
# pip installs what uv cannot.
install = { $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1' && \
  $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '$(1)'; } || \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(1)'
# The tests compile much and compute little: they take two thirds of the time without optimisation,
# and half of that without fusion emitters. jaxlib 0.12 cannot do without the emitters and rejects the
# flag, so `make test-jax` on the newest Python tests with them.
FAST = XLA_FLAGS="--xla_backend_optimization_level=0 $$($(BIN)/python -c 'from importlib import \
  metadata; print("--xla_cpu_use_fusion_emitters=false" * \
  metadata.version("jaxlib").startswith("0.10."))') $$XLA_FLAGS"

.PHONY: setup demo diffusion test test-slow test-jax fuzz parity lint format types clean-demo

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is $(VERSION)" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) (Python $(VERSION)); this takes some minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call install,.[$(EXTRAS)])
	@touch $@

demo: setup
	@$(BIN)/python -m data_pipeline.demo.run --folder $(DEMO) $(if $(AUDIO),--audio "$(AUDIO)")

diffusion: demo
	@$(BIN)/a2fjax train --config experiments/diffusion_v3_0.py:demo --workdir $(DEMO)/diffusion \
	  --config.data.shards=$(DEMO)/shards
	@$(BIN)/a2fjax train --config experiments/diffusion_v3_0.py:demo+distilled \
	  --workdir $(DEMO)/distilled --config.data.shards=$(DEMO)/shards \
	  --config.init_from=$(DEMO)/diffusion
	@$(BIN)/a2fjax evaluate $(DEMO)/diffusion --samples 8 --sample-steps 1,2,4,8,16,50 \
	  --against $(DEMO)/run --against $(DEMO)/distilled --out $(DEMO)/samples.json

# Each file runs on one worker, so that its tests share runs and compiled programs.
test: setup
	@$(FAST) $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

# Tests wait for schedulers and faults, so a third worker can compute meanwhile.
test-slow: setup
	@$(FAST) $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m slow $(ARGS)

# These tests cover every use of jax, flax, optax, orbax and grain once: loading, networks in their
# tasks, training, checkpoints, devices, compiled programs, inference. The other tests run on the
# first Python only, because they use no other functions of these libraries.
JAX_TESTS = tests/data/test_loader.py tests/encoders/test_wav2vec2.py tests/infer/test_predictor.py \
  tests/models/test_gru.py tests/plan tests/sharding tests/streaming/test_stream.py \
  tests/tasks/test_diffusion.py tests/tasks/test_regression.py tests/training
test-jax: setup
	@$(FAST) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" \
	  --ignore-glob='*nvidia*' --ignore=tests/training/test_encoders.py $(JAX_TESTS) $(ARGS)

MINUTES ?= 2
SEED ?=
fuzz: setup
	@$(FAST) $(BIN)/python tests/fuzz/run.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

# The extra is large and only for these tests: without it, they skip and give the reason.
parity: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]' \
	  || echo "the extra torch cannot be installed here: what needs it is skipped"
	@$(BIN)/python -m pytest -q -n 2 -rs tests/encoders/test_wav2vec2_parity.py \
	  tests/encoders/test_whisper_parity.py tests/encoders/test_whisper_weights.py \
	  tests/export/test_pytorch.py -k "wav2vec2 or transformers or ctranslate2 or test_pytorch" $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean-demo:
	rm -rf $(DEMO)
