# make demo   set everything up and run the whole line once, on CPU, in under 15 minutes
# make demo-finetune   20 demonstrations of Lift, cloned, then fine-tuned by success alone: better and faster than they are
# make teleop  set everything up, open the recording page for Lift and print its link (ARGS="--episodes 10" and so on)
# make test   the fast tests        make test-long   those of tens of seconds        make test-slow   of minutes
# make test-lowest, test-newest   physics on the oldest and on the newest MuJoCo that pyproject.toml allows
# make test-learning   SAC, PPO and DQN on tasks that they must solve        make test-stalled   as on a machine that stalls
# make gpu-figures     every figure of a CUDA card, in under 8 minutes     make gpu-rehearsal   the same parts, tiny, on the CPU
# make check  formatting, lint and types
# make lock   resolve the dependencies anew into requirements.lock

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
EXTRAS := metaworld,robotics,video,minari,gpu,teleop,dev

# The tests run two processes side by side; each must not take every core for itself.
TEST_ENV := OMP_NUM_THREADS=1
JOBS     ?= 2

.PHONY: setup demo demo-finetune teleop check test test-lowest test-newest test-long test-learning test-slow test-stalled gpu-figures gpu-rehearsal format lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "robolearn needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/robolearn demo

# Every step goes on where it stopped: call it again after Ctrl-C. PPO adds runs/lift/finetune to what was cloned.
demo-finetune: $(READY)
	$(BIN)/robolearn record runs/lift/demonstrations.hdf5 --task Lift --episodes 20 --resume
	$(BIN)/robolearn train --config configs/train/lift.yaml --resume
	$(BIN)/robolearn finetune --config configs/finetune/lift.yaml --resume
	$(BIN)/robolearn eval runs/lift/clone runs/lift/finetune --episodes 200 --num_envs 64 --expert auto --output runs/lift/eval

teleop: $(READY)
	$(BIN)/robolearn record --task Lift --device browser --output datasets/lift.hdf5 --resume --session.open_page $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

test: $(READY)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-long: $(READY)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist load -m long

test-learning: $(READY)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist load -m learning --timeout 1800

test-slow: $(READY)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m slow --timeout 3600

# What has threads, processes and pages, on a machine that stalls (tests/stalls): three times as long, and not in CI.
test-stalled: $(READY)
	STALL=1 PYTHONPATH=$(CURDIR)/tests/stalls $(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --timeout 900 \
	  tests/datasets tests/deploy tests/episodes tests/evaluation tests/imitation tests/rl tests/teleop tests/training

# The oldest MuJoCo that pyproject.toml allows, laid over the locked one. MuJoCo Warp needs a newer one.
test-lowest: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/mujoco-lowest mujoco==3.5.0
	PYTHONPATH=build/mujoco-lowest $(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/sim tests/tasks \
	  --ignore tests/sim/test_warp.py

# The newest one, likewise; from 4.0 on it comes in two packages.
test-newest: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/mujoco-newest \
	  mujoco==4.0.0 mujoco-core==4.0.0
	PYTHONPATH=build/mujoco-newest $(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/sim tests/tasks \
	  --ignore tests/sim/test_warp.py

gpu-figures: $(READY)
	$(BIN)/python -m benchmarks.gpu

gpu-rehearsal: $(READY)
	$(BIN)/python -m benchmarks.gpu --rehearse

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --quiet --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  $(foreach e,$(subst $(comma), ,$(EXTRAS)),--extra $(e)) -o requirements.lock
	sed -i 's/+cpu$$//' requirements.lock  # any build of that torch will do

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist

comma := ,
