# Two images from one file: `web` shows pages and needs no torch; `worker` is the same with torch, and trains.
#   docker build --target web -t preflab-web .
#   docker build --target worker -t preflab-worker .

FROM python:3.11-slim AS web
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PREFLAB_HOME=/data
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY training training
COPY templates templates
COPY static static
COPY alembic alembic
RUN pip install --constraint constraints.txt . \
    && useradd --create-home --uid 1000 preflab \
    && install --directory --owner preflab --mode 700 /data
WORKDIR /home/preflab
USER preflab
VOLUME /data
EXPOSE 8321
CMD ["preflab", "up"]

FROM web AS worker
USER root
RUN cd /src && pip install --constraint constraints.txt '.[train]'
USER preflab
ENV HF_HOME=/data/hub
CMD ["preflab", "worker"]
