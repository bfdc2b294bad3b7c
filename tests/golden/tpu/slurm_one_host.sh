#!/bin/bash
#SBATCH --job-name=msm-cheese-study
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:h100:8
#SBATCH --partition=gpu
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=/shared/me/msm/slurm/cheese/study-%j.out
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
# cheese: study on h100:8.
here=/shared/me/msm/slurm/cheese
cd "$here/code/0123456789ab" || exit 2
set -u
export HF_HUB_OFFLINE=1
GEMINI_API_KEY=$(cat /shared/me/msm/secrets/gemini-key) || exit 2
export GEMINI_API_KEY
# Of one node: home directories are those of all.
export MSM_TPU_STATE=${TMPDIR:-/tmp}/msm-$USER-$SLURM_JOB_ID

# Time is nearly up (--signal above): agents are told, and save. By Slurm: srun itself
# would kill them when it gets this signal.
told=
trap 'told=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
agent=$(
  cat <<'END_OF_AGENT'
trap : TERM
/shared/me/msm/venv/bin/python -m tpu.host --board=gs://my-bucket/msm/jobs/cheese --step=study --num_hosts=1 --host=$SLURM_PROCID -- \
  /shared/me/msm/venv/bin/python launch.py run --config=configs/cheese_tiny.py --workdir=gs://my-bucket/msm/studies/cheese
code=$?
rm -rf "$MSM_TPU_STATE"
exit "$code"
END_OF_AGENT
)
# An agent that ends first must not end the others, which may be saving.
srun --kill-on-bad-exit=0 --wait=0 --open-mode=append \
  --output="$here/study-%t.log" bash -c "$agent" &
srun=$!
while
  told=
  wait "$srun"
  code=$?
  [ -n "$told" ] # then the trap cut the wait short
do :; done

again=
case $code in
  0 | 2) ;; # done; given up
  75) [ -e "$here/stop" ] || again=yes ;;
  *)
    echo "$code" >>"$here/study.failures"
    [ "$(wc -l <"$here/study.failures")" -gt 20 ] || again=yes
    ;;
esac
trap - TERM
if [ -n "$again" ]; then
  case $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) in
    # Somebody's scancel, or Slurm takes the nodes: its own word for that counts.
    CANCELLED | COMPLETING | PREEMPTED) exit "$code" ;;
  esac
  # While it runs: once it has failed, later steps would never start.
  if scontrol requeue "$SLURM_JOB_ID"; then
    sleep 300 # until Slurm ends this script
  fi
fi
echo "$code" >"$here/study.exit"
exit "$code"
