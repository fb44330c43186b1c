#!/usr/bin/env bash
# Runs `mezzo train` on the ranks of several hosts.
set -euo pipefail
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/job.sh
source "$folder/job.sh"

help() {
  cat <<'END'
Usage: launch/hosts.sh -f HOSTFILE [-n RANKS] CONFIG [a.b=value ...]

Trains on the hosts of HOSTFILE, or goes on with a run: `mezzo train CONFIG a.b=value ...` under mpirun, which reaches them by
ssh without a password. HOSTFILE has a line `NAME slots=RANKS` a host, with GPUs at most their number; -n takes fewer ranks
than there are slots. The executable, the config and the model lie at the same paths everywhere, or on a shared file system;
the run's folder has to be on one where a run is to go on from other hosts.

TERM, INT (Ctrl-C), HUP or USR1: the step ends, a snapshot is written, exit code 75. A second TERM or INT ends the job at
once. A rank or a host that dies or falls silent ends the job with one message and exit code 75, too. After 75 the same
command goes on, also with other hosts. Exit codes: 0 done, 1 error, 2 usage or config, 75 stopped.

MEZZO names another executable than build/release/src/cli/mezzo. Open MPI takes its settings from variables OMPI_MCA_..., such
as OMPI_MCA_btl_tcp_if_include=eth0 for the network and OMPI_MCA_plm_rsh_agent for another way to the hosts than ssh.

Example: launch/hosts.sh -f hosts configs/quickstart.yaml train.output_dir=/shared/runs/quickstart
END
}

ranks='' hostfile=''
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      help
      exit 0
      ;;
    -f | -n)
      [ $# -ge 2 ] || job_usage_error "$1 needs a value"
      if [ "$1" = -f ]; then hostfile="$2"; else ranks="$2"; fi
      shift 2
      ;;
    --)
      shift
      break
      ;;
    -*) job_usage_error "$1: unknown option" ;;
    *) break ;;
  esac
done
[ -n "$hostfile" ] || job_usage_error "no hostfile"
[ -r "$hostfile" ] || job_usage_error "$hostfile: cannot be read"

# As Open MPI counts: a host without `slots` has one a core, which for Mezzo is more ranks than are of use.
slots=0 number=0
while IFS= read -r line || [ -n "$line" ]; do
  number=$((number + 1))
  [[ "$line" =~ ^[[:space:]]*(#.*)?$ ]] && continue
  [[ "$line" =~ ^[[:space:]]*[^[:space:]#]+.*[[:space:]]slots[[:space:]]*=[[:space:]]*([1-9][0-9]*) ]] ||
    job_usage_error "$hostfile:$number: found \"$line\", expected NAME slots=RANKS"
  slots=$((slots + BASH_REMATCH[1]))
done <"$hostfile"
[ "$slots" -gt 0 ] || job_usage_error "$hostfile: names no host"
ranks="${ranks:-$slots}"
[[ "$ranks" =~ ^[1-9][0-9]*$ ]] || job_usage_error "-n: found \"$ranks\", expected a number of ranks, 1 or more"
[ "$ranks" -le "$slots" ] || job_usage_error "-n: found $ranks ranks, but $hostfile has $slots slots"
[ $# -ge 1 ] || job_usage_error "no config"

mezzo="$(find_mezzo "$folder")"
find_mpirun
# What changes how the ranks run has to be the same on all hosts.
for variable in LD_LIBRARY_PATH OPENBLAS_CORETYPE $(compgen -e | grep -E '^(NCCL|MEZZO)_' || true); do
  if [ -n "${!variable:-}" ]; then mpirun+=(-x "$variable"); fi
done
run_job "${mpirun[@]}" --hostfile "$hostfile" -np "$ranks" "$mezzo" train "$@"
exit "$job_code"
