# The image: locked packages in one virtual environment, on any Python base that the site trusts.
#
# Both bases need the same python3 (3.11 or newer) at the same path; the second one needs only CA
# certificates in addition: no shell, no package manager, no writable file.
ARG BUILD_BASE=python:3.13-slim-bookworm
ARG RUN_BASE=python:3.13-slim-bookworm

FROM ${BUILD_BASE} AS build
ARG UV_VERSION=0.13.9
# The base's CAs, so that a site with its own CA only has to mount it there.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --quiet "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
# The packages are a layer of their own: they change less often than the product.
RUN UV_PROJECT_ENVIRONMENT=/opt/reconciler \
      /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --quiet \
    && UV_PROJECT_ENVIRONMENT=/opt/build \
      /opt/uv/bin/uv sync --frozen --only-group build --quiet
COPY README.md LICENSE CHANGELOG.md ./
COPY reconciler reconciler
# hatchling comes from the lock as well, so nothing is resolved here. pip installs the wheel, as uv
# writes the wheel's time next to it.
RUN /opt/uv/bin/uv build --wheel --no-build-isolation --python /opt/build/bin/python3 --quiet \
    && /opt/uv/bin/pip --python /opt/reconciler/bin/python3 install --no-deps --no-index --quiet \
      --no-compile --find-links dist runner-token-reconciler
# A root file system that is read-only keeps no bytecode. It is found by hash, without a look at the
# source, as the files of an image that is built again have other times. The client's models and
# APIs, half of all files, are never imported (kube/auth/_kubernetes_asyncio.py).
RUN /opt/reconciler/bin/python3 -m compileall -q --invalidation-mode unchecked-hash \
      -x 'kubernetes_asyncio/client/(api|models)/' /opt/reconciler

FROM ${RUN_BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="runner-token-reconciler" \
      org.opencontainers.image.description="Keeps the short-lived token of every runner pod valid in its Kubernetes Secret" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/reconciler /opt/reconciler
ENV PATH=/opt/reconciler/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["reconciler"]
CMD ["run"]
