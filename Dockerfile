# syntax=docker/dockerfile:1
# Two images: `docker build .` is the program, `docker build --target order-service .` the example service.
# With a list of what is inside: `docker buildx build --sbom=true --provenance=true .`; the build stage is scanned too, for the crates are there.
ARG RUST=1.95-bookworm
ARG DEBIAN=bookworm-slim
ARG BUILDKIT_SBOM_SCAN_STAGE=build

FROM rust:${RUST} AS build
ARG BUILDKIT_SBOM_SCAN_STAGE=build
# librdkafka and jemalloc are built from the bundled sources.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake libssl-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches stay on the builder: a second build compiles what changed. What leaves them is copied in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --workspace --bins \
    && mkdir /out \
    && for program in auditstream order-service; do objcopy --strip-debug "target/release/$program" "/out/$program"; done

FROM debian:${DEBIAN} AS runtime
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates libssl3 && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 auditstream && useradd --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin auditstream \
    && install --directory --owner 65532 --group 65532 /var/lib/auditstream
USER 65532:65532
STOPSIGNAL SIGTERM

FROM runtime AS order-service
COPY --from=build /out/order-service /usr/local/bin/order-service
WORKDIR /var/lib/auditstream
LABEL org.opencontainers.image.title="auditstream order-service" \
      org.opencontainers.image.description="A small audited shop: the example" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["/usr/local/bin/order-service"]

# Last, so that it is what is built when nobody says which.
FROM runtime AS auditstream
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=build /out/auditstream /usr/local/bin/auditstream
# What it was built of, for scanners that read a lock file.
COPY Cargo.lock /usr/share/auditstream/Cargo.lock
LABEL org.opencontainers.image.title="auditstream" \
      org.opencontainers.image.description="An audit trail over Kafka and ClickHouse: nothing lost, nothing double" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      auditstream.sbom="/usr/share/auditstream/Cargo.lock"
ENTRYPOINT ["/usr/local/bin/auditstream"]
