# `make demo` draws lesions and takes them through all six scripts; `make test` and `make lint` check
# the code. Each target makes the environment it needs: .venv (TensorFlow), .venv-jax, .venv-torch.

# 3.11 or newer; makes the environments.
PYTHON ?= python3
# Processes that run tests.
WORKERS ?= 2
# Where pip looks for torch besides PyPI, whose Linux wheels bring CUDA along (some GB). For the CPU
# build: make test-torch TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: demo test test-models test-jax test-torch lint format

# Two folds of a small net on drawn lesions, a few minutes on two cores: it shows that and how
# everything runs, not what the scores on real skin are.
demo: export ISIC_ROOT := $(CURDIR)/demo
demo: export KERAS_BACKEND := tensorflow
demo: SCRIPT := .venv/bin/python
demo: RUNS := --backbone tiny --version demo
demo: .venv/.installed
	$(SCRIPT) -c "from pathlib import Path; from datasets.synthetic import draw_dataset; \
	    draw_dataset(Path('demo/data'))"
	$(SCRIPT) runs/seg_train.py $(RUNS) --num-folds 2 --image-size 96 --weights none \
	    --epochs 12 --batch-size 8 --overwrite
	$(SCRIPT) runs/seg_eval.py $(RUNS) --k-fold 0
	$(SCRIPT) runs/seg_predict.py mask $(RUNS) --task 1 --pred-set test --overwrite
	$(SCRIPT) runs/seg_predict.py $(RUNS) --pred-set training --overwrite
	$(SCRIPT) runs/seg_predict.py $(RUNS) --pred-set test --overwrite
	$(SCRIPT) runs/cls_train.py $(RUNS) --num-folds 2 --image-size 96 --weights none \
	    --epochs 12 --learning-rate 1e-3 --overwrite
	$(SCRIPT) runs/cls_eval.py $(RUNS) --k-fold 0
	$(SCRIPT) runs/cls_predict.py $(RUNS) --pred-set test --overwrite

test: .venv/.installed
	KERAS_BACKEND=tensorflow .venv/bin/python -m pytest -n $(WORKERS)

# Every backbone with every decoder at full size: long, and much memory.
test-models: .venv/.installed
	KERAS_BACKEND=tensorflow .venv/bin/python -m pytest -m slow

test-jax: .venv-jax/.installed
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -n $(WORKERS)

test-torch: .venv-torch/.installed
	KERAS_BACKEND=torch .venv-torch/bin/python -m pytest -n $(WORKERS)

lint: .venv/.installed
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

format: .venv/.installed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.venv/.installed: requirements.txt
.venv-jax/.installed: requirements-jax.txt
.venv-torch/.installed: requirements-torch.txt
.venv-torch/.installed: INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# An empty .installed marks an environment as whole, and as newer than what it was made from.
%/.installed: requirements-common.txt requirements-dev.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(INDEX) $(addprefix -r ,$(filter-out %-common.txt,$^))
	touch $@
