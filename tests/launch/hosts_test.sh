#!/usr/bin/env bash
# launch/hosts.sh on hosts that are network namespaces: hosts_test.sh CASE (tests/launch/run.sh). Ends with 77, which ctest
# takes for skipped, where it may not make them.
set -euo pipefail
# shellcheck source=tests/launch/run.sh
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

if [ "$1" = usage ]; then # needs no hosts
  launcher=(launch/hosts.sh)
  start run 2
  ended 2
  one_error 'no hostfile'
  launcher=(launch/hosts.sh -f "$scratch/hosts")
  start run 2
  ended 2
  one_error "$scratch/hosts: cannot be read"
  printf '# two hosts\n\nnode-a slots=1\nnode-b\n' >"$scratch/hosts"
  start run 2
  ended 2
  one_error "$scratch/hosts:4: found \"node-b\""
  printf '# two hosts\n\nnode-a slots=1\nnode-b max_slots=4 slots = 1 # small\n' >"$scratch/hosts"
  start run 3
  ended 2
  one_error '-n: found 3 ranks, but .* has 2 slots'
  exit 0
fi

namespaces="$PWD/tests/launch/namespaces.sh"
export MEZZO_TEST_HOSTS=mezzo
if [ "$(id -u)" -ne 0 ] || ! "$namespaces" up 2 2>"$scratch/err"; then
  echo "skipped: no network namespaces here (needs root): $(cat "$scratch/err" 2>/dev/null)"
  exit 77
fi
trap 'finish; "$namespaces" down' EXIT
export OMPI_MCA_plm_rsh_agent="$namespaces on"
printf 'mezzo-1 slots=2\nmezzo-2 slots=2\n' >"$scratch/hosts"
launcher=("$namespaces" on mezzo-1 launch/hosts.sh -f "$scratch/hosts")

case "$1" in
  same_bits)
    start many 4 train.max_steps=12
    ended 0
    grep -E '^[23] +mezzo-2 ' "$scratch/err" >/dev/null || fail "ranks 2 and 3 did not run on mezzo-2"
    launcher=(launch/local.sh)
    start one 1 train.max_steps=12
    ended 0
    [ "$(hash_of many)" = "$(hash_of one)" ] || fail "other trainables than those of one host"
    ;;
  same_name) # as hosts of one container image have
    export MEZZO_TEST_HOSTNAME=box
    start run 4 train.max_steps=2
    ended 0
    grep -E '^[01] +box +[^# ]' "$scratch/err" >/dev/null || fail "ranks 0 and 1 did not run on one host"
    grep -E '^[23] +box #2 ' "$scratch/err" >/dev/null || fail "ranks 2 and 3 did not run on a host of their own"
    ;;
  stop)
    start run 4 "${endless[@]}"
    under_way run
    kill -TERM "$script"
    ended 75 10
    [ "$(errors)" -eq 0 ] || fail "a message"
    same_as_undisturbed run
    ;;
  killed_rank) # on the other host
    start run 4 "${endless[@]}"
    under_way run
    kill -KILL "$(process_of_rank 3)"
    ended 75 7
    one_error 'rank 3 on mezzo-2 was (ended by signal 9 \(Killed\)|not heard)'
    same_as_undisturbed run
    ;;
  cut_off)
    start run 4 "${endless[@]}" runtime.timeout_s=2
    under_way run
    "$namespaces" cut mezzo-2
    code=0
    wait "$script" || code=$?
    [ "$code" -eq 75 ] || fail "exit code $code, expected 75"
    [ $((SECONDS - began)) -le $((7 * ${MEZZO_TEST_SLOWNESS:-1})) ] || fail "ended after $((SECONDS - began)) s"
    one_error 'rank [23] on mezzo-2.* was not heard'
    for ((i = 0; i < 200; ++i)); do # the ranks there leave by themselves
      [ -n "$(job_processes)" ] || break
      sleep 0.1
    done
    [ -z "$(job_processes)" ] || fail "left behind on mezzo-2: $(job_processes)"
    launcher=(launch/local.sh) # it goes on without the lost host
    same_as_undisturbed run
    ;;
  lost_daemon)
    start run 4 "${endless[@]}"
    under_way run
    kill -KILL "$(pgrep -x orted | while read -r pid; do ip netns pids mezzo-2 | grep -x "$pid" || true; done)"
    ended 75 7
    one_error '(the host mezzo-2 was lost|rank [23] on mezzo-2)'
    same_as_undisturbed run
    ;;
  *)
    echo "hosts_test.sh: no case \"$1\"" >&2
    exit 2
    ;;
esac
