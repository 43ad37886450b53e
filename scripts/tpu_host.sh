#!/usr/bin/env bash
# What scripts/tpu.sh runs on every TPU host.
#
#   tpu_host.sh install DATA     the packages, and DATA (gs://..., or "") to ~/cifar-jax/data
#   tpu_host.sh run ARGUMENTS    main.py, or, where it runs already, the sight of it; exits as it does
#
# main.py outlives the connection: a laptop may sleep, and gcloud repeats a command whose connection
# broke. The lock is held for as long as anything of the run lives.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=~/cifar-jax

case $1 in
    install)
        # The images bring Python 3.10, jax needs 3.11: uv brings its own.
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
            echo "error: this TPU is busy with main.py $(<"$home/command"): wait, or delete it" >&2
            exit 2
        fi
        exec 9>&-
        tail --pid="$(<"$home/pid")" --sleep-interval=0.2 -n 20 -f "$home/log"
        exit "$(cat "$home/status" || echo 1)" # none: killed before it could tell
        ;;
    hold)
        shift
        status=0
        .venv/bin/python main.py "$@" || status=$?
        echo "$status" >"$home/status"
        ;;
esac
