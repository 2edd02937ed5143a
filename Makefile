# "make" prints the verbs; each is one or two lines.
.PHONY: help check test race golden interop peers demo ci
PYTHON ?= python
PROGRAM ?= ./residual
help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile
check: ## format, vet, layout, short tests
	@test -z "$$(gofmt -l .)" || (gofmt -l .; exit 1)
	go vet ./... && go vet -tags purego ./... && GOARCH=arm64 go vet ./... && go test -short ./...
test: ## all tests
	go test ./...
race: ## the race detector, which needs cgo
	CGO_ENABLED=1 go test -race -short ./...
golden: ## how the golden files are remade, in Python
	@cat golden/README.md
interop: ## exported files in MODELS, run by PyTorch, onnxruntime and Keras on the CIFAR-10 in DATA, against ours
	python bench/interop.py $(MODELS) $(DATA)/cifar10
	RESIDUAL_INTEROP=$(abspath $(MODELS)) RESIDUAL_DATA=$(abspath $(DATA)) go test -count 1 -timeout 2h -run TestInterop -v ./format
peers: ## the tables of docs/performance.md: ./residual (PROGRAM) beside PyTorch, TensorFlow, oneDNN; goes on where it was
	$(PYTHON) bench/peers.py $(PROGRAM) $(ARGS) && $(PYTHON) bench/layers_onednn.py $(PROGRAM) $(ARGS)
	$(PYTHON) bench/memory.py $(PROGRAM) $(ARGS) && $(PYTHON) bench/pipeline.py $(PROGRAM) $(ARGS)
demo: ## the main job on generated pictures
	go run ./cmd/residual train
ci: ## all that CI does
	.ci/run
