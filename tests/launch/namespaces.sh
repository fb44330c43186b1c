#!/usr/bin/env bash
# Several hosts on one machine: network namespaces on one switch, each with a host name of its own. Needs root.
#   namespaces.sh up N              makes mezzo-1 ... mezzo-N; MEZZO_TEST_HOSTS names others than mezzo
#   namespaces.sh on HOST COMMAND   runs a command there; as Open MPI's plm_rsh_agent: "namespaces.sh on". With
#                                   MEZZO_TEST_HOSTNAME all hosts say that this is their name
#   namespaces.sh cut HOST          pulls its cable; mend HOST puts it back
#   namespaces.sh down              ends what runs there and removes all
set -euo pipefail

prefix="${MEZZO_TEST_HOSTS:-mezzo}"
switch="$prefix-switch"

hosts() { ip netns list | sed -n "s/^\($prefix-[0-9]*\)\( .*\)\?\$/\1/p"; }

down() {
  local host
  for host in $(hosts); do
    # shellcheck disable=SC2046  # several numbers, or none
    kill -KILL $(ip netns pids "$host") 2>/dev/null || true
    ip netns del "$host"
    rm -rf "/etc/netns/$host"
  done
  if ip netns list | grep -q "^$switch"; then ip netns del "$switch"; fi
  rmdir --ignore-fail-on-non-empty /etc/netns 2>/dev/null || true
}

up() { # HOSTS
  local i host
  down
  ip netns add "$switch"
  ip -n "$switch" link add switch type bridge
  ip -n "$switch" link set switch up
  for ((i = 1; i <= $1; ++i)); do
    host="$prefix-$i"
    ip netns add "$host"
    ip -n "$host" link add eth0 type veth peer name "$host" netns "$switch"
    ip -n "$switch" link set "$host" master switch up
    ip -n "$host" addr add "10.77.0.$i/24" dev eth0
    ip -n "$host" link set eth0 up
    ip -n "$host" link set lo up
    mkdir -p "/etc/netns/$host" # `ip netns exec` puts it over /etc
    { echo '127.0.0.1 localhost' && for ((j = 1; j <= $1; ++j)); do echo "10.77.0.$j $prefix-$j"; done; } >"/etc/netns/$host/hosts"
  done
}

on() { # HOST COMMAND, words that a shell reads, as ssh has it
  local host="$1"
  shift
  # Shared memory of its own: MPI names what it has there by host name and rank.
  # shellcheck disable=SC2016  # for the inner shell
  exec ip netns exec "$host" unshare --uts sh -c 'hostname "$0" && mount -t tmpfs tmpfs /dev/shm && eval "exec $*"' "${MEZZO_TEST_HOSTNAME:-$host}" "$@"
}

case "${1:-}" in
  up) up "$2" ;;
  down) down ;;
  on) shift && on "$@" ;;
  cut) ip -n "$switch" link set "$2" down ;;
  mend) ip -n "$switch" link set "$2" up ;;
  *)
    sed -n '2,7p' "$0" >&2
    exit 2
    ;;
esac
