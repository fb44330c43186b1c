#!/usr/bin/env bash
# Runs `mezzo train` on several ranks of this machine.
set -euo pipefail
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/job.sh
source "$folder/job.sh"

help() {
  cat <<'END'
Usage: launch/local.sh -n RANKS CONFIG [a.b=value ...]

Trains on RANKS ranks of this machine, or goes on with a run: `mezzo train CONFIG a.b=value ...` under mpirun. With GPUs,
RANKS is at most their number.

TERM, INT (Ctrl-C), HUP or USR1: the step ends, a snapshot is written, exit code 75. A second TERM or INT ends the job at
once. A rank that dies or falls silent ends the job with one message and exit code 75, too. After 75 the same command goes
on, also with another number of ranks. Exit codes: 0 done, 1 error, 2 usage or config, 75 stopped.

MEZZO names another executable than build/release/src/cli/mezzo.

Example: launch/local.sh -n 2 configs/quickstart.yaml train.max_steps=100
END
}

ranks=''
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      help
      exit 0
      ;;
    -n)
      [ $# -ge 2 ] || job_usage_error "-n needs a number of ranks"
      ranks="$2"
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
[[ "$ranks" =~ ^[1-9][0-9]*$ ]] || job_usage_error "-n: found \"$ranks\", expected a number of ranks, 1 or more"
[ $# -ge 1 ] || job_usage_error "no config"

mezzo="$(find_mezzo "$folder")"
find_mpirun
# One machine needs no network: Open MPI would have every rank listen for others on all interfaces.
export OMPI_MCA_pml="${OMPI_MCA_pml:-ob1}" OMPI_MCA_btl="${OMPI_MCA_btl:-self,vader}"
export OMPI_MCA_btl_tcp_if_include="${OMPI_MCA_btl_tcp_if_include:-lo}" OMPI_MCA_oob_tcp_if_include="${OMPI_MCA_oob_tcp_if_include:-lo}"
# The user has said how many ranks this machine is to carry; Open MPI would allow one a core.
run_job "${mpirun[@]}" --oversubscribe -np "$ranks" "$mezzo" train "$@"
exit "$job_code"
