# The service as an image that serves the store in /store on port 8000.
#
#   docker build -t embedding-table-service .
#   docker build -t embedding-table-service:gpu --build-arg VARIANT=gpu .       ONNX Runtime with CUDA
#   docker build -t embedding-table-service:load --target load .                with locust and the load tests
#
# Layers go from what changes seldom to what changes often: bytecode, dependencies, the package, the shipped table.

ARG VARIANT=cpu

# What the service needs, as a virtual environment of wheels: nothing is compiled.
FROM python:3.13-slim AS dependencies
ARG VARIANT
ARG EXTRAS=grpc,keras,text,tracing
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml constraints.txt deploy/image/constraints-gpu.txt ./
# onnxruntime-gpu takes the place of onnxruntime: both write the same files. Said in the metadata, `pip check` knows.
RUN if [ "$VARIANT" = gpu ]; then \
      sed -i 's/"onnxruntime>=/"onnxruntime-gpu[cuda,cudnn]>=/' pyproject.toml \
      && sed -i 's/^onnxruntime==/onnxruntime-gpu==/' constraints.txt \
      && cat constraints-gpu.txt >> constraints.txt; \
    fi
RUN python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = p["optional-dependencies"]; wanted = [r for e in sys.argv[1].split(",") if e for r in extras[e]]; \
print(*p["dependencies"], *wanted, sep="\n")' "$EXTRAS" > requirements.txt
# Bytecode is made in the end, in a form that holds no times and is never looked at again.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --quiet --no-compile --only-binary :all: \
       --constraint constraints.txt --requirement requirements.txt \
    && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# The package, apart from its dependencies: a change of the code is a layer of its own, of some MB.
FROM dependencies AS package
RUN pip install --quiet setuptools==84.2.1
COPY README.md LICENSE ./
COPY service service
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/venv/bin/python install --quiet --no-deps --no-compile --no-warn-script-location --root /package /wheels/*.whl \
    && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /package /package/opt/venv/lib

FROM python:3.13-slim AS base
# The official image has no bytecode of the standard library, and a read-only container could never write any.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '(site|dist)-packages/|/(ensurepip|idlelib|test|tkinter)/' \
      "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
RUN groupadd --gid 10001 embedding \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent \
       --shell /usr/sbin/nologin embedding
# A drain of 6 s and the supervisor's 2 s of grace end within the 10 s that `docker stop` waits.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    EMBEDDING_STORE=/store \
    EMBEDDING_HOST=0.0.0.0 \
    EMBEDDING_PORT=8000 \
    EMBEDDING_DRAIN_SECONDS=6
COPY --from=dependencies /opt/venv /opt/venv
COPY deploy/image/healthcheck.py /opt/healthcheck.py
COPY --from=package /package/opt/venv /opt/venv
COPY --chown=10001:10001 model_store /store
# Seeds a new named volume with the shipped table; in the working folder imports have room for temporary files.
VOLUME /store
WORKDIR /store
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Readiness, since `depends_on` and people ask for it, and Docker restarts nothing for being unhealthy.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-I", "-S", "/opt/healthcheck.py"]
# Exec form: the supervisor is process 1 and gets the signal.
ENTRYPOINT ["embedding-service"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="Embedding table service" \
      org.opencontainers.image.description="Serves trained embedding tables: token ids in, vectors and masks out." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

FROM base AS service-cpu

# Where the NVIDIA container runtime gives it a device, that is used; elsewhere the processor.
FROM base AS service-gpu
ENV EMBEDDING_BACKEND=onnx \
    EMBEDDING_PROVIDERS=auto \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM service-${VARIANT} AS load
USER 0:0
COPY constraints.txt /load/
RUN pip --python /opt/venv/bin/python install --quiet --no-cache-dir --only-binary :all: \
      --constraint /load/constraints.txt locust
COPY load_tests /load/load_tests
WORKDIR /load
USER 10001:10001
EXPOSE 8089
HEALTHCHECK NONE
ENTRYPOINT ["locust"]
CMD ["-f", "load_tests/locustfile.py"]

# The last one is what `docker build` makes.
FROM service-${VARIANT} AS service
