# The whole flow on a CPU with a tiny model, to try a container set-up without a GPU. Build from the repository root:
#   docker build -f docker/smoke.Dockerfile -t sales-rag-smoke .
FROM python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

# g++ and libnuma are vLLM's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 procps \
    && rm -rf /var/lib/apt/lists/*

# A place with the CPU build of torch; without one pip takes the public build, which brings gigabytes of CUDA libraries.
WORKDIR /app
ARG PIP_EXTRA_INDEX_URL=""
COPY pyproject.toml README.md LICENSE ./
COPY requirements/cpu.lock requirements/create_environment.sh requirements/
COPY verl_cpu/vllm_metadata verl_cpu/vllm_metadata/
RUN UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 bash requirements/create_environment.sh

RUN if ! getent passwd 1000; then useradd --uid 1000 --create-home trainer; fi \
    && mkdir -p outputs && chown 1000:1000 outputs
COPY . .
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONPATH=/app
USER 1000:1000
# Healthy while the retrieval service of the flow answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sales-rag-smoke" \
      org.opencontainers.image.description="The query rewriter's quick start on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
CMD ["bash", "examples/quickstart.sh", "--steps", "2", "--sft-epochs", "1"]
