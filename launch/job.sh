# shellcheck shell=bash
# shellcheck disable=SC2034  # run_job's results are for the scripts that source this
# What local.sh, hosts.sh and slurm.sbatch share: start a job, hand signals on in the way that lets its step end, end it
# within bounds, and say in one line and one exit code what became of it (docs/launching.md). To be sourced.

readonly MEZZO_DONE=0 MEZZO_ERROR=1 MEZZO_USAGE=2 MEZZO_STOPPED=75

# Seconds. A rank whose message came out leaves at once, and Open MPI brings the others down in two seconds.
readonly JOB_LEAVE_WITHIN=3    # from Mezzo's message, or from the launcher's on a rank, to the launcher's end
readonly JOB_GONE_WITHIN=2     # from the launcher's end to that of its processes, and then to their last line
readonly JOB_ASK_AGAIN_AFTER=5 # a request to stop that came before a rank could take note of it is lost

job_error() { printf 'mezzo: error: %s\n' "$*" >&2; }
job_usage_error() {
  job_error "$* (see --help)"
  exit "$MEZZO_USAGE"
}

# The executable: $MEZZO, or the release build that these scripts lie beside, or, where there is none, the installed one.
find_mezzo() { # FOLDER_OF_THE_SCRIPTS
  local mezzo="${MEZZO:-$(dirname "$1")/build/release/src/cli/mezzo}"
  if [ -z "${MEZZO:-}" ] && [ ! -e "$mezzo" ]; then mezzo="$(type -P mezzo || echo "$mezzo")"; fi
  if [ ! -x "$mezzo" ] || [ -d "$mezzo" ]; then
    job_error "no executable $mezzo: build it (cmake --preset release && cmake --build --preset release --target mezzo)," \
      "or name another one in the environment variable MEZZO"
    return "$MEZZO_USAGE"
  fi
  # Ranks on other hosts start in folders of their own.
  printf '%s/%s\n' "$(cd "$(dirname "$mezzo")" && pwd)" "$(basename "$mezzo")"
}

# The options of mpirun that every job has, in the array `mpirun`. `job_uri`: the file in which it says who it is.
find_mpirun() {
  if ! command -v mpirun >/dev/null; then
    job_error "no mpirun on the PATH: install Open MPI (Debian, Ubuntu: openmpi-bin), or run mezzo without a launcher on one rank"
    return "$MEZZO_USAGE"
  fi
  # Mezzo divides a host's cores among the ranks there (runtime.threads: auto). Open MPI would bind each of one or two
  # ranks to a single core, and more ranks to a socket each, threads and all.
  mpirun=(mpirun --bind-to none)
  # What is left of a job that was killed is known by this.
  job_uri="$(mktemp)"
  mpirun+=(--report-uri "$job_uri")
  if [ "$(id -u)" -eq 0 ]; then mpirun+=(--allow-run-as-root); fi # as in containers; mpirun refuses otherwise
  # mpirun and its daemons notice within 22 s that they are cut off from each other, instead of eight minutes: before Mezzo
  # gives up a start of which it cannot say who is missing, and so that a host that has lost the others is left clean.
  export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-10}"
  export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-3}"
  export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-4}"
}

# ---- what the launcher prints ---------------------------------------------------------------------------------------

# Copies the job's standard error, which it reads, line by line, and sends notes to run_job: `said` once Mezzo has printed its
# error, `death RANK HOST SIGNAL` of the first rank that was ended by a signal, `left CODE` of the first rank that left before
# any died (srun), `lost HOST` of a daemon that was lost, `folder PATH` of the run. The launcher's banners on deaths and exit
# codes are left out: the script says the same in a line.
job_filter() {
  trap '' INT TERM HUP USR1 PIPE # the last line has to get through
  local line banner='' inside=false said=false death=false left=false lost=false folder=false
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ "$line" =~ ^-{60,}$ ]]; then
      if ! $inside; then
        inside=true
        banner="$line"
        continue
      fi
      inside=false
      job_see_banner "$banner"$'\n'"$line"
    elif $inside && [[ "$line" != 'mezzo: '* ]]; then
      banner+=$'\n'"$line"
    else
      job_see_line "$line"
    fi
  done
  if $inside; then printf '%s\n' "$banner"; fi
}

# Notes are short, so that each comes through the pipe in one piece.
job_note() { printf '%s\n' "$*" >&"$job_notes"; }

job_see_line() { # LINE
  local task='^srun: error: ([^ ]+): tasks? ([0-9]+)[^:]*: (Killed|Terminated|Segmentation fault|Aborted|Bus error|Floating point exception|Illegal instruction|Hangup|Interrupt|User defined signal 1|CPU time limit exceeded)'
  local code='^srun: error: [^ ]+: tasks? [0-9][^:]*: Exited with exit code ([0-9]+)'
  local node='^srun: error: Node failure on ([^ ]+)'
  case "$1" in
    'mezzo: error: '*)
      if $said; then # two ranks that spoke at the same moment: the first is the job's message
        printf 'mezzo: warning: then: %s\n' "${1#mezzo: error: }"
        return
      fi
      said=true
      job_note said
      ;;
    'mpirun: Forwarding signal '*) return ;;
    '  train.output_dir: '* | '  output_dir: '*) # of the config that the run prints, where the path is absolute
      $folder || job_note folder "${1#*output_dir: }"
      folder=true
      ;;
    'srun: error: '*)
      if [[ "$1" =~ $code ]]; then
        $left || $death || job_note left "${BASH_REMATCH[1]}"
        left=true
      elif [[ "$1" =~ $task ]]; then
        $left || $death || job_note death "${BASH_REMATCH[2]} ${BASH_REMATCH[1]} $(job_signal_number "${BASH_REMATCH[3]}")"
        death=true
      elif [[ "$1" =~ $node ]]; then
        $lost || job_note lost "${BASH_REMATCH[1]}"
        lost=true
      fi
      ;;
  esac
  printf '%s\n' "$1"
}

job_see_banner() { # TEXT
  local text="${1//$'\n'/ }"
  local ended='noticed that process rank ([0-9]+) .*on node ([^ ]+) exited on +signal ([0-9]+)'
  local gone='lost communication with a remote daemon.* Remote daemon: +[^ ]+ on node ([^ ]+)'
  if [[ "$text" =~ $ended ]]; then
    $death || job_note death "${BASH_REMATCH[*]:1:3}"
    death=true
  elif [[ "$text" =~ $gone ]]; then
    $lost || job_note lost "${BASH_REMATCH[1]}"
    lost=true
  elif [[ "$text" != *'a non-zero exit code. Per user-direction, the job has been aborted'* &&
    "$text" != *'processes exited with non-zero status, thus causing'* && "$text" != *'MPI_ABORT was invoked on rank'* ]]; then
    printf '%s\n' "$1"
  fi
}

job_signal_number() { # NAME as strsignal gives it
  case "$1" in
    Hangup) echo 1 ;; Interrupt) echo 2 ;; 'Illegal instruction') echo 4 ;; Aborted) echo 6 ;; 'Bus error') echo 7 ;;
    'Floating point exception') echo 8 ;; Killed) echo 9 ;; 'User defined signal 1') echo 10 ;;
    'Segmentation fault') echo 11 ;; 'CPU time limit exceeded') echo 24 ;; *) echo 15 ;;
  esac
}

job_signal_name() { # NUMBER
  case "$1" in
    1) echo Hangup ;; 2) echo Interrupt ;; 4) echo 'Illegal instruction' ;; 6) echo Aborted ;; 7) echo 'Bus error' ;;
    8) echo 'Floating point exception' ;; 9) echo Killed ;; 11) echo 'Segmentation fault' ;; 15) echo Terminated ;;
    *) echo "SIG$(kill -l "$1")" ;;
  esac
}

# Whether a signal is the process's own doing: a bug, which the same command would only meet again.
job_is_crash() { # NUMBER
  case "$1" in 4 | 5 | 6 | 7 | 8 | 11 | 31) return 0 ;; *) return 1 ;; esac
}

# ---- the job --------------------------------------------------------------------------------------------------------

# The launcher and what it has started on this host: it began a session, which ranks whose mpirun has died are still in.
job_session() { # PID_OF_THE_LAUNCHER
  ps -o pid=,state= -s "$1" | while read -r pid state; do [ "$state" = Z ] || printf '%s\n' "$pid"; done
}

# Ends it at once. Daemons on other hosts and Slurm's steps notice.
job_kill() { # PID_OF_THE_LAUNCHER
  # shellcheck disable=SC2046  # several numbers, or none
  kill -KILL $(job_session "$1") 2>/dev/null || true
}

# Sleeps on a pipe that says nothing, which needs no process and ends when a signal comes.
job_sleep() { read -rt "$1" -u "$job_never" || true; } # SECONDS

# Takes a note from the filter, if there is one. A read with a time limit would lose what it had read when the limit struck.
job_take_note() {
  local note
  read -t 0 -u "$job_notes" || return 1
  IFS= read -r -u "$job_notes" note
  case "$note" in
    said) said=true ;;
    'death '*) death="${note#death }" ;;
    'left '*) left="${note#left }" ;;
    'lost '*) lost="${note#lost }" ;;
    'folder '*) job_folder="${note#folder }" ;;
  esac
}

# Waits for a process to end, but not for long.
job_await() { # PROCESS
  local by=$((SECONDS + JOB_GONE_WITHIN))
  while kill -0 "$1" 2>/dev/null && [ "$SECONDS" -lt "$by" ]; do job_sleep 0.05; done
}

# Runs a launcher's command to its end. TERM, INT, HUP and USR1 to the script ask the ranks to stop; a second one of TERM
# or INT ends the job at once. Leaves Mezzo's exit code in `job_code`, the run's folder, if it got that far, in `job_folder`.
run_job() { # COMMAND ...
  local launcher filter pipe tidier='' alive status=0 said=false death='' left='' lost=''
  local asked=0 asked_at='' hurry=0 leave_at=''
  trap 'asked=1; hurry=$((hurry + 1))' INT TERM
  trap 'asked=1' HUP USR1

  job_folder=''
  exec {job_never}<> <(:) {job_notes}<> <(:)
  exec {pipe}> >(job_filter >&2)
  filter=$!
  # Whoever may still clean up holds `alive` open: this script, and the launcher.
  if [ -n "${job_uri:-}" ]; then
    exec {alive}> >(exec setsid "$(dirname "${BASH_SOURCE[0]}")/tidy.sh" "$job_uri" >&2 {pipe}>&- {job_notes}>&- {job_never}>&-)
    tidier=$!
  fi
  # A session of its own: the terminal's INT is for this script, which passes on what the ranks need. Should the script
  # be killed, its death is the launcher's signal to bring the ranks down.
  local shield=(setsid)
  if setpriv --pdeathsig TERM true 2>/dev/null; then shield+=(setpriv --pdeathsig TERM); fi
  "${shield[@]}" "$@" </dev/null 2>&"$pipe" {pipe}>&- {job_notes}>&- {job_never}>&- &
  launcher=$!
  exec {pipe}>&-
  if [ -n "$tidier" ]; then echo "$launcher" >&"$alive"; fi

  while kill -0 "$launcher" 2>/dev/null; do
    while job_take_note; do :; done
    if [ "$hurry" -ge 2 ]; then
      asked=2
      job_kill "$launcher"
      break
    fi
    # USR1 is what mpirun and srun hand on to the ranks; TERM to mpirun kills them two seconds later.
    if [ "$asked" -eq 1 ] && { [ -z "$asked_at" ] || [ $((SECONDS - asked_at)) -ge "$JOB_ASK_AGAIN_AFTER" ]; }; then
      asked_at="$SECONDS"
      kill -USR1 "$launcher" 2>/dev/null || true
    fi
    # A launcher that cannot reach one of its hosts would wait for it longer than anybody wants to.
    if [ -z "$leave_at" ]; then
      if $said || [ -n "$death$lost" ]; then
        leave_at=$((SECONDS + JOB_LEAVE_WITHIN))
      fi
    elif [ "$SECONDS" -ge "$leave_at" ]; then
      job_kill "$launcher"
      break
    fi
    job_sleep 0.2
  done
  wait "$launcher" 2>/dev/null || status=$?
  trap '' INT TERM HUP USR1
  local gone_by=$((SECONDS + JOB_GONE_WITHIN))
  while [ -n "$(job_session "$launcher")" ] && [ "$SECONDS" -lt $((gone_by + JOB_GONE_WITHIN)) ]; do
    if [ "$SECONDS" -ge "$gone_by" ]; then job_kill "$launcher"; fi
    job_sleep 0.1
  done
  job_await "$filter"
  while job_take_note; do :; done
  if [ -n "$tidier" ]; then
    exec {alive}>&-
    job_await "$tidier"
  fi
  exec {job_notes}>&- {job_never}>&-
  job_conclude "$(basename "$1")"
  trap - INT TERM HUP USR1
}

# Makes one exit code, and one line where Mezzo has not printed one, of what run_job knows about the job's end.
job_conclude() { # LAUNCHER
  local launcher="$1" rank='' host='' signal=0 what
  local on='committed steps are kept, and the same command goes on'
  # srun has the highest code of all ranks, and 137 of those that it has itself ended because of the first.
  if [ -n "$left" ] && [ "$status" -gt 128 ]; then status="$left"; fi
  if [ -n "$death" ]; then read -r rank host signal <<<"$death"; fi
  job_code="$MEZZO_STOPPED"

  if [ "$asked" -eq 2 ]; then
    printf 'mezzo: warning: ended at once, at the second signal; %s\n' "$on" >&2
  elif [ "$signal" -ne 0 ] && job_is_crash "$signal"; then
    job_code="$MEZZO_ERROR"
    what="rank $rank on $host crashed with signal $signal ($(job_signal_name "$signal")), which is a bug in it or in a library"
    if $said; then printf 'mezzo: warning: %s\n' "$what" >&2; else job_error "$what"; fi
  elif case "$status" in "$MEZZO_DONE" | "$MEZZO_STOPPED") true ;; "$MEZZO_ERROR" | "$MEZZO_USAGE") $said ;; *) false ;; esac then
    job_code="$status"
  elif $said; then
    : # which rank is missing
  elif [ "$asked" -eq 1 ]; then
    printf 'mezzo: warning: stopped before all ranks could take note of it; %s\n' "$on" >&2
  elif [ "$signal" -ne 0 ]; then
    job_error "rank $rank on $host was ended by signal $signal ($(job_signal_name "$signal")); $on"
  elif [ -n "$lost" ]; then
    job_error "the host $lost was lost; $on"
  elif [ "$status" -gt 128 ] && [ "$status" -le 192 ]; then
    # The launcher itself, or a rank that it has not named: it hands on such a status.
    job_error "$launcher or one of its ranks was ended by signal $((status - 128)) ($(job_signal_name $((status - 128)))); $on"
  else
    job_code="$MEZZO_ERROR"
    job_error "$launcher ended with status $status before Mezzo did; what it said is above"
  fi
}
