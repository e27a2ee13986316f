# `make demo` draws lesions and takes them through the scripts; `make test` and `make lint` check
# the code. Each target makes the environment it needs: .venv (TensorFlow), .venv-jax, .venv-torch,
# .venv-bench, .venv-cluster.

# 3.11 or newer; makes the environments.
PYTHON ?= python3
# Processes that run tests.
WORKERS ?= 2
# Where pip looks for torch besides PyPI, whose Linux wheels bring CUDA along (some GB). For the CPU
# build: make test-torch bench TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: demo test test-faults test-cluster test-models test-jax test-torch bench bench-archive lint format

demo: .venv/.installed
	.venv/bin/python runs/demo.py

test: .venv/.installed
	KERAS_BACKEND=tensorflow .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Kills the scripts at over 80 moments, fills disks (as root, who may mount small ones), and compares
# with whole runs: 25 minutes.
test-faults: .venv/.installed
	KERAS_BACKEND=tensorflow .venv/bin/python tests/faults.py

# Five folds on a real Slurm (from Debian's packages, as root) and a real Ray, with faults.
test-cluster: .venv-cluster/.installed
	KERAS_BACKEND=tensorflow .venv-cluster/bin/python tests/cluster.py

# Every backbone with every decoder at full size: long, and much memory.
test-models: .venv/.installed
	KERAS_BACKEND=tensorflow .venv/bin/python -m pytest -m slow

test-jax: .venv-jax/.installed
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-torch: .venv-torch/.installed
	KERAS_BACKEND=torch .venv-torch/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Speed against what it is compared with: a table in 25 minutes. Leave the machine alone meanwhile.
bench: .venv-bench/.installed
	KERAS_BACKEND=tensorflow .venv-bench/bin/python benchmarks/bench.py

# Answers for archives of up to 100,000 small images, and for the largest under kills: 15 minutes on
# two free cores.
bench-archive: .venv/.installed
	KERAS_BACKEND=tensorflow .venv/bin/python benchmarks/archive.py

lint: .venv/.installed
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

format: .venv/.installed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.venv/.installed: requirements.txt
.venv-jax/.installed: requirements-jax.txt
.venv-torch/.installed: requirements-torch.txt
.venv-bench/.installed: requirements-bench.txt requirements.txt
.venv-cluster/.installed: requirements-ray.txt requirements.txt
.venv-torch/.installed .venv-bench/.installed: INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# An empty .installed marks an environment as whole, and as newer than what it was made from.
%/.installed: requirements-common.txt requirements-dev.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(INDEX) $(addprefix -r ,$(filter-out %-common.txt,$^))
	touch $@
