#!/usr/bin/env bash
# Trains on a Cloud TPU, spot by default, until the run is finished. See docs/tpu.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Usage: scripts/tpu.sh COMMAND [--SETTING=VALUE ...] [--dry-run] [-- ARGUMENTS OF main.py]

  create    request the TPU and wait until it is ready
  run       train until the run is finished; requests the TPU if there is none, and again after
            each preemption; if the run is already in progress, follows its output
  resume    like run, but only if the workdir already has a run
  logs      follow the output of main.py on one host until it ends
  delete    delete the TPU, which stops its costs; the workdir stays

Every command is safe to repeat. Ctrl-C does not stop the run.
--dry-run only prints the commands, as if there were no TPU yet and nothing failed.

setting                 environment           default
--workdir=gs://...      TPU_WORKDIR           none; required by run and resume
--config=FILE           TPU_CONFIG            configs/final.py
--data=gs://...         TPU_DATA              none; a CIFAR-10 archive to copy to every host;
                                              without it each host downloads, slowly
--name=NAME             TPU_NAME              cifar-jax
--project=ID            TPU_PROJECT           gcloud's default
--zone=ZONE             TPU_ZONE              us-east5-b
--accelerator-type=TYPE TPU_ACCELERATOR_TYPE  v6e-8: one host; v6e-16 has four
--runtime-version=NAME  TPU_RUNTIME_VERSION   the JAX version for that type
--spot=yes|no           TPU_SPOT              yes: cheaper, but may be preempted at any time
--internal-ips=yes|no   TPU_INTERNAL_IPS      no; yes: no public addresses, reach it from the VPC
--delete-when-done=yes|no                     no; yes: run and resume delete the TPU at the end
--retries=N             TPU_RETRIES           3 failures in a row; preemptions do not count
--poll=SECONDS          TPU_POLL              30 between two checks of the queue
--worker=N                                    0; the host whose output logs shows

Exit status: 0 done; 1 gave up, see the messages of gcloud or main.py above; 2 wrong input.
END
}

say() { echo "tpu.sh: $*" >&2; }
die() { # STATUS MESSAGE...
    echo "error: ${*:2}" >&2
    exit "$1"
}

# ------------------------------------------------------------------------------ settings
command="" dry_run=no delete_when_done=no worker=0
workdir=${TPU_WORKDIR:-}
config=${TPU_CONFIG:-configs/final.py}
data=${TPU_DATA:-}
name=${TPU_NAME:-cifar-jax}
project=${TPU_PROJECT:-}
zone=${TPU_ZONE:-us-east5-b}
accelerator_type=${TPU_ACCELERATOR_TYPE:-v6e-8}
runtime_version=${TPU_RUNTIME_VERSION:-}
spot=${TPU_SPOT:-yes}
internal_ips=${TPU_INTERNAL_IPS:-no}
retries=${TPU_RETRIES:-3}
poll=${TPU_POLL:-30}
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --dry-run) dry_run=yes ;;
        --) shift && break ;;
        --workdir=* | --config=* | --data=* | --name=* | --project=* | --zone=* | --worker=* | \
            --accelerator-type=* | --runtime-version=* | --spot=* | --internal-ips=* | \
            --delete-when-done=* | --retries=* | --poll=*)
            setting=${1%%=*} && setting=${setting#--}
            printf -v "${setting//-/_}" %s "${1#*=}"
            ;;
        create | run | resume | logs | delete)
            [[ -z $command ]] || die 2 "both $command and $1: one command at a time"
            command=$1
            ;;
        *) die 2 "unknown argument $1: see scripts/tpu.sh --help" ;;
    esac
    shift
done

[[ -n $command ]] || die 2 "no command: create, run, resume, logs or delete; see --help"
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || die 2 "--name=$name: use lower-case letters, digits and hyphens"
for setting in spot internal_ips delete_when_done; do
    [[ ${!setting} =~ ^(yes|no)$ ]] || die 2 "--${setting//_/-}=${!setting}: must be yes or no"
done
for setting in retries poll worker; do
    [[ ${!setting} =~ ^[0-9]+$ ]] || die 2 "--$setting=${!setting}: must be a whole number"
done
if [[ -z $runtime_version ]]; then # cloud.google.com/tpu/docs/runtimes
    case $accelerator_type in
        v6e-*) runtime_version=v2-alpha-tpuv6e ;;
        v5p-*) runtime_version=v2-alpha-tpuv5 ;;
        v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
        v[234]-*) runtime_version=tpu-ubuntu2204-base ;;
        *) die 2 "--accelerator-type=$accelerator_type is unknown: pass --runtime-version as well" ;;
    esac
fi
if [[ $command == run || $command == resume ]]; then
    [[ $workdir == gs://*/* ]] || die 2 "--workdir=$workdir: must be gs://BUCKET/RUN, because every host writes to it"
    [[ -z $data || $data == gs://*/*.tar.gz ]] || die 2 "--data=$data: must be like gs://BUCKET/cifar-10-binary.tar.gz"
    [[ -f ${config%%:*} ]] || die 2 "--config=$config: no such file"
    [[ -z $(git status --porcelain) ]] || die 2 "the TPU runs the last commit: commit your changes first"
fi
command -v gcloud >/dev/null || die 2 "gcloud is missing: https://cloud.google.com/sdk/docs/install"

where=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")
node=(--node-id="$name" --accelerator-type="$accelerator_type" --runtime-version="$runtime_version")
[[ $spot == no ]] || node+=(--spot)
[[ $internal_ips == no ]] || node+=(--internal-ips)
reach=("${where[@]}" --quiet)
[[ $internal_ips == no ]] || reach+=(--internal-ip)
main_arguments=(--config="$config" --workdir="$workdir")
[[ -z $data ]] || main_arguments+=(--config.data.archive="~/cifar-jax/data/${data##*/}")
main_arguments+=("$@")
commit=$(git rev-parse HEAD)

# ------------------------------------------------------------------------------ commands
exec 3>&1 # --dry-run prints here, so that it also works inside $(...)

quoted() { # the arguments, quoted for a shell
    local word
    for word; do
        # shellcheck disable=SC2001 # bash 3.2 of macOS gets these quotes wrong in ${//}
        case $word in
            "" | *[!A-Za-z0-9_@%+=:,./-]*) printf "'%s' " "$(sed "s/'/'\\\\''/g" <<<"$word")" ;;
            *) printf '%s ' "$word" ;;
        esac
    done | sed 's/ $//'
}

call() { # runs a command, or prints it
    if [[ $dry_run == yes ]]; then { quoted "$@" && echo; } >&3; else "$@"; fi
}

ssh_all() { call gcloud compute tpus tpu-vm ssh "$name" "${reach[@]}" --worker=all --command="$1"; }

assumed="" # the state of the TPU in a dry run

# Prints "" for no TPU, READY, PREEMPTED, or the state in the queue with its reason.
state() {
    local queued vm
    queued=$(call gcloud compute tpus queued-resources list "${where[@]}" \
        --filter="name~/$name\$" --format="value(state.state,state.failedData.error.message)") || return
    [[ $dry_run == no ]] || queued=$assumed
    if [[ $queued == ACTIVE* ]]; then # the VM list shows a preemption before the queue does
        vm=$(call gcloud compute tpus tpu-vm list "${where[@]}" \
            --filter="name~/$name\$" --format="value(state)") || return
        [[ $dry_run == no ]] || vm=READY
        [[ $vm != TERMINATED ]] || vm=PREEMPTED
        queued=${vm:-ACTIVE}
    fi
    echo "$queued"
}

request() {
    call gcloud compute tpus queued-resources create "$name" "${where[@]}" "${node[@]}" --quiet || return
    assumed=ACTIVE
}

remove() {
    call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

delete_tpu() {
    local now
    now=$(state) || die 1 "gcloud does not say whether $name exists"
    [[ -n $now ]] || { say "no TPU $name in $zone" && return; }
    remove || { now=$(state) && [[ -z $now ]]; } || die 1 "could not delete $name: it may still cost money"
}

failures=0
failed() {
    failures=$((failures + 1))
    say "$* ($failures in a row)"
}

# Returns when the TPU is ready. Deletes requests that have ended, because they still use quota.
ensure() {
    local now previous=-
    while true; do
        now=$(state) || now=UNKNOWN
        [[ $now == "$previous" ]] || say "$name: ${now:-does not exist}"
        previous=$now
        [[ $now != SUSPENDED* && $now != PREEMPTED ]] || failures=0
        ((failures <= retries)) || die 1 "gave up after $failures failures in a row: see above, and docs/tpu.md"
        case $now in
            READY) return ;;
            "") request || failed "the request was refused" ;;
            FAILED*) failed "the request failed" && { remove || failed "and could not be deleted"; } ;;
            SUSPENDED* | PREEMPTED) remove || failed "the preempted TPU could not be deleted" ;;
            UNKNOWN) failed "gcloud does not answer" ;;
        esac
        [[ $dry_run == yes ]] || sleep "$poll"
    done
}

# Whether the workdir has this file.
holds() {
    local found
    found=$(call gcloud storage objects list "$workdir/$1" --format="value(name)") ||
        die 2 "cannot list $workdir: make the bucket, or log in (docs/tpu.md)"
    [[ -n $found ]]
}

# Installs the last commit and its packages on every host before main.py starts on any.
set_up() {
    local source=cifar-jax/$commit
    call mkdir -p .cache || return
    call git bundle create -q .cache/source.bundle HEAD || return
    call gcloud compute tpus tpu-vm scp .cache/source.bundle "$name:cifar-jax.bundle" "${reach[@]}" --worker=all || return
    ssh_all "test -d $source || { rm -rf cifar-jax/part && git -c advice.detachedHead=false clone -q cifar-jax.bundle cifar-jax/part && mv cifar-jax/part $source; } && $source/scripts/tpu_host.sh install $(quoted "$data")"
}

train() {
    local status
    [[ $delete_when_done == no ]] || trap delete_tpu EXIT
    [[ $command == run ]] || holds config.json || [[ $dry_run == yes ]] ||
        die 2 "no run to resume in $workdir: use run to start one, or correct --workdir"
    if holds result.json; then
        say "$workdir has a finished run; use another --workdir for another config"
        return
    fi
    while true; do
        ensure
        status=1
        if set_up; then
            status=0
            ssh_all "cifar-jax/$commit/scripts/tpu_host.sh run $(quoted "${main_arguments[@]}")" || status=$?
        fi
        case $status in
            0) break ;;
            2) die 2 "main.py refused its input, see above: correct it and run again" ;;
            75) failures=0 && say "interrupted and saved: continuing" ;;
            *) failed "main.py ended with status $status" ;;
        esac
        [[ $dry_run == yes ]] || sleep "$poll"
    done
    say "finished: $workdir"
    [[ $delete_when_done == yes ]] || say "the TPU still costs money: delete it with scripts/tpu.sh delete"
}

trap 'trap - EXIT; say "detached: the run continues and costs money; use resume to follow it, delete to stop it"; exit 130' INT TERM HUP
case $command in
    create) ensure ;;
    run | resume) train ;;
    delete) assumed=ACTIVE && delete_tpu ;;
    logs)
        assumed=ACTIVE
        [[ $(state) == READY ]] || die 2 "no TPU $name in $zone is ready; the results of a run are in its workdir"
        # shellcheck disable=SC2016 # the host expands it
        call gcloud compute tpus tpu-vm ssh "$name" "${reach[@]}" --worker="$worker" \
            --command='tail -n 100 -f --pid=$(cat cifar-jax/pid) cifar-jax/log'
        ;;
esac
