#!/usr/bin/env bash
# Removes what an mpirun of Open MPI 4 that was killed has left on this host: its session folder and its ranks' shared memory.
# run_job (launch/job.sh) starts it beside the job; in a session of its own it outlives what kills the job.
#   tidy.sh URI_FILE   URI_FILE: what mpirun --report-uri wrote. Standard input: mpirun's process, then nothing; it ends when the
#                       script and mpirun have ended.
set -euo pipefail
trap '' INT TERM HUP USR1

launcher='' uri=''
IFS= read -r launcher || true
while IFS= read -r _; do :; done
IFS= read -r uri <"$1" || true
rm -f "$1"
[[ "$uri" =~ ^([0-9]+)\.0\; ]] || exit 0
printf -v family '%x' $((BASH_REMATCH[1] >> 16)) # the upper half of a job's number is its mpirun's

user="$(id -u)"
for session in "${TMPDIR:-/tmp}"/ompi.*."$user"/pid."$launcher"; do
  # A folder of that name may be another container's, or of another mpirun that had the same number.
  if [ "$(head -n 1 "$session/contact.txt" 2>/dev/null)" != "$uri" ]; then continue; fi
  host="${session%."$user"/pid.*}"
  host="${host##*/ompi.}"
  rm -f /dev/shm/vader_segment."$host.$user.$family"????.*
  rm -rf "$session"
  rmdir --ignore-fail-on-non-empty "${session%/*}"
done
