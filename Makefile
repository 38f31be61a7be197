# Two commands matter: `make demo` and `make test`. Both make the environment first, from locked versions.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
export TF_USE_LEGACY_KERAS := 1
export TF_CPP_MIN_LOG_LEVEL := 3

.DEFAULT_GOAL := help
.PHONY: help demo demo-experiment test lint proto lock bench-train bench-index bench-filters bench-catalogue bench-admission bench-work bench-memory bench-ssl bench-recommenders bench-order bench-untouched bench-cold-items bench-reformulation bench-experiment bench-exposures bench-serving soak fuzz clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# One stamp file per environment: it is made again only when the locked versions or the package's metadata change.
$(VENV)/.uv: requirements/uv.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.uv requirements/demo.txt pyproject.toml
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/demo.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.uv requirements/dev.txt pyproject.toml
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/bench.txt
	@touch $@

demo: $(VENV)/.demo ## Train on real data, judge, serve over gRPC, recommend, take feedback (some minutes)
	$(BIN)/recsys demo

demo-experiment: $(VENV)/.dev ## Two arms, simulated users, their log, and the decision beside the known truth (5 minutes at most on 2 cores)
	$(BIN)/recsys experiment demo

# Several processes share the cores: with more threads each, they wait for each other.
test: export OPENBLAS_NUM_THREADS := 1
test: $(VENV)/.dev ## The whole default test suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.dev ## Style, formatting and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

proto: $(VENV)/.dev ## Generate twintower/v1 from proto/, and the client for threads from the one for asyncio
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. --grpc_python_out=. proto/twintower/v1/*.proto
	$(BIN)/python proto/blocking_client.py

lock: $(VENV)/.uv ## Write requirements/*.txt anew: pinned versions with hashes
	for extra in serve demo dev bench; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --extra $$extra \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-emit-package twintower-recsys \
	    --output-file requirements/$$extra.txt pyproject.toml || exit 1; \
	done

bench-train: $(VENV)/.bench ## Training speed against a plain loop, the TFRS tutorial model and LibRecommender
	$(BIN)/python -m benchmarks.train $(ARGS)

bench-index: $(VENV)/.bench ## Index speed at equal recall against faiss, hnswlib and usearch
	$(BIN)/python -m benchmarks.index $(if $(wildcard releases/*/manifest.json),--release releases) $(ARGS)

bench-filters: $(VENV)/.bench ## Recall and time of filtered search at five selectivities, plan by plan
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.filters $(ARGS)

bench-ssl: $(VENV)/.bench ## Self-supervised item towers on public data (RECSYS_DATA_DIR); hours, resumes by itself
	$(BIN)/python -m benchmarks.ssl $(ARGS)

bench-recommenders: $(VENV)/.bench ## Our two-tower beside other recommenders on public data (RECSYS_DATA_DIR); resumes by itself
	$(BIN)/python -m benchmarks.recommenders $(ARGS)

bench-order: $(VENV)/.bench ## The transformer over histories beside bags and RecTools' SASRec; resumes by itself
	$(BIN)/python -m benchmarks.order $(ARGS)

bench-untouched: $(VENV)/.bench ## `recsys init` and `recsys train`, nothing changed, on worlds of different shape; resumes by itself
	$(BIN)/python -m benchmarks.untouched $(ARGS)

bench-cold-items: $(VENV)/.bench ## Items held out of training, in one ranking with all others (RECSYS_DATA_DIR)
	$(BIN)/python -m benchmarks.cold_items $(ARGS)

bench-reformulation: $(VENV)/.bench ## What feedback gives at each depth, and whom it hurts (RECSYS_DATA_DIR); resumes by itself
	$(BIN)/python -m benchmarks.reformulation $(ARGS)

bench-experiment: $(VENV)/.bench ## False alarms, coverage and narrowing of the analysis of experiments; memory and time of a log
	$(BIN)/python -m benchmarks.experiment $(ARGS)

bench-exposures: $(VENV)/.bench ## What the log of exposures takes from NearestItems, and how fast it is written and compacted
	$(BIN)/python -m benchmarks.exposures $(ARGS)

bench-memory: $(VENV)/.bench ## Memory of training on 20 million interactions
	$(BIN)/python -m benchmarks.memory $(ARGS)

bench-catalogue: $(VENV)/.bench ## What changes to the items of a running server cost (ARGS=releases)
	$(BIN)/python -m benchmarks.catalogue $(ARGS)

bench-admission: $(VENV)/.bench ## A caller beside attackers that send nothing, and thousands of calls at once
	$(BIN)/python -m benchmarks.admission $(ARGS)

bench-work: $(VENV)/.bench ## An ordinary caller beside callers that send the largest requests and soon wait no more
	$(BIN)/python -m benchmarks.work $(ARGS)

fuzz: $(VENV)/.dev ## Nonsense to every RPC and in data files for MINUTES (5); ARGS="--seed N" repeats a round
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),5) $(ARGS)

bench-serving: $(VENV)/.bench ## The server under load, against an empty call, Chroma and Milvus Lite (h2load where installed)
	$(BIN)/python -m benchmarks.serving $(ARGS)

soak: $(VENV)/.bench ## 20 minutes of all calls while releases are swapped, items change and worker processes are killed
	$(BIN)/python -m benchmarks.soak $(ARGS)

clean: ## Remove what demo, tests and benchmarks leave behind (not the environment)
	rm -rf work releases .pytest_cache .ruff_cache .hypothesis .import_linter_cache build
