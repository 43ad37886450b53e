#!/usr/bin/env bash
# scripts/tpu.sh runs this on every TPU host.
#
#   tpu_host.sh install DATA     installs the packages; copies DATA (gs://... or "") to ~/cifar-jax/data
#   tpu_host.sh run ARGUMENTS    starts main.py, or follows it if it already runs; same exit status
#
# main.py outlives the connection: a laptop may sleep, and gcloud repeats a command whose connection
# broke. The lock is held as long as any process of the run lives.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=~/cifar-jax

case $1 in
    install)
        # The images have Python 3.10, but jax needs 3.11: uv installs its own.
        uv=~/.local/bin/uv
        [[ -x $uv ]] || curl -LsSf https://astral.sh/uv/0.13.9/install.sh | sh
        [[ -x .venv/bin/python ]] || "$uv" venv --quiet --python 3.12
        "$uv" pip install --quiet -r requirements-tpu.txt
        data=$home/data/$(basename "$2")
        if [[ -n $2 && ! -f $data ]]; then
            mkdir -p "$home/data"
            .venv/bin/python -c 'import sys, pathlib; from etils import epath
pathlib.Path(sys.argv[2]).write_bytes(epath.Path(sys.argv[1]).read_bytes())' "$2" "$data.part"
            mv "$data.part" "$data"
        fi
        ;;
    run)
        shift
        exec 9>>"$home/lock"
        if flock --nonblock 9; then
            echo "$*" >"$home/command"
            rm -f "$home/status"
            : >"$home/log"
            setsid scripts/tpu_host.sh hold "$@" >>"$home/log" 2>&1 </dev/null &
            echo $! >"$home/pid"
        elif [[ $(<"$home/command") != "$*" ]]; then
            echo "error: this TPU is busy with main.py $(<"$home/command"): wait, or delete the TPU" >&2
            exit 2
        fi
        exec 9>&-
        tail --pid="$(<"$home/pid")" --sleep-interval=0.2 -n 20 -f "$home/log"
        exit "$(cat "$home/status" || echo 1)" # no status: it was killed
        ;;
    hold)
        shift
        status=0
        .venv/bin/python main.py "$@" || status=$?
        echo "$status" >"$home/status"
        ;;
esac
