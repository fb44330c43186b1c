#!/usr/bin/env bash
# launch/local.sh as its users see it: local_test.sh CASE, with the executable in MEZZO. MEZZO_TEST_SLOWNESS multiplies the
# seconds that are allowed.
set -euo pipefail
set -m # background jobs heed INT, as in a terminal
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

scratch="$(mktemp -d)"
script=''
trap 'finish' EXIT
finish() {
  kill_job
  rm -rf "$scratch"
}

kill_job() {
  local pid
  while [ -n "$(job_processes)" ]; do
    for pid in $(job_processes); do kill -KILL "$pid" 2>/dev/null || true; done
  done
}

fail() {
  echo "FAILED: $*" >&2
  echo "--- what the job printed:" >&2
  cat "$scratch/err" >&2
  exit 1
}

# The arguments of a run; the last ones decide.
steps=12
declare -a small=(configs/quickstart.yaml train.batch_size=6 train.batch_slices=2 train.save_steps=5 train.hash_steps=4
  train.logging_steps=1 data.max_train_examples=40 data.validation=null runtime.threads=1)

start() { # RUN RANKS OVERRIDE ...
  local run="$1" ranks="$2"
  shift 2
  launch/local.sh -n "$ranks" "${small[@]}" train.output_dir="$scratch/$run" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null &
  script=$!
}

ended() { # CODE [SECONDS]: waits for the script and checks its exit code, and the time since `began`
  local code=0
  wait "$script" || code=$?
  local took=$((SECONDS - ${began:-SECONDS}))
  [ "$code" -eq "$1" ] || fail "exit code $code, expected $1"
  [ $# -lt 2 ] || [ "$took" -le $(($2 * ${MEZZO_TEST_SLOWNESS:-1})) ] || fail "ended after $took s, expected at most $2"
  [ -z "$(job_processes)" ] || fail "left behind: $(job_processes)"
}

job_processes() { pgrep -f "train.output_dir=$scratch/" || true; }

process_of_rank() {
  local pid
  for pid in $(job_processes); do
    if [ "$(cat "/proc/$pid/comm")" = mezzo ] && tr '\0' '\n' <"/proc/$pid/environ" | grep -x "OMPI_COMM_WORLD_RANK=$1" >/dev/null; then
      echo "$pid"
      return
    fi
  done
  fail "rank $1 is not there"
}

errors() { grep -c '^mezzo: error: ' "$scratch/err" || true; }

one_error() { # REGULAR EXPRESSION
  [ "$(errors)" -eq 1 ] || fail "$(errors) messages, expected one"
  grep -E "^mezzo: error: $1" "$scratch/err" >/dev/null || fail "no message like: $1"
}

under_way() { # RUN: waits for its first step
  local i
  for ((i = 0; i < 1200; ++i)); do
    if [ -s "$scratch/$1/metrics.jsonl" ]; then
      began=$SECONDS
      return
    fi
    kill -0 "$script" 2>/dev/null || fail "ended before its first step"
    sleep 0.05
  done
  fail "no first step"
}

hash_of() { "$MEZZO" info "$scratch/$1" --json | grep -o '"trainables_sha256":"[0-9a-f]*"'; }
step_of() { "$MEZZO" info "$scratch/$1" --json | grep -o '"step":[0-9]*' | grep -o '[0-9]*'; }

# Goes on with RUN on one rank, two steps further, and compares with a run that was never disturbed.
same_as_undisturbed() { # RUN
  local done_steps
  done_steps="$(step_of "$1")"
  start "$1" 1 train.max_steps=$((done_steps + 2))
  ended 0
  [ "$done_steps" -eq 0 ] || grep -x "going on from step $done_steps" "$scratch/err" >/dev/null || fail "did not go on from step $done_steps"
  start undisturbed 1 train.max_steps=$((done_steps + 2))
  ended 0
  [ "$(hash_of "$1")" = "$(hash_of undisturbed)" ] || fail "other trainables than those of an undisturbed run"
}

endless=(train.max_steps=100000)

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
  stop_at_start)
    start run 2 "${endless[@]}"
    sleep 0.2
    began=$SECONDS
    kill -TERM "$script"
    ended 75 10
    [ "$(errors)" -eq 0 ] || fail "a message"
    ;;
  stop_at_once) # the second TERM does not wait for a long step
    start run 2 "${endless[@]}" zo.directions=20000
    for ((i = 0; i < 1200; ++i)); do
      if grep '^first example' "$scratch/err" >/dev/null; then break; fi
      sleep 0.05
    done
    began=$SECONDS
    kill -TERM "$script"
    sleep 1
    kill -TERM "$script"
    ended 75 5
    [ "$(errors)" -eq 0 ] || fail "a message"
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
    one_error 'mpirun was ended by signal 9'
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
  *)
    echo "local_test.sh: no case \"$1\"" >&2
    exit 2
    ;;
esac
