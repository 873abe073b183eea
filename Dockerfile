# The aggregator and the members run from this one image. Nothing but Python and the packages of requirements.lock.
#   docker build -t choral .
# BASE: another Python, e.g. --build-arg BASE=python:3.13-slim or one of your own registry.
# EXTRAS: what your own trainers need, of locks/: "sklearn", "torch", "pictures", or several with blanks between.
# PIP_INDEX_URL and the secret pip_ca (a PEM file): for whoever builds behind a package index of their own.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG PIP_INDEX_URL=""
WORKDIR /src
COPY requirements.lock ./
RUN --mount=type=secret,id=pip_ca \
    if [ -s /run/secrets/pip_ca ]; then export PIP_CERT=/run/secrets/pip_ca; fi; \
    if [ -z "$PIP_INDEX_URL" ]; then unset PIP_INDEX_URL; fi; \
    python -m venv --without-pip /opt/choral && \
    pip --disable-pip-version-check --python /opt/choral/bin/python install --no-cache-dir --no-compile \
        --only-binary :all: --no-deps --require-hashes -r requirements.lock && \
    find /opt/choral -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + && \
    /opt/choral/bin/python -m compileall -q -j 0 /opt/choral/lib
# python-mnist always, which `choral data from-mnist` reads with. Torch for Linux has no hashes: locks/torch-linux.lock.
COPY locks ./locks
ARG EXTRAS=""
RUN --mount=type=secret,id=pip_ca \
    if [ -s /run/secrets/pip_ca ]; then export PIP_CERT=/run/secrets/pip_ca; fi; \
    if [ -z "$PIP_INDEX_URL" ]; then unset PIP_INDEX_URL; fi; \
    for extra in mnist $EXTRAS; do \
        for lock in "$extra" "$extra-linux"; do \
            if [ "$lock" = "$extra" ] || [ -e "locks/$lock.lock" ]; then \
                pip --disable-pip-version-check --python /opt/choral/bin/python install --no-cache-dir --no-compile \
                    --only-binary :all: --no-deps -r "locks/$lock.lock" || exit 1; \
            fi; \
        done; \
    done; \
    /opt/choral/bin/python -m compileall -q -j 0 /opt/choral/lib
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# what only builds the package is in the lock file as well: it is used here and not taken along
RUN pip --disable-pip-version-check --python /opt/choral/bin/python install --no-cache-dir --no-compile \
        --no-deps --no-build-isolation --no-index . && \
    pip --disable-pip-version-check --python /opt/choral/bin/python uninstall -q -y \
        hatchling editables pathspec pluggy trove-classifiers packaging && \
    /opt/choral/bin/python -m compileall -q /opt/choral/lib/python*/site-packages/choral

FROM ${BASE}
# A volume that is mounted over one of these folders for the first time takes its owner from it.
# /provision is where the one-shot `provision` of docker-compose.yml has the volumes of all participants.
RUN set -eu; \
    groupadd --gid 10001 choral; \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin choral; \
    install -d -o 10001 -g 10001 -m 0750 /etc/choral /var/lib/choral /data /provision; \
    for name in aggregator ca 1 2 3 4 5 6 7 8; do \
        install -d -o 10001 -g 10001 -m 0700 "/provision/$name" "/provision/shard-$name"; \
    done
COPY --from=build /opt/choral /opt/choral
# /etc/choral: one participant's folder of `choral init`, read-only; /var/lib/choral: its state
ENV PATH=/opt/choral/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CHORAL_FOLDER=/etc/choral \
    CHORAL_STATE=/var/lib/choral
USER 10001:10001
WORKDIR /data
EXPOSE 8750
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "choral.ping"]
ENTRYPOINT ["choral"]
CMD ["serve", "/etc/choral"]
ARG VERSION=0.2.0
ARG REVISION=""
LABEL org.opencontainers.image.title="choral" \
      org.opencontainers.image.description="Federated learning in which the aggregator learns only the sum of its members' updates" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
