# Where ROS 2 is sourced, that one is used. Elsewhere ROS_DISTRO says which one to install, and one
# other than jazzy that is named on the command line gets an environment of its own.
ROS_DISTRO ?= jazzy
PYTHON ?= python3
DEMO_SECONDS ?= 10

VENV := .venv
ifeq ($(origin ROS_DISTRO),command line)
ifneq ($(ROS_DISTRO),jazzy)
VENV := .venv-$(ROS_DISTRO)
endif
endif

ENVIRONMENT := $(PYTHON) tools/ros_env/environment.py --distro $(ROS_DISTRO) --venv $(VENV) --extras

.PHONY: env demo readme test test-nodes clean

env:
	@$(ENVIRONMENT) evaluate

demo: env
	$(VENV)/bin/mbnet demo test/data/sample_drive --seconds $(DEMO_SECONDS)

# The tables of topics, services and parameters in README.md.
readme: env
	$(VENV)/bin/python -m mbnet_perception.nodes.surface README.md

test:
	@$(ENVIRONMENT) train,test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

# The tests that need ROS 2, without those that need torch.
test-nodes:
	@$(ENVIRONMENT) evaluate,test
	$(VENV)/bin/python -m pytest test/nodes

clean:
	rm -rf .venv .venv-* build demo_out
