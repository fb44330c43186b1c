#!/usr/bin/env bash
# launch/slurm.sbatch on a Slurm of this machine's own (tests/launch/slurm.sh): slurm_test.sh CASE (tests/launch/run.sh).
# Ends with 77, which ctest takes for skipped, where Slurm is not installed or may not be started.
set -euo pipefail
# shellcheck source=tests/launch/run.sh
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

for program in slurmctld slurmd munged sbatch srun; do
  if ! PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null; then
    echo "skipped: no $program here (Debian, Ubuntu: slurm-wlm, munge)"
    exit 77
  fi
done
if [ "$(id -u)" -ne 0 ]; then
  echo "skipped: starting Slurm needs root"
  exit 77
fi
export SLURM_CONF="$scratch/slurm/slurm.conf"
slurm="$PWD/tests/launch/slurm.sh"
# shellcheck disable=SC2317  # by the trap
end_slurm() {
  scancel --user="$(id -un)" 2>/dev/null || true
  kill_job
  "$slurm" down "$scratch/slurm"
  finish
}
trap 'finish' EXIT
"$slurm" up "$scratch/slurm" 2 2>"$scratch/err" || fail "Slurm did not come up"
trap end_slurm EXIT

job=''
submit() { # RUN OVERRIDE ...
  local run="$1"
  shift
  job="$(sbatch --parsable -p low -N 2 -n 4 -o "$scratch/err" launch/slurm.sbatch "${small[@]}" train.output_dir="$scratch/$run" "$@")"
  touch "$scratch/err"
}

field() { scontrol show job "$job" | sed -n "s/.*\\b$1=\\([^ ]*\\).*/\\1/p"; }

wait_for() { # SECONDS WHAT COMMAND ...
  local until=$((SECONDS + $1 * ${MEZZO_TEST_SLOWNESS:-1})) what="$2"
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "no $what: $(scontrol show job "$job")"
    sleep 0.2
  done
}

state_is() { [[ "$(field JobState)" == "$1" ]]; }
restarted() { [ "$(field Restarts)" -ge "$1" ]; }
printed() { [ "$(grep -cE "$2" "$scratch/err")" -ge "$1" ]; }

case "$1" in
  preempted) # three times, in the middle of the run
    # The last steps are to outlast what Slurm takes to preempt; where all is slower fewer do.
    long=(train.max_steps=$((300 / ${MEZZO_TEST_SLOWNESS:-1})) zo.directions=20)
    submit run "${long[@]}"
    steps=0
    for times in 1 2 3; do
      wait_for 60 'progress' printed $((steps + 10)) '^step ' # since it began or went on: while it waits there is nothing to preempt
      sbatch -Q -p high -N 2 -n 8 -o /dev/null --wrap 'sleep 1'
      wait_for 30 'requeue' restarted "$times"
      steps="$(grep -cE '^step ' "$scratch/err")"
    done
    wait_for 120 'end' state_is COMPLETED
    [ "$(errors)" -eq 0 ] || fail "a message"
    printed 3 '^going on from step ' || fail "it did not go on"
    start undisturbed 1 "${long[@]}"
    ended 0
    [ "$(hash_of run)" = "$(hash_of undisturbed)" ] || fail "other trainables than those of an undisturbed run"
    ;;
  killed_rank)
    submit run "${endless[@]}"
    wait_for 60 'progress' printed 5 '^step '
    for pid in $(job_processes); do
      if [ "$(cat "/proc/$pid/comm")" = mezzo ] && tr '\0' '\n' <"/proc/$pid/environ" | grep -x SLURM_PROCID=2 >/dev/null; then kill -KILL "$pid"; fi
    done
    wait_for 30 'requeue' restarted 1
    wait_for 60 'resume' printed 1 '^going on from step '
    one_error 'rank 2 on node-[12] was (ended by signal 9 \(Killed\)|not heard)'
    scancel "$job"
    wait_for 30 'end' state_is CANCELLED
    ;;
  cancelled) # for good, after its step
    submit run "${endless[@]}"
    wait_for 60 'progress' printed 5 '^step '
    scancel "$job"
    wait_for 30 'end' state_is CANCELLED
    [ "$(field Restarts)" -eq 0 ] || fail "it went back into the queue"
    printed 1 '^stopped after step ' || fail "it was not stopped after a step"
    ;;
  given_up) # what never gets any further is not restarted for ever
    printf '#!/bin/sh\nexit 75\n' >"$scratch/mezzo"
    chmod +x "$scratch/mezzo"
    MEZZO="$scratch/mezzo" MEZZO_IDLE_RESTARTS=1 submit run
    wait_for 60 'end' state_is FAILED
    [ "$(field Restarts)" -eq 1 ] || fail "$(field Restarts) restarts, expected 1"
    one_error 'given up: restarted 1 times'
    ;;
  *)
    echo "slurm_test.sh: no case \"$1\"" >&2
    exit 2
    ;;
esac
