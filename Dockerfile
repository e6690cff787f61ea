# syntax=docker/dockerfile:1
# Two images of the service, `docker build --target cpu .` and `--target gpu`. They hold bundle/, control/, service/ and
# adrank.py, and what those need, by hash. Bundles are mounted at /bundles, never built in: see docker-compose.yml.
# Beside them `--target outcomes`, the collector, and `--target loadtest`, the load generator.
#
# The root file system may be read-only; /tmp must be writable (metrics of several workers, the state of a lone process).

ARG PYTHON_IMAGE=python:3.12-slim-bookworm
# cuDNN 9 on CUDA 12, which onnxruntime-gpu is built against; Ubuntu 24.04 brings Python 3.12.
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY deploy/requirements/cpu.txt /tmp/requirements.txt
RUN /opt/venv/bin/python -m pip install --no-deps --require-hashes --requirement /tmp/requirements.txt
COPY bundle /app/bundle
COPY control /app/control
COPY service /app/service
COPY adrank.py /app/adrank.py
RUN /opt/venv/bin/python -m compileall -q /opt/venv/lib /app

FROM ${PYTHON_IMAGE} AS cpu
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ADRANK_HOST=0.0.0.0 ADRANK_PORT=8000
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"ADRANK_PORT\"]}/readyz', timeout=1)"]
ENTRYPOINT ["python", "adrank.py"]
CMD ["serve"]

FROM ${CUDA_IMAGE} AS build-gpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3 python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && python3 -m venv /opt/venv
COPY deploy/requirements/gpu.txt /tmp/requirements.txt
RUN /opt/venv/bin/python -m pip install --no-deps --require-hashes --requirement /tmp/requirements.txt
COPY --from=build /app /app
RUN /opt/venv/bin/python -m compileall -q /opt/venv/lib

FROM ${CUDA_IMAGE} AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3 \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build-gpu /opt/venv /opt/venv
COPY --from=build-gpu /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ADRANK_HOST=0.0.0.0 ADRANK_PORT=8000 \
  ADRANK_PROVIDER=cuda
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"ADRANK_PORT\"]}/readyz', timeout=1)"]
ENTRYPOINT ["python", "adrank.py"]
CMD ["serve"]

FROM ${PYTHON_IMAGE} AS build-outcomes
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY deploy/requirements/outcomes.txt /tmp/requirements.txt
RUN /opt/venv/bin/python -m pip install --no-deps --require-hashes --requirement /tmp/requirements.txt
COPY bundle /app/bundle
COPY control /app/control
COPY outcomes /app/outcomes
COPY adrank.py /app/adrank.py
RUN /opt/venv/bin/python -m compileall -q /opt/venv/lib /app && mkdir /tmp/empty

FROM ${PYTHON_IMAGE} AS outcomes
COPY --from=build-outcomes /opt/venv /opt/venv
COPY --from=build-outcomes /app /app
# A volume that is mounted there for the first time takes over its owner.
COPY --from=build-outcomes --chown=10001:10001 /tmp/empty /outcomes
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "adrank.py"]
CMD ["outcomes", "--help"]

FROM ${PYTHON_IMAGE} AS build-loadtest
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY deploy/requirements/loadtest.txt /tmp/requirements.txt
RUN /opt/venv/bin/python -m pip install --no-deps --require-hashes --requirement /tmp/requirements.txt
COPY client /app/client
COPY loadtest /app/loadtest
COPY adrank.py /app/adrank.py
RUN /opt/venv/bin/python -m compileall -q /opt/venv/lib /app

FROM ${PYTHON_IMAGE} AS loadtest
COPY --from=build-loadtest /opt/venv /opt/venv
COPY --from=build-loadtest /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "adrank.py"]
CMD ["loadtest", "--help"]
