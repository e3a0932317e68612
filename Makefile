# The same commands as in CI: .ci/run knows how, this file only names them.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: help build test race lint generate bench ci clean

help: ## this list
	@awk -F ': .*## ' '/^[a-z]+: .*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the static binary ./querynode
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o querynode ./cmd/querynode

test: ## all tests
	@.ci/run test

race: ## all tests under the race detector (needs a C compiler)
	@.ci/run race

lint: ## vet, staticcheck, gofmt, the rules of internal/lint, buf lint
	@.ci/run vet staticcheck gofmt lint proto

generate: ## the code that is generated: proto/ and the kernels of internal/vec
	go tool -modfile=tools/buf.mod buf generate
	go generate ./internal/vec/...

bench: ## every benchmark, briefly; compare runs with benchstat before you claim anything
	go test -run '^$$' -bench . -benchmem -benchtime 200ms ./...

ci: ## everything that CI runs
	@.ci/run

clean: ## what building and testing leave in the tree
	rm -f querynode *.test *.prof
