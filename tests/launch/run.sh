# shellcheck shell=bash disable=SC2034
# A small run through a launch script, for tests to disturb and look at; to be sourced. The executable is in MEZZO,
# MEZZO_TEST_SLOWNESS multiplies the seconds that are allowed.
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

launcher=(launch/local.sh) # and its own arguments
endless=(train.max_steps=100000)
small=(configs/quickstart.yaml runtime.device=cpu train.batch_size=6 train.batch_slices=2 train.save_steps=5 train.hash_steps=4
  train.logging_steps=1 data.max_train_examples=40 data.validation=null runtime.threads=1
  zo.step_limit=null optimizer.lr_scheduler_type=constant)

start() { # RUN RANKS OVERRIDE ...
  local run="$1" ranks="$2"
  shift 2
  : >"$scratch/err" # the job makes it only once it has started
  "${launcher[@]}" -n "$ranks" "${small[@]}" train.output_dir="$scratch/$run" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null &
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

# The addresses in hex, "ADDRESS:PORT", on which a process listens for TCP connections or takes UDP.
listening() { # PROCESS
  local inode
  for inode in $(find "/proc/$1/fd" -lname 'socket:*' -printf '%l\n' | tr -dc '0-9\n'); do
    cat "/proc/$1/net/tcp" "/proc/$1/net/tcp6" | awk -v inode="$inode" '$10 == inode && $4 == "0A" { print $2 }'
    cat "/proc/$1/net/udp" "/proc/$1/net/udp6" | awk -v inode="$inode" '$10 == inode { print $2 }'
  done
}

errors() { grep -c '^mezzo: error: ' "$scratch/err" || true; }

one_error() { # REGULAR EXPRESSION
  [ "$(errors)" -eq 1 ] || fail "$(errors) messages, expected one"
  grep -E "^mezzo: error: $1" "$scratch/err" >/dev/null || fail "no message like: $1"
}

await() { # COMMAND ...: waits until it succeeds, which is when `began` is
  local i
  for ((i = 0; i < 1200; ++i)); do
    if "$@"; then
      began=$SECONDS
      return
    fi
    kill -0 "$script" 2>/dev/null || fail "ended before its first step"
    sleep 0.05
  done
  fail "no first step"
}

under_way() { await test -s "$scratch/$1/metrics.jsonl"; } # RUN: waits for its first step
before_first_step() { await grep -q '^first example' "$scratch/err"; }

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
