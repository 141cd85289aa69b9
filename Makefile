# The short front door; everything it does is a line or two of cmake or of scripts/.
PREFIX       ?= /usr/local
BUILD        ?= build
FUZZ_SECONDS ?= 60

.PHONY: all deps test-deps demo test quick-test bench figures-main figures-engine figures-nets figures-evidence figures-embedded fuzz install format clean help

all: $(BUILD)/configured
	@cmake --build $(BUILD)

help:
	@echo "make            build the tool and the libraries into $(BUILD)/"
	@echo "make demo       install what is missing, build, train and compile a first program"
	@echo "make test       everything that checks this tree; last line: passed, failed, skipped"
	@echo "make quick-test the checks and tests without the sanitized build"
	@echo "make bench      measure the demo's program against its peers; draws $(BUILD)/bench.html"
	@echo "make fuzz       every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)"
	@echo "make install    to PREFIX=$(PREFIX), below DESTDIR if given"
	@echo "make figures-main, figures-engine, figures-nets, figures-evidence, figures-embedded"
	@echo "                the figures quoted in the documentation"
	@echo "make deps, make format, make clean"

$(BUILD)/configured:
	@cmake -S . -B $(BUILD) $(if $(shell command -v ninja),-G Ninja) -DNIMBUS_TESTS=OFF \
	    -DNIMBUS_WERROR=OFF || { echo "\"make deps\" installs what is missing"; exit 1; }
	@touch $@

deps:
	@scripts/install-deps build

test-deps:
	@scripts/install-deps build test

demo: deps
	@$(MAKE) --no-print-directory all
	@$(BUILD)/nimbus demo

test: test-deps
	@BUILD=$(BUILD) scripts/run-tests full

quick-test: test-deps
	@BUILD=$(BUILD) scripts/run-tests quick

bench: deps
	@$(MAKE) --no-print-directory all
	@test -f build/demo/digits.nimbus || $(BUILD)/nimbus demo
	@$(BUILD)/nimbus bench --html $(BUILD)/bench.html $(if $(wildcard bench/ort/node_modules),--ort)

figures-main figures-evidence: test-deps
	@$(MAKE) --no-print-directory all
	@scripts/$@

# ONNX Runtime joins the peers where npm can install it, PyTorch where Debian's python3-torch is.
figures-engine figures-nets: test-deps
	@$(MAKE) --no-print-directory all
	@test -d bench/ort/node_modules || npm ci --prefix bench/ort || echo "no ONNX Runtime as a peer"
	@scripts/$@

figures-embedded: test-deps
	@scripts/install-deps embedded
	@$(MAKE) --no-print-directory all
	@scripts/$@

fuzz: test-deps
	@BUILD=$(BUILD) scripts/run-fuzz $(FUZZ_SECONDS)

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	@rm -rf $(BUILD)
