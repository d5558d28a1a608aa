# Prometheus from its Debian package, for a host on which no image registry answers (see setup.sh).
# Takes the same arguments and the same configuration file as the upstream image.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["prometheus"]
