# Two commands do all: `make run` (the site, with a first run training) and `make test` (everything).
# They install what they need; nothing has to be done before.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
SAMPLE := $(abspath $(or $(GRAFT_SAMPLE_MODEL),var/sample-model))
METHOD ?= lora

.DEFAULT_GOAL := help
.PHONY: help run setup setup-dev test checks lint format types check-migrations tests test-faults chaos methods-matrix demo messages screenshots pin clean bench-training bench-profile bench-merge bench-estimate bench-start bench-tokenize bench-evaluate bench-serving bench-ui bench-live bench-validate methods-study rates-study rank-study

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk 'BEGIN {FS = ":.*## "} {printf "  make %-18s %s\n", $$1, $$2}'

# -- installation: idempotent, a no-op when nothing has changed --------------------------------------------------------

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Graft needs Python 3.11; none was found on the PATH." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "Graft needs Python 3.11; $(PYTHON) is another. Name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: requirements.txt | $(VENV)/.made
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip check
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip check
	@touch $@

$(SAMPLE)/graft.json: | $(VENV)/.runtime
	@mkdir -p -m 0700 var
	$(PY) -m jobs sample --out $(SAMPLE) --cache var/cache

REGIONS := var/cache/regions
export GRAFT_REGIONS ?= $(abspath $(REGIONS))

$(REGIONS)/.warm: $(VENV)/.runtime $(SAMPLE)/graft.json jobs/training/regions.py jobs/geometry.py jobs/training/compiling.py
	$(PY) -m jobs warm $(SAMPLE) --regions $(REGIONS)
	@touch $@

# The catalogues that Django reads, made from those that translators write.
locale/.compiled: $(wildcard locale/*/LC_MESSAGES/django.po) tools/messages.py | $(VENV)/.runtime
	@$(PY) -m tools.messages compile
	@touch $@

setup: $(VENV)/.runtime $(SAMPLE)/graft.json $(REGIONS)/.warm locale/.compiled ## install what the site needs, the sample model, and its compiled parts

# The tests make the compiled parts that they need, in places of their own.
setup-dev: $(VENV)/.dev $(SAMPLE)/graft.json locale/.compiled ## install what the checks and tests need, a browser included
	@tools/browser.sh

# -- the site ----------------------------------------------------------------------------------------------------------

run: setup ## start the site: web, Redis, dispatcher, workers; Ctrl-C stops everything
	@exec $(PY) manage.py up

demo: setup ## the main job without a browser: make demo METHOD=lora|qlora|full
	@$(PY) manage.py demo --method $(METHOD)

# -- checks ------------------------------------------------------------------------------------------------------------

test: setup-dev ## everything: lint, types, migrations, unit, contract, flow, browser
	@$(MAKE) --no-print-directory --jobs=2 checks tests

checks: lint types check-migrations ## what needs no test to run

lint: $(VENV)/.dev ## ruff, djlint, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/djlint --lint --quiet templates
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## rewrite the code in the house's layout
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: $(VENV)/.dev ## mypy, strict
	$(VENV)/bin/mypy

check-migrations: $(VENV)/.dev ## models and migrations agree
	GRAFT_SECRET_KEY=only-for-this-check-of-the-migrations $(PY) manage.py makemigrations --check --dry-run

# What breaks things on purpose has commands of its own: test-faults, test-attacks. One thread each: threads of several processes on the
# same cores wait for one another. The engine's own processes choose theirs.
tests: $(VENV)/.dev ## the test suite alone
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=5 --ignore=tests/faults --ignore=tests/attacks \
	  --ignore=tests/flow/test_faults.py

# WRITE=1 puts the figures into docs/reliability.md. As root it mounts small disks and makes a control group; else those tests are skipped.
test-faults: $(VENV)/.dev ## break everything that can be broken here, on SQLite and PostgreSQL, and measure
	$(PY) -m tests.faults $(if $(WRITE),--write)

# SEEDS=1-200 for many; RUNS=6 for less of each; RESULTS=file for a line of JSON for each seed.
chaos: $(VENV)/.dev ## kills, stops and wishes by chance over 20 runs of the real engine, then the invariants: make chaos SEED=7
	$(PY) -m tests.chaos --seeds $(or $(SEEDS),$(SEED),1) $(if $(RUNS),--runs $(RUNS)) $(if $(RESULTS),--results $(RESULTS))

# docs/security.md says what each test stands for.
test-attacks: $(VENV)/.dev ## hostile files and requests, made anew and handed to the real program: docs/security.md
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 --durations-min=5 tests/attacks

methods-matrix: $(VENV)/.dev ## every method on every task and base that it claims, and docs/methods.md drawn anew
	$(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder tests/matrix
	$(PY) -m tests.matrix.parameters
	$(PY) -m tools.methods_page

# -- measurements --------------------------------------------------------------------------------------------------------

# DATA= the folder with arc_easy/ and gsm8k/ (else rows of examples/tickets); QUICK=1, RESUME=1, ONLY=lora-bf16-arc, PEERS=hf,trl, ROUNDS=1,
# SETTLE=480 (seconds that a compiled peer may warm up), WITHOUT=compile,shared_prefix (fast ways of the engine to switch off)
bench-training: setup ## Graft and the usual trainers in turn, on the same rows: tokens/s, memory, losses, ratios
	$(PY) -m benchmarks.training $(if $(DATA),--data $(DATA)) $(if $(QUICK),--quick) $(if $(RESUME),--resume) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(PEERS),--peers $(PEERS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WITHOUT),--without $(WITHOUT)) \
	  $(if $(SETTLE),--settle $(SETTLE))

bench-profile: setup ## where a step of Graft goes, and the distance to this machine's matrix products: make bench-profile DATA=... CASE=lora-bf16-arc
	$(PY) -m benchmarks.profile_step $(if $(DATA),--data $(DATA)) $(if $(CASE),--case $(CASE))

bench-merge: setup ## python -m jobs merge against merge_and_unload + save_pretrained: seconds, memory, equal bytes: make bench-merge RUNS=3
	$(PY) -m benchmarks.merge $(if $(RUNS),--runs $(RUNS))

bench-estimate: setup ## the estimated memory of a run against the measured one, full, LoRA and QLoRA: make bench-estimate METHODS=lora,qlora
	$(PY) -m benchmarks.estimate $(if $(METHODS),--methods $(METHODS)) $(if $(PRECISION),--precision $(PRECISION)) $(if $(LENGTHS),--lengths $(LENGTHS)) \
	  $(if $(ROWS),--rows $(ROWS)) $(if $(CHECKPOINTING),--checkpointing)

methods-study: setup ## the same rows under several methods and seeds: cost and accuracy, side by side: make methods-study DATA=... METHODS=lora,dora SEEDS=0,1
	$(PY) -m benchmarks.methods_study $(if $(DATA),--data $(DATA)) $(if $(METHODS),--methods $(METHODS)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(ROWS),--rows $(ROWS)) $(if $(TEST_ROWS),--test-rows $(TEST_ROWS)) $(if $(EPOCHS),--epochs $(EPOCHS)) \
	  $(if $(LEARNING_RATE),--learning-rate $(LEARNING_RATE)) $(if $(WITHOUT),--without $(WITHOUT)) $(if $(RESULTS),--results $(RESULTS))

rates-study: setup ## every method at its own learning rate and around it, on a writer and a small encoder: make rates-study METHODS=lora,ia3 BASES=encoder
	$(PY) -m benchmarks.rates_study $(if $(METHODS),--methods $(METHODS)) $(if $(BASES),--bases $(BASES)) $(if $(RESULTS),--results $(RESULTS))

rank-study: setup ## whether the rank that the analysis suggests is the best of a grid: make rank-study DATA=... TASKS=tickets RANKS=4,16,64 SEEDS=0,1
	$(PY) -m benchmarks.rank_study $(if $(DATA),--data $(DATA)) $(if $(TASKS),--tasks $(TASKS)) $(if $(RANKS),--ranks $(RANKS)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(ROWS),--rows $(ROWS)) $(if $(TEST_ROWS),--test-rows $(TEST_ROWS)) $(if $(STEPS),--steps $(STEPS)) $(if $(RESULTS),--results $(RESULTS))

messages: setup ## bring the catalogues of translations up to what the pages say; prints what is not translated yet
	$(PY) -m tools.messages update
	@$(PY) -m tools.messages missing

# Into docs/screenshots: every page in two widths and two themes, and in Japanese.
screenshots: setup-dev ## pictures of every page
	@tools/browser.sh --japanese
	GRAFT_SCREENSHOTS=$(abspath docs/screenshots) $(PY) -m pytest -n 0 tests/browser/test_every_page.py

pin: ## resolve requirements*.in anew
	PYTHON=$(PYTHON) tools/pin.sh

clean: ## remove the environment (var/, with all that the site keeps, stays)
	rm -rf $(VENV)

bench-start: setup ## from the start of a run to its first loss, against HF Trainer + PEFT: make bench-start RUNS=3
	$(PY) -m benchmarks.start $(if $(RUNS),--runs $(RUNS)) --model $(SAMPLE)

bench-tokenize: setup ## chats to token ids with marks, cold and cached, against datasets.map: make bench-tokenize DATA=rows.jsonl RUNS=3
	$(PY) -m benchmarks.tokenize $(if $(DATA),--data $(DATA)) $(if $(RUNS),--runs $(RUNS)) --model $(SAMPLE)

bench-evaluate: setup ## the general probe, labels by likelihood, decoding with and without an adapter: make bench-evaluate RUNS=3
	$(PY) -m benchmarks.evaluate $(if $(RUNS),--runs $(RUNS)) --model $(SAMPLE)

bench-serving: setup ## 1, 8 and 32 chats at once: tokens/s and time to the first token against a plain generate loop: make bench-serving RUNS=3
	$(PY) -m benchmarks.serving $(if $(RUNS),--runs $(RUNS)) --model $(SAMPLE)

bench-live: $(VENV)/.runtime ## 1,000 sockets on 20 runs of 100 points/s at one web process: points lost, processor, memory, latency, restart
	$(PY) -m benchmarks.live

bench-validate: $(VENV)/.runtime ## validation of 1 GB of JSONL in the box: MB/s of one core, peak memory
	$(PY) -m benchmarks.validate

bench-ui: setup ## the pages' times beside their targets, on a temporary site: make bench-ui PAGES=runs_list
	$(PY) -m benchmarks.ui $(PAGES)
