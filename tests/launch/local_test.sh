#!/usr/bin/env bash
# launch/local.sh as its users see it: local_test.sh CASE (tests/launch/run.sh).
set -euo pipefail
# shellcheck source=tests/launch/run.sh
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"
steps=12

case "$1" in
  done)
    start run 2 train.max_steps="$steps"
    ended 0
    [ "$(errors)" -eq 0 ] || fail "a message"
    [ ! -s "$scratch/out" ] || fail "standard output is not empty: $(head -n 3 "$scratch/out")"
    grep '^done: ' "$scratch/err" >/dev/null || fail "the last line is missing"
    ! grep -e '^-----' "$scratch/err" || fail "the launcher's banners are there"
    ;;
  usage)
    start run 2 zo.foo=1
    ended 2
    one_error ".*unknown key 'foo'"
    start run 0
    ended 2
    one_error '-n: found "0"'
    MEZZO="$scratch/none" start run 2
    ended 2
    one_error "no executable $scratch/none"
    launch/local.sh --help | grep '^Usage: ' >/dev/null
    ;;
  error)
    echo '{"sentence": 1}' >"$scratch/train.jsonl"
    start run 2 data.train="$scratch/train.jsonl"
    ended 1
    one_error ".*train.jsonl:1"
    ;;
  stop_TERM | stop_INT | stop_USR1)
    start run 2 "${endless[@]}"
    under_way run
    kill "-${1#stop_}" "$script"
    ended 75 10
    [ "$(errors)" -eq 0 ] || fail "a message"
    [ -e "$scratch/run/snapshots/step-$(step_of run).h5" ] || fail "no snapshot of the last step"
    same_as_undisturbed run
    ;;
  stop_in_long_step) # longer than the two seconds that mpirun leaves ranks at TERM
    start run 2 "${endless[@]}" zo.directions=1000
    before_first_step
    kill -TERM "$script"
    ended 75
    grep -E '^stopped after step 1: 1 steps in .* s; the same command goes on from there$' "$scratch/err" >/dev/null || fail "the step did not end"
    grep -x "  train.output_dir: $scratch/run" "$scratch/err" >/dev/null || fail "job_see_line does not learn of the run's folder"
    [ $((SECONDS - began)) -ge 3 ] || fail "a step of $((SECONDS - began)) s shows nothing"
    ;;
  stop_at_start)
    start run 2 "${endless[@]}"
    until pgrep -P "$script" -x mpirun >/dev/null; do sleep 0.02; done
    began=$SECONDS
    kill -TERM "$script"
    ended 75 10
    [ "$(errors)" -eq 0 ] || fail "a message"
    ;;
  stop_at_once) # the second TERM does not wait for a long step
    start run 2 "${endless[@]}" zo.directions=20000
    before_first_step
    kill -TERM "$script"
    sleep 1
    kill -TERM "$script"
    ended 75 5
    [ "$(errors)" -eq 0 ] || fail "a message"
    grep '^mezzo: warning: ended at once' "$scratch/err" >/dev/null || fail "a step was waited for"
    ;;
  killed_rank)
    for rank in 0 1; do
      start "run-$rank" 2 "${endless[@]}"
      under_way "run-$rank"
      kill -KILL "$(process_of_rank "$rank")"
      ended 75 7
      one_error "rank $rank on $(hostname) was (ended by signal 9 \(Killed\)|not heard)"
    done
    same_as_undisturbed run-0
    ;;
  crashed_rank)
    export ASAN_OPTIONS="${ASAN_OPTIONS:-}:handle_segv=0" # a sanitized build would leave with a code of its own
    start run 2 "${endless[@]}"
    under_way run
    kill -SEGV "$(process_of_rank 1)"
    ended 1 7
    [ "$(errors)" -eq 1 ] || fail "$(errors) messages, expected one"
    grep "rank 1 on $(hostname) crashed with signal 11" "$scratch/err" >/dev/null || fail "the crash is not named"
    ;;
  silent_rank)
    for rank in 0 1; do
      start "run-$rank" 2 "${endless[@]}" runtime.timeout_s=2
      under_way "run-$rank"
      kill -STOP "$(process_of_rank "$rank")"
      ended 75 7
      one_error "rank $rank on $(hostname) was not heard"
    done
    same_as_undisturbed run-0
    ;;
  killed_launcher)
    start run 2 "${endless[@]}"
    under_way run
    kill -KILL "$(pgrep -P "$script" -x mpirun)"
    ended 75 7
    one_error 'mpirun or one of its ranks was ended by signal 9'
    same_as_undisturbed run
    ;;
  killed_script) # its ranks do not go on behind its back
    start run 2 "${endless[@]}"
    under_way run
    kill -KILL "$script"
    wait "$script" 2>/dev/null || true
    for ((i = 0; i < 100; ++i)); do
      [ -n "$(job_processes)" ] || break
      sleep 0.1
    done
    [ -z "$(job_processes)" ] || fail "left behind: $(job_processes)"
    same_as_undisturbed run
    ;;
  killed_job) # all at once, and again while it resumes on other numbers of ranks
    start run 2 train.max_steps="$steps"
    under_way run
    for ranks in 3 1 2; do
      kill_job
      wait "$script" 2>/dev/null || true
      on_disk="$(step_of run)"
      start run "$ranks" train.max_steps="$steps"
      sleep "0.$((RANDOM % 10))"
    done
    ended 0
    [ "$(step_of run)" -ge "$on_disk" ] || fail "$on_disk steps were on disk"
    start undisturbed 1 train.max_steps="$steps"
    ended 0
    [ "$(hash_of run)" = "$(hash_of undisturbed)" ] || fail "other trainables than those of an undisturbed run"
    ;;
  slow_start) # longer than a start was once given: a cold file system, hundreds of ranks
    # shellcheck disable=SC2016  # for the inner shell
    printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 0 ] || sleep 27\nexec "%s" "$@"\n' "$MEZZO" >"$scratch/mezzo"
    chmod +x "$scratch/mezzo"
    MEZZO="$scratch/mezzo" start run 2 train.max_steps=1
    ended 0
    ;;
  silent_start)
    # shellcheck disable=SC2016
    printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 0 ] || kill -STOP $$\nexec "%s" "$@"\n' "$MEZZO" >"$scratch/mezzo"
    chmod +x "$scratch/mezzo"
    began=$SECONDS
    MEZZO="$scratch/mezzo" start run 2 runtime.start_timeout_s=4
    ended 75 15
    one_error 'the job has not come up within 4 s \(runtime.start_timeout_s\): MPI_Init waits for rank 1 \(stopped'
    ;;
  no_network)
    start run 2 "${endless[@]}"
    under_way run
    for rank in 0 1; do
      sockets="$(listening "$(process_of_rank "$rank")")"
      ! grep -vE '^(0100007F|0{24}01000000):' <<<"$sockets" | grep . || fail "rank $rank listens: $sockets"
    done
    kill -TERM "$script"
    ended 75
    ;;
  swept) # what shared memory and folders a job has, and nobody else's, goes with it however it ends
    mine="/dev/shm/vader_segment.$(hostname).$(id -u).7fff0001.0" # of a job that is not there
    trap 'rm -f "$mine"; finish' EXIT
    : >"$mine"
    for deed in all script launcher; do
      start "run-$deed" 2 "${endless[@]}"
      under_way "run-$deed"
      launcher_process="$(pgrep -P "$script" -x mpirun)"
      segments="$(sed -n 's:.* \(/dev/shm/[^ ]*\).*:\1:p' "/proc/$(process_of_rank 0)/maps" | sort -u)"
      sessions="$(echo "${TMPDIR:-/tmp}"/ompi.*/"pid.$launcher_process")"
      # shellcheck disable=SC2086  # several words
      if [ -z "$segments" ] || ! ls -d $segments $sessions >/dev/null; then fail "nothing that could be left behind"; fi
      case "$deed" in
        all) kill_job ;;
        script) kill -KILL "$script" ;;
        launcher) kill -KILL "$launcher_process" ;;
      esac
      wait "$script" 2>/dev/null || true
      for ((i = 0; i < 200; ++i)); do
        # shellcheck disable=SC2086
        left="$(ls -d $segments $sessions 2>/dev/null || true)"
        [ -n "$left$(job_processes)" ] || break
        sleep 0.1
      done
      [ -z "$left" ] || fail "$deed was killed: left behind: $left"
    done
    [ -e "$mine" ] || fail "somebody else's segment is gone"
    ;;
  *)
    echo "local_test.sh: no case \"$1\"" >&2
    exit 2
    ;;
esac
