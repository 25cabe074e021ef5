# Everything a developer or a newcomer types. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_FORCE_COLOR ?= 0
lab_debian ?= $(or $(LAB_DEBIAN),13)
lab_guest ?= $(or $(LAB_GUEST),pvh)
export LAB_DEBIAN := $(lab_debian)
export LAB_GUEST := $(lab_guest)
lab_witness ?= $(or $(LAB_WITNESS),false)
export LAB_WITNESS := $(lab_witness)
lab_bmc ?= $(or $(LAB_BMC),false)
export LAB_BMC := $(lab_bmc)
lab_hosts ?= $(or $(LAB_HOSTS),xen)
export LAB_HOSTS := $(lab_hosts)

.PHONY: help setup verifier demo test test-all test-failovers check lint lint-python lint-ansible unit lab-test lab-up lab-down bench bench-disks bench-failovers bench-streams completion docs collection requirements clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: ## Install what is missing: Debian packages and the virtual environment .venv
	@tools/setup.sh

verifier: setup ## Fetch Xen's own checker of streams, real fence agents and Prometheus, which tests/conformance needs
	@[[ -x .venv/share/xen/bin/verify-stream-v2 || -n "$${REMUS_VERIFY_STREAM:-}$${REMUS_WITHOUT_VERIFIER:-}" ]] \
		|| tools/fetch_verifier.sh .venv/share/xen \
		|| echo "verifier: tests/conformance fails without it; REMUS_WITHOUT_VERIFIER=1 leaves out what needs it" >&2
	@[[ -x .venv/share/fence/fence_dummy && -x .venv/share/fence/fence_ipmilan || -n "$${REMUS_WITHOUT_VERIFIER:-}" \
			|| ( -n "$${REMUS_FENCE_DUMMY:-}" && -n "$${REMUS_FENCE_IPMILAN:-}" ) ]] \
		|| tools/fetch_fence_agents.sh .venv/share/fence \
		|| echo "verifier: tests/conformance fails without it; REMUS_WITHOUT_VERIFIER=1 leaves out what needs it" >&2
	@[[ -x .venv/share/prometheus/promtool || -n "$${REMUS_PROMETHEUS:-}$${REMUS_WITHOUT_VERIFIER:-}" ]] \
		|| tools/fetch_prometheus.sh .venv/share/prometheus \
		|| echo "verifier: tests/conformance fails without it; REMUS_WITHOUT_VERIFIER=1 leaves out what needs it" >&2

demo: setup ## Show the main job: a guest under load survives the death of its host
	@python -u tools/demo.py

test: setup verifier ## Run all tests: the fast ones, then every scenario on two nested Xen hosts (up to an hour)
	@python -u tools/run_tests.py $(if $(test_from),--from "$(test_from)")

test-all: setup verifier ## Every lab test and every scenario, through Ansible alone (several hours; test_from="scenario drill" goes on from there)
	@python -u tools/run_tests.py --all $(if $(test_from),--from "$(test_from)")

test-failovers: setup ## Run the failover of every type of guest on nested hosts (lab_debian=13 or 12; lab_guests="hvm pv" for some types only)
	@python -u tools/run_tests.py --failovers $(lab_guests)

check: setup lint unit ## Run the fast part alone: lint, types, contracts, unit, property and model tests

lint: lint-python lint-ansible ## Check style, types, import contracts and Ansible content

lint-python: setup ## Check style (YAML's too), types and import contracts
	@yamllint --strict .
	@ruff check .
	@ruff format --check .
	@mypy
	@mypy --package tests.model --package tests.formal
	@lint-imports --no-logo 2>/dev/null || lint-imports

lint-ansible: setup ## Check Ansible content
	@ansible-lint -q

unit: setup verifier ## Run the fast tests: unit, property and model
	@python -m pytest -n auto -m "not lab and not playbooks"

lab-up: setup ## Boot two nested Xen hosts (lab_debian=13 or 12, lab_guest=pvh, hvm or pv; also for all of the above; lab_witness=true: and a witness; lab_bmc=true: and a BMC for each host; lab_hosts=bare: plain Debian without Xen)
	@ansible-playbook playbooks/lab.yml -e lab_state=present

lab-down: setup ## Stop what lab-up started
	@ansible-playbook playbooks/lab.yml -e lab_state=absent

bench: setup ## Measure against stock `xl remus` on the lab; raw data under results/
	@ansible-playbook playbooks/bench.yml

bench-disks: setup ## Measure a guest's disk with fio against the bare device and DRBD on the lab; raw data under results/
	@python tests/bench/disk_speed.py

bench-failovers: setup ## Measure a failover phase by phase against stock `xl remus` on the lab, which gets a witness for it; raw data under results/
	@python -u tests/bench/failover_speed.py

bench-streams: setup ## Measure `remusctl stream` against cat and memcpy; raw data under results/
	@python tests/bench/stream_speed.py

completion: setup ## Write the shell completion of remusctl again, after a change of its arguments
	@python tools/shell_completion.py

docs: setup ## Write docs/modules again from the modules' own documentation
	@python tools/module_docs.py

collection: setup ## Build the Ansible collection remus.xen into dist/, and run what ansible-test sanity can check without downloads
	@python tools/build_collection.py --sanity

requirements: setup ## Resolve requirements/dev.in and controller.in into exact versions with hashes
	@python -m pip install --quiet uv
	@python -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q \
		requirements/dev.in -o requirements/dev.txt
	@python -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q \
		requirements/controller.in -o requirements/controller.txt

clean: ## Remove the virtual environment and what tests have left (not the lab; see lab-down)
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache results dist
