#!/usr/bin/env bash
# Trains on a Cloud TPU, spot by default, until the run is finished. docs/tpu.md walks through it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Usage: scripts/tpu.sh COMMAND [--SETTING=VALUE ...] [--dry-run] [-- ARGUMENTS OF main.py]

  create    ask for the TPU and wait until it is ready
  run       train until the run is finished; asks for the TPU where there is none, and again
            after each preemption; follows a run that is already under way
  resume    the same, for a run that has begun: refuses a workdir that holds none
  logs      what main.py prints on one host, until it ends
  delete    give the TPU back, which ends its costs; the workdir stays

Every command can be repeated: what is already so is left so. Ctrl-C leaves the run going.
--dry-run prints the commands, as if there were no TPU yet and nothing failed, and runs none.

setting                 environment           default
--workdir=gs://...      TPU_WORKDIR           none: run and resume need one
--config=FILE           TPU_CONFIG            configs/final.py
--data=gs://...         TPU_DATA              none: a CIFAR-10 archive, copied to every host;
                                              without it each host downloads, slowly
--name=NAME             TPU_NAME              cifar-jax
--project=ID            TPU_PROJECT           gcloud's own
--zone=ZONE             TPU_ZONE              us-east5-b
--accelerator-type=TYPE TPU_ACCELERATOR_TYPE  v6e-8: one host; v6e-16 has four
--runtime-version=NAME  TPU_RUNTIME_VERSION   the one for JAX on that type
--spot=yes|no           TPU_SPOT              yes: cheaper, preempted at any time
--internal-ips=yes|no   TPU_INTERNAL_IPS      no; yes: no public addresses, reached from the VPC
--delete-when-done=yes|no                     no; yes: run and resume give the TPU back at their end
--retries=N             TPU_RETRIES           3 failures in a row, preemptions not counted
--poll=SECONDS          TPU_POLL              30 between two looks at the queue
--worker=N                                    0: the host that logs shows

Exit status: 0 done; 1 gave up, gcloud's or main.py's words are above; 2 a mistake to mend first.
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
        *) die 2 "$1 is not understood: see scripts/tpu.sh --help" ;;
    esac
    shift
done

[[ -n $command ]] || die 2 "no command: create, run, resume, logs or delete; see --help"
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || die 2 "--name=$name: lower-case letters, digits, hyphens"
for setting in spot internal_ips delete_when_done; do
    [[ ${!setting} =~ ^(yes|no)$ ]] || die 2 "--${setting//_/-}=${!setting}: say yes or no"
done
for setting in retries poll worker; do
    [[ ${!setting} =~ ^[0-9]+$ ]] || die 2 "--$setting=${!setting}: a whole number is needed"
done
if [[ -z $runtime_version ]]; then # cloud.google.com/tpu/docs/runtimes
    case $accelerator_type in
        v6e-*) runtime_version=v2-alpha-tpuv6e ;;
        v5p-*) runtime_version=v2-alpha-tpuv5 ;;
        v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
        v[234]-*) runtime_version=tpu-ubuntu2204-base ;;
        *) die 2 "--accelerator-type=$accelerator_type is not known here: add --runtime-version" ;;
    esac
fi
if [[ $command == run || $command == resume ]]; then
    [[ $workdir == gs://*/* ]] || die 2 "--workdir=$workdir: every host writes there, so gs://BUCKET/RUN"
    [[ -z $data || $data == gs://*/*.tar.gz ]] || die 2 "--data=$data: gs://BUCKET/cifar-10-binary.tar.gz"
    [[ -f ${config%%:*} ]] || die 2 "--config=$config: no such file"
    [[ -z $(git status --porcelain) ]] || die 2 "the TPU gets the last commit: commit your changes first"
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
exec 3>&1 # what --dry-run prints, also from within $(...)

quoted() { # as a shell reads them back
    local word
    for word; do
        # shellcheck disable=SC2001 # bash 3.2, which macOS has, gets these quotes wrong in ${//}
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

imagined="" # the state of the TPU in a dry run

# "" for no TPU, READY, PREEMPTED, or the queue's own word and reason.
state() {
    local queued vm
    queued=$(call gcloud compute tpus queued-resources list "${where[@]}" \
        --filter="name~/$name\$" --format="value(state.state,state.failedData.error.message)") || return
    [[ $dry_run == no ]] || queued=$imagined
    if [[ $queued == ACTIVE* ]]; then # a preempted VM is known before the queue has noticed
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
    imagined=ACTIVE
}

remove() {
    call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

give_back() {
    local now
    now=$(state) || die 1 "gcloud does not say whether $name is there"
    [[ -n $now ]] || { say "no TPU $name in $zone" && return; }
    remove || { now=$(state) && [[ -z $now ]]; } || die 1 "could not delete $name: it may still cost"
}

failures=0
failed() {
    failures=$((failures + 1))
    say "$* ($failures in a row)"
}

# Comes back when the TPU is ready. A request that ended is deleted: it would keep its quota.
ensure() {
    local now before=-
    while true; do
        now=$(state) || now=UNKNOWN
        [[ $now == "$before" ]] || say "$name: ${now:-not there}"
        before=$now
        [[ $now != SUSPENDED* && $now != PREEMPTED ]] || failures=0
        ((failures <= retries)) || die 1 "gave up after $failures failures in a row: see above, and docs/tpu.md"
        case $now in
            READY) return ;;
            "") request || failed "the request was refused" ;;
            FAILED*) failed "the request failed" && { remove || failed "and is still there"; } ;;
            SUSPENDED* | PREEMPTED) remove || failed "what was preempted is still there" ;;
            UNKNOWN) failed "gcloud does not answer" ;;
        esac
        [[ $dry_run == yes ]] || sleep "$poll"
    done
}

# Whether the workdir holds this file.
holds() {
    local found
    found=$(call gcloud storage objects list "$workdir/$1" --format="value(name)") ||
        die 2 "cannot look into $workdir: make the bucket, or log in (docs/tpu.md)"
    [[ -n $found ]]
}

# Puts the last commit and its packages on every host, so that main.py starts everywhere at once.
set_up() {
    local source=cifar-jax/$commit
    call mkdir -p .cache || return
    call git bundle create -q .cache/source.bundle HEAD || return
    call gcloud compute tpus tpu-vm scp .cache/source.bundle "$name:cifar-jax.bundle" "${reach[@]}" --worker=all || return
    ssh_all "test -d $source || { rm -rf cifar-jax/part && git -c advice.detachedHead=false clone -q cifar-jax.bundle cifar-jax/part && mv cifar-jax/part $source; } && $source/scripts/tpu_host.sh install $(quoted "$data")"
}

train() {
    local status
    [[ $delete_when_done == no ]] || trap give_back EXIT
    [[ $command == run ]] || holds config.json || [[ $dry_run == yes ]] ||
        die 2 "no run to resume in $workdir: say run to begin one, or mend --workdir"
    if holds result.json; then
        say "$workdir holds a finished run; another config needs another --workdir"
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
            2) die 2 "main.py refused its input, in the words above: mend it and run again" ;;
            75) failures=0 && say "interrupted and saved: goes on" ;;
            *) failed "ended with status $status" ;;
        esac
        [[ $dry_run == yes ]] || sleep "$poll"
    done
    say "finished: $workdir"
    [[ $delete_when_done == yes ]] || say "the TPU still costs: scripts/tpu.sh delete ends that"
}

trap 'trap - EXIT; say "left: TPU and run stay, and cost; resume follows, delete ends that"; exit 130' INT TERM HUP
case $command in
    create) ensure ;;
    run | resume) train ;;
    delete) imagined=ACTIVE && give_back ;;
    logs)
        imagined=ACTIVE
        [[ $(state) == READY ]] || die 2 "no TPU $name in $zone is ready; what a run measured is in its workdir"
        # shellcheck disable=SC2016 # to be expanded there
        call gcloud compute tpus tpu-vm ssh "$name" "${reach[@]}" --worker="$worker" \
            --command='tail -n 100 -f --pid=$(cat cifar-jax/pid) cifar-jax/log'
        ;;
esac
