#!/usr/bin/env bash
# On a machine of a job: starts, stops and shows what runs there.
#
#   on_host.sh start JOB STEP [--env=NAME=VALUE]... [--secret=NAME=SECRET]...
#                             [--project=ID] [--first=N] -- ARGUMENTS of tpu.host
#   on_host.sh stop JOB
#   on_host.sh log JOB [--follow]
#
# Values of secrets come from Secret Manager into the environment, and go nowhere else.
# --host=worker among the arguments becomes N plus the number that the machine has in
# its slice. A step that runs already is left alone: its lock lasts as long as it does.
set -euo pipefail

home=${MSM_JAX_HOME:-$HOME/.msm-jax}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$home/venv}

die() {
  echo "error: on_host.sh: $1" >&2
  exit 2
}

# The number of this machine in its slice, as the Cloud TPU API gives it.
worker() {
  curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \
    "http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/attributes/agent-worker-number" ||
    die 'the metadata server does not say which worker this is'
}

# NAME=SECRET: puts the value into the environment.
fetch() {
  local value
  value=$(gcloud secrets versions access latest --secret="${1#*=}" \
    ${project:+--project="$project"}) ||
    die "secret ${1#*=} cannot be read: is it there, and may this machine's service account read it (roles/secretmanager.secretAccessor)?"
  export "${1%%=*}=$value"
}

start() {
  local label=$1.$2 project='' first=0 argument number pid
  local secrets=() arguments=()
  shift 2
  mkdir -p "$home/run"
  exec 9>"$home/run/$label.lock"
  if ! flock --nonblock 9; then
    echo "on_host: $label runs already"
    return
  fi
  while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
      --env=*) export "${1#--env=}" ;;
      --secret=*) secrets+=("${1#--secret=}") ;;
      --project=*) project=${1#--project=} ;;
      --first=*) first=${1#--first=} ;;
      *) die "unknown argument: $1" ;;
    esac
    shift
  done
  shift
  for argument in ${secrets[@]+"${secrets[@]}"}; do
    fetch "$argument"
  done
  for argument; do
    if [[ $argument == --host=worker ]]; then
      number=$(worker)
      argument=--host=$((first + number))
    fi
    arguments+=("$argument")
  done
  export PATH="$venv/bin:$PATH"
  cd "$root"
  setsid nohup "$venv/bin/python" -m tpu.host "${arguments[@]}" \
    </dev/null >>"$home/run/$label.log" 2>&1 &
  pid=$!
  echo "$pid" >"$home/run/$label.pid"
  echo "on_host: $label started ($pid)"
}

stop() {
  local lock
  for lock in "$home/run/$1".*.lock; do
    if [[ -e $lock ]] && ! flock --nonblock "$lock" true; then
      kill -TERM "$(<"${lock%.lock}.pid")" && echo "on_host: stopping ${lock##*/}"
    fi
  done
}

log() {
  local file newest=''
  for file in "$home/run/$1".*.log; do
    if [[ -e $file && (-z $newest || $file -nt $newest) ]]; then newest=$file; fi
  done
  [[ -n $newest ]] || die "$1 has not run here yet"
  if [[ ${2:-} == --follow ]]; then
    exec tail --lines=1000 --follow=name "$newest"
  fi
  exec tail --lines=1000 "$newest"
}

case ${1:-} in
  start) start "${@:2}" ;;
  stop) stop "$2" ;;
  log) log "${@:2}" ;;
  *) die "start, stop or log? (given: ${1:-nothing})" ;;
esac
