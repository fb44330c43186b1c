#!/usr/bin/env bash
# A Slurm cluster on this machine, apart from any other: munged, slurmctld and one slurmd a node, whose files all lie in one
# folder. Needs root and the packages slurm-wlm and munge (Debian 12: Slurm 22.05).
#   slurm.sh up FOLDER [NODES]   starts it; then export SLURM_CONF=FOLDER/slurm.conf
#   slurm.sh down FOLDER         stops it
# Partition `low` is preempted by partition `high`: its jobs are given ten seconds and requeued.
set -euo pipefail

up() { # FOLDER NODES
  local folder node host port=$((17000 + RANDOM % 8000))
  mkdir -p "$1"
  folder="$(cd "$1" && pwd)"
  host="$(hostname -s)"
  mkdir -p "$folder/state" "$folder/tmp"
  head -c 1024 /dev/urandom >"$folder/munge.key"
  chmod 0400 "$folder/munge.key"
  echo "PMIxCliTmpDirBase=$folder/tmp" >"$folder/mpi.conf"
  # cred_expire is also how long a requeued job waits.
  cat >"$folder/slurm.conf" <<END
ClusterName=mezzo-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/%n
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
ReturnToService=2
NodeName=node-[1-$2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + $2))] CPUs=4
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 MaxTime=INFINITE
PartitionName=high Nodes=ALL PriorityTier=10 MaxTime=INFINITE
END
  export SLURM_CONF="$folder/slurm.conf"
  munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  slurmctld
  for ((node = 1; node <= $2; ++node)); do
    mkdir -p "$folder/node-$node"
    # A host name of its own, and a folder for Slurm's PMIx, which takes it that a host runs one slurmd.
    # shellcheck disable=SC2016  # for the inner shell
    unshare --uts --mount sh -c 'hostname "$0" && mount -t tmpfs none "$1" && exec slurmd -N "$0"' "node-$node" "$folder/tmp"
  done
  for _ in {1..100}; do
    if [ "$(sinfo -h -N -p low -t idle -o %N 2>/dev/null | wc -l)" -eq "$2" ]; then return; fi
    sleep 0.2
  done
  echo "slurm.sh: the nodes did not come up; see the logs in $folder" >&2
  down "$folder"
  return 1
}

down() { # FOLDER
  local file pid
  for file in "$1"/node-*.pid "$1/slurmctld.pid" "$1/munged.pid"; do
    [ -s "$file" ] || continue
    pid="$(<"$file")"
    kill "$pid" 2>/dev/null || continue
    for _ in {1..50}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

case "${1:-}" in
  up) up "$2" "${3:-2}" ;;
  down) down "$2" ;;
  *)
    sed -n '2,6p' "$0" >&2
    exit 2
    ;;
esac
