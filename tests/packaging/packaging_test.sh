#!/usr/bin/env bash
# Installs and packages this build's program, and looks at what comes of it:
#   packaging_test.sh install|man_pages|deb BUILD_FOLDER CMAKE CPACK VERSION PACKAGE
set -euo pipefail
build="$2" cmake="$3" cpack="$4" version="$5" package="$6"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

need() { # PROGRAM
  command -v "$1" >/dev/null || {
    echo "skipped: no $1; launch/install-packages.sh installs it" >&2
    exit 77
  }
}

is_there() { # PREFIX FILE ...
  local prefix="$1" file
  shift
  for file in "$@"; do
    [ -s "$prefix/$file" ] || fail "$file was not installed"
  done
}

# What an installation has wherever it is.
files=(bin/mezzo share/man/man1/mezzo.1 share/man/man1/mezzo-train.1 share/bash-completion/completions/mezzo
  share/fish/vendor_completions.d/mezzo.fish share/mezzo/configs/quickstart.yaml share/mezzo/configs/quickstart/llama2m/config.json
  share/mezzo/launch/local.sh share/mezzo/launch/hosts.sh share/mezzo/launch/slurm.sbatch share/mezzo/launch/job.sh
  share/mezzo/launch/tidy.sh share/doc/mezzo/README.md share/doc/mezzo/LICENSE share/doc/mezzo/docs/installing.md)

# The program below a prefix runs, and serves what lies beside it.
serves() { # PREFIX
  local prefix="$1"
  [ "$("$prefix/bin/mezzo" --version)" = "mezzo $version" ] || fail "$prefix/bin/mezzo --version"
  (cd "$prefix/share/mezzo" && ../../bin/mezzo validate configs/quickstart.yaml --quiet >/dev/null) || fail "the installed configs"
  local offered
  offered="$(bash -c "source '$prefix/share/bash-completion/completions/mezzo'
    COMP_LINE='mezzo tra' COMP_POINT=9; _mezzo; echo \"\${COMPREPLY[*]}\"")"
  [ "$offered" = train ] || fail "bash offers \"$offered\" for \"mezzo tra\""
}

install() {
  "$cmake" --install "$build" --prefix "$scratch/usr" >/dev/null
  is_there "$scratch/usr" "${files[@]}" share/zsh/site-functions/_mezzo
  serves "$scratch/usr"
  local found
  found="$(PATH="$scratch/usr/bin:$PATH" MEZZO='' bash -c "source '$scratch/usr/share/mezzo/launch/job.sh'
    find_mezzo '$scratch/usr/share/mezzo/launch'")"
  [ "$found" = "$scratch/usr/bin/mezzo" ] || fail "the installed scripts find \"$found\""
}

man_pages() {
  need mandoc
  "$cmake" --install "$build" --prefix "$scratch/usr" >/dev/null
  local pages="$scratch/usr/share/man/man1" verb count=0
  # The verbs that the program lists, each in a line of two blanks and its name.
  for verb in $("$scratch/usr/bin/mezzo" help | sed -n '/^Subcommands:/,$ s/^  \([a-z][a-z-]*\) .*/\1/p'); do
    is_there "$pages" "mezzo-$verb.1"
    grep -qF ".BR mezzo\\-${verb//-/\\-} (1)" "$pages/mezzo.1" || fail "mezzo.1 does not name mezzo-$verb"
    count=$((count + 1))
  done
  [ "$count" -ge 16 ] || fail "found $count verbs"
  [ "$(find "$pages" -type f | wc -l)" -eq $((count + 1)) ] || fail "there are pages of other than the verbs: $(ls "$pages")"
  mandoc -T lint "$pages"/*.1 >"$scratch/lint" 2>&1 || fail "mandoc -T lint: $(cat "$scratch/lint")"
  # Options are found as they are typed.
  mandoc -T ascii "$pages/mezzo-train.1" | sed "s/.$(printf '\b')//g" >"$scratch/train"
  for words in '--lr-find-min' '-q, --quiet' 'mezzo train [OPTIONS] config [overrides...]'; do
    grep -qF -e "$words" "$scratch/train" || fail "mezzo-train.1 lacks $words"
  done
}

deb() {
  need dpkg-deb
  need dpkg-shlibdeps
  need file # CPack looks with it for what is executable
  "$cpack" --config "$build/CPackConfig.cmake" -G DEB -B "$scratch/packages" >"$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
  local architecture deb
  architecture="$(dpkg --print-architecture)"
  deb="$scratch/packages/${package}_${version}_$architecture.deb"
  [ -f "$deb" ] || fail "no $deb: $(ls "$scratch/packages")"
  local other=mezzo
  [ "$package" != mezzo ] || other=mezzo-cuda
  [ "$(dpkg-deb -f "$deb" Package)" = "$package" ] || fail "it is called $(dpkg-deb -f "$deb" Package)"
  [ "$(dpkg-deb -f "$deb" Version)" = "$version" ] || fail "its version is $(dpkg-deb -f "$deb" Version)"
  [ "$(dpkg-deb -f "$deb" Conflicts)" = "$other" ] || fail "it conflicts with \"$(dpkg-deb -f "$deb" Conflicts)\""
  local library
  for library in libc6 libstdc++6 libhdf5 libyaml-cpp libfmt libonig libopenblas; do
    grep -qF "$library" <<<"$(dpkg-deb -f "$deb" Depends)" || fail "it does not depend on $library: $(dpkg-deb -f "$deb" Depends)"
  done
  local stray
  stray="$(dpkg-deb -c "$deb" | awk '$2 != "root/root" || $6 !~ "^\\./(usr/((bin|share)/.*)?)?$" { print }')"
  [ -z "$stray" ] || fail "not root's, or not below /usr/bin and /usr/share: $stray"
  dpkg-deb -x "$deb" "$scratch/unpacked"
  is_there "$scratch/unpacked/usr" "${files[@]}" share/zsh/vendor-completions/_mezzo "share/doc/$package/copyright"
  serves "$scratch/unpacked/usr"
}

case "$1" in
  install | man_pages | deb) "$1" ;;
  *) fail "no case $1" ;;
esac
