# recurd as a container: docker build --tag recurd .
# Nothing is written but /tmp; run it with a read-only root. State, weights and offsets are topics of Kafka.
FROM python:3.11-slim-bookworm AS build

# An extra index for pip, such as one that serves a CPU build of torch of the pinned version: it saves four gigabytes.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/recurd
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY config config
COPY models models
COPY daemon daemon
RUN /opt/recurd/bin/pip install --constraint constraints.txt .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/recurd /opt/recurd
ENV PATH=/opt/recurd/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RECURD_LOG__FORMAT=json \
    RECURD_HTTP__HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 9464
# As liveness: never unhealthy because Kafka is away.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/livez', timeout=4)"]
ENTRYPOINT ["recurd"]
CMD ["serve"]
