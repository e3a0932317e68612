# The build stage runs on the builder's own architecture; Go compiles for the target.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/querynode ./cmd/querynode
# A static binary needs nothing else but certificates for https, a user, and
# folders that this user may write to.
RUN mkdir -p /out/etc/ssl/certs /out/var/lib/querynode /out/tmp \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
 && echo 'querynode:x:65532:65532::/var/lib/querynode:/' > /out/etc/passwd \
 && echo 'querynode:x:65532:' > /out/etc/group \
 && chown -R 65532:65532 /out/var/lib/querynode && chmod 1777 /out/tmp

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="querynode" \
      org.opencontainers.image.description="The query node of a vector database" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/ /
# Outside the container its loopback is no one's. Who may reach the ports is said
# where they are published: see docs/operations.md. A configuration file beats these.
ENV QUERYNODE_DEFAULT_GRPC_LISTEN=0.0.0.0:19530 QUERYNODE_DEFAULT_ADMIN_LISTEN=0.0.0.0:9091
USER 65532:65532
WORKDIR /var/lib/querynode
VOLUME ["/var/lib/querynode"]
# 19530: gRPC. 9091: metrics, health, profiles.
EXPOSE 19530 9091
STOPSIGNAL SIGTERM
# The image has no shell: the binary asks its own health service. It answers
# "alive" here, also while it recovers or drains; readiness is the orchestrator's probe.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/querynode", "health", "--live"]
ENTRYPOINT ["/querynode"]
CMD ["serve"]
