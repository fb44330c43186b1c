#!/usr/bin/env bash
# What launch/job.sh makes of the words of launchers: each case is a program that prints as a launcher did and ends as it did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=launch/job.sh
source launch/job.sh

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
failures=0

expect() { # NAME CODE LAUNCHER STATUS EXPECTED_STANDARD_ERROR; the launcher's words on standard input
  local name="$1" code="$2"
  cat >"$scratch/words"
  printf '#!/bin/sh\ncat "%s" >&2\nexit %s\n' "$scratch/words" "$4" >"$scratch/$3"
  chmod +x "$scratch/$3"
  run_job "$scratch/$3" 2>"$scratch/err"
  if [ "$job_code" -ne "$code" ] || ! diff <(printf '%s' "$5") "$scratch/err"; then
    echo "FAILED: $name: code $job_code, expected $code" >&2
    failures=$((failures + 1))
  fi
}

dashes=--------------------------------------------------------------------------
go_on='; committed steps are kept, and the same command goes on'

expect "Open MPI 4.1, a rank killed" 75 mpirun 137 "step 1/2
mezzo: error: rank 2 on host-b was ended by signal 9 (Killed)$go_on
" <<END
step 1/2
$dashes
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
$dashes
$dashes
mpirun noticed that process rank 2 with PID 0 on node host-b exited on signal 9 (Killed).
$dashes
END

expect "Open MPI 5, a rank killed" 75 mpirun 137 "mezzo: error: rank 1 on host-a was ended by signal 9 (Killed)$go_on
" <<END
$dashes
prterun noticed that process rank 1 with PID 4711 on node host-a exited on
signal 9 (Killed).
$dashes
END

expect "Mezzo has named the rank already" 75 mpirun 137 "mezzo: error: rank 2 on host-b was not heard for 5 s
" <<END
mezzo: error: rank 2 on host-b was not heard for 5 s
$dashes
mpirun noticed that process rank 2 with PID 0 on node host-b exited on signal 9 (Killed).
$dashes
END

expect "two ranks spoke at the same moment" 75 mpirun 75 "mezzo: error: rank 1 on host-a was not heard for 5 s
mezzo: warning: then: rank 1 on host-a was not heard for 6 s
" <<END
mezzo: error: rank 1 on host-a was not heard for 5 s
mezzo: error: rank 1 on host-a was not heard for 6 s
END

expect "a crash is not a reason to go on" 1 mpirun 139 "mezzo: error: rank 0 on host-a crashed with signal 11 (Segmentation fault), which is a bug in it or in a library
" <<END
$dashes
mpirun noticed that process rank 0 with PID 12 on node host-a exited on signal 11 (Segmentation fault).
$dashes
END

expect "a lost host" 75 mpirun 1 "mezzo: error: the host host-b was lost$go_on
" <<END
$dashes
ORTE has lost communication with a remote daemon.

  HNP daemon   : [[60173,0],0] on node host-a
  Remote daemon: [[60173,0],1] on node host-b

This is usually due to either a failure of the TCP network
connection to the node, or possibly an internal failure of
the daemon itself. We cannot recover from this failure, and
therefore will terminate the job.
$dashes
END

expect "a launcher that did not get as far" 1 mpirun 1 "$dashes
There are not enough slots available in the system.
$dashes
mezzo: error: mpirun ended with status 1 before Mezzo did; what it said is above
" <<END
$dashes
There are not enough slots available in the system.
$dashes
END

expect "Mezzo's own codes and words pass" 2 mpirun 2 "mezzo: error: unknown key
" <<END
mezzo: error: unknown key
$dashes
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[26140,1],2]
  Exit code:    2
$dashes
END

expect "a line within a banner, and a last line without an end, are not lost" 0 mpirun 0 "mezzo: warning: odd
$dashes
WARNING: no OpenFabrics
last
" < <(printf '%s\nWARNING: no OpenFabrics\nmezzo: warning: odd\nlast' "$dashes")

expect "a stop" 75 mpirun 75 "stopped after step 3; the same command goes on from there
" <<END
mpirun: Forwarding signal 10 to job
stopped after step 3; the same command goes on from there
END

expect "srun, a rank killed" 75 srun 137 "srun: error: node-1: task 1: Killed
srun: error: node-2: tasks 2-3: Killed
mezzo: error: rank 1 on node-1 was ended by signal 9 (Killed)$go_on
" <<END
srun: error: node-1: task 1: Killed
srun: error: node-2: tasks 2-3: Killed
END

expect "srun, ranks that were ended because others had stopped" 75 srun 137 "srun: error: node-1: tasks 0-1: Exited with exit code 75
srun: error: node-2: task 3: Killed
" <<END
srun: error: node-1: tasks 0-1: Exited with exit code 75
srun: error: node-2: task 3: Killed
END

expect "srun, a lost node" 75 srun 1 "srun: error: Node failure on node-2
mezzo: error: the host node-2 was lost$go_on
" <<END
srun: error: Node failure on node-2
END

# No note is lost, however they come.
exec {job_never}<> <(:) {job_notes}<> <(:)
(
  for _ in {1..3000}; do job_note left 7; done
  job_note lost host-b
) &
lost='' wrong=0 whole=0
until [ -n "$lost" ]; do
  left=''
  job_sleep 0.00005
  if job_take_note; then
    if [ "$left" = 7 ]; then whole=$((whole + 1)); elif [ -z "$lost" ]; then wrong=$((wrong + 1)); fi
  fi
done
wait
if [ "$whole" -ne 3000 ] || [ "$wrong" -ne 0 ]; then
  echo "FAILED: $whole notes of 3000 came whole, $wrong otherwise" >&2
  failures=$((failures + 1))
fi

[ "$failures" -eq 0 ]
