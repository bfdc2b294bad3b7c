#!/usr/bin/env bash
# Sets up Python for this code on a bare machine, or in an image:
#
#   VENV=DIR EXTRAS=tpu,gcs bash tpu/setup.sh     # then DIR/bin/python launch.py ...
#
# Installs what pyproject.toml needs, in the versions of constraints.txt; not this code
# itself, which runs from its own directory, so that a new version of it needs no new
# set-up. Does nothing when that is done already: the marker is a hash of all it depends
# on. May be called by several at once (machines that share a file system).
#
# Python: the first of 3.11, with which those versions were tested, 3.12 and 3.13 that is
# on PATH, else one that uv downloads. Images with Ubuntu 22.04 (v2-alpha-*) have 3.10
# alone; the other way, the deadsnakes archive, needs root and a third party's key. uv
# itself comes from PyPI where it is not installed; where it cannot be had, pip does.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$HOME/.msm-jax/venv}
extras=${EXTRAS:-tpu,gcs}
tries=${TRIES:-4}

die() {
  echo "error: setup.sh: $1" >&2
  exit 2
}

# Runs a command until it succeeds; mirrors and networks of fresh machines hiccup.
again() {
  local try
  for ((try = 1; ; try++)); do
    "$@" >>"$log" 2>&1 && return
    ((try < tries)) || return 1
    echo "setup: $1 failed (try $try of $tries)"
    sleep $((5 * try))
  done
}

last_words() {
  grep -iE 'error|no such|failed|could not' "$log" | tail -n 1 || tail -n 1 "$log"
}

find_python() {
  local version path
  for version in 3.11 3.12 3.13; do
    path=$(command -v "python$version") || continue
    "$path" -c 'import venv, ensurepip' 2>/dev/null && echo "$path" && return
  done
  return 1
}

find_uv() {
  local tools=$venv.tools
  command -v uv && return
  [[ -x $tools/bin/uv ]] || again python3 -m pip install --target "$tools" uv >&2
  [[ -x $tools/bin/uv ]] && echo "$tools/bin/uv"
}

for file in pyproject.toml constraints.txt; do
  [[ -f $root/$file ]] || die "$root/$file is not there: push the whole repository"
done
for extra in ${extras//,/ }; do
  grep -q "^$extra = \[" "$root/pyproject.toml" ||
    die "EXTRAS=$extra: pyproject.toml has no such optional-dependencies"
done
wanted=$(cat "$root"/{pyproject.toml,constraints.txt,tpu/setup.sh} - <<<"$extras" |
  sha256sum | cut -d ' ' -f 1)
done_already() {
  [[ -x $venv/bin/python && $(cat "$venv/.set_up" 2>/dev/null) == "$wanted" ]]
}
done_already && exit

mkdir -p "$(dirname "$venv")" || die "$venv cannot be made: set VENV=DIR"
log=$venv.log
exec 9>"$venv.lock"
flock --timeout 1800 9 || die "another set-up of $venv does not end: rm $venv.lock"
done_already && exit # by the one that was waited for
: >"$log"

echo "setup: Python and packages ($extras) into $venv; details in $log"
if ! command -v python3 >/dev/null || ! python3 -m pip --version >/dev/null 2>&1; then
  # Minimal images of Ubuntu have neither; TPU images have both.
  again sudo -n apt-get update || true
  again sudo -n apt-get install -y python3-pip python3-venv ||
    die "there is no pip, and apt-get cannot install it: $(last_words)"
fi
uv=$(find_uv) || uv=
rm -rf "$venv"
if python=$(find_python); then
  again "$python" -m venv "$venv" || die "no virtual environment: $(last_words)"
elif [[ -n $uv ]]; then
  again "$uv" venv --no-project --python 3.11 "$venv" ||
    die "no Python >= 3.11 on PATH, and uv cannot get one: $(last_words)"
else
  die "no Python >= 3.11 on PATH, and no uv to get one: install python3.11-venv"
fi

# What pyproject.toml asks for, a line each.
"$venv/bin/python" - "$root/pyproject.toml" "$extras" >"$venv/requirements.txt" <<'END'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = [extra for extra in sys.argv[2].split(",") if extra]
known = project["optional-dependencies"]
for group in [project["dependencies"], *(known[extra] for extra in extras)]:
    print(*group, sep="\n")
END
packages=(--constraint "$root/constraints.txt" --requirement "$venv/requirements.txt")
if [[ -n $uv ]]; then
  again "$uv" pip install --python "$venv/bin/python" "${packages[@]}" ||
    die "packages cannot be installed: $(last_words)"
else
  again "$venv/bin/python" -m pip install "${packages[@]}" ||
    die "packages cannot be installed: $(last_words)"
fi
"$venv/bin/python" -c 'import jax' >>"$log" 2>&1 ||
  die "JAX cannot be imported: $(last_words)"
echo "$wanted" >"$venv/.set_up"
echo "setup: done in $SECONDS s"
