# The RAG service's image: CPU only, no torch. Build from the repository root:
#   docker build -f docker/rag.Dockerfile -t sales-rag-service .
FROM python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

WORKDIR /app
COPY requirements/rag.lock requirements/
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --quiet --no-cache-dir --no-deps --require-hashes -r requirements/rag.lock
RUN if ! getent passwd 1000; then useradd --uid 1000 --create-home rag; fi \
    && mkdir -p /data && chown 1000:1000 /data
COPY plain_text plain_text/
COPY guard guard/
COPY rag rag/
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONPATH=/app
USER 1000:1000
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sales-rag-service" \
      org.opencontainers.image.description="The retrieval service that the query rewriter is trained against" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
# An address that others reach needs an access key (python -m rag.manage_keys) or --auth off.
CMD ["python", "-m", "rag.serve", "--index", "/data", "--host", "0.0.0.0", "--port", "8000"]
