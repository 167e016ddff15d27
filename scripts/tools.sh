#!/usr/bin/env bash
# Makes the tools that are named, all of them side by side: what is on PATH is
# used as it is, the rest is built from tests/tools/ into .cache/. What is built
# already, from the same module files, is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$PWD/.cache
mkdir -p "$cache/bin" "$cache/log"

package() {
  case $1 in
    vault) echo github.com/hashicorp/vault ;;
    minio) echo github.com/minio/minio ;;
    staticcheck) echo honnef.co/go/tools/cmd/staticcheck ;;
    govulncheck) echo golang.org/x/vuln/cmd/govulncheck ;;
    gotestsum) echo gotest.tools/gotestsum ;;
    *) echo "tools: \"$1\" is not a tool of this project" >&2; exit 1 ;;
  esac
}

module() {
  case $1 in
    vault | minio) echo "tests/tools/$1" ;;
    *) echo tests/tools/lint ;;
  esac
}

expected() {
  case $1 in
    vault) echo "about 8 minutes on 2 cores, once" ;;
    minio) echo "about 2 minutes on 2 cores, once" ;;
    *) echo "less than a minute, once" ;;
  esac
}

# build NAME: from its module, unless that has been done.
build() {
  local name=$1 folder made package
  folder=$(module "$name")
  package=$(package "$name")
  made=$(cat "$folder/go.mod" "$folder/go.sum" | cksum)
  if [[ -x $cache/bin/$name && $(cat "$cache/bin/$name.made" 2>/dev/null) == "$made" ]]; then
    return
  fi
  echo "tools: building $name ($(expected "$name"))"
  local started=$SECONDS
  # To a name of its own first: a build that is cut off leaves no half binary.
  CGO_ENABLED=0 go build -C "$folder" -trimpath -buildvcs=false -o "$cache/bin/.$name.new" "$package" >"$cache/log/$name" 2>&1 &
  local building=$!
  while kill -0 "$building" 2>/dev/null; do
    sleep 1
    if (((SECONDS - started) % 60 == 59)); then
      echo "tools: still building $name, $(((SECONDS - started + 1) / 60)) min"
    fi
  done
  if ! wait "$building"; then
    echo "tools: building $name failed; the end of .cache/log/$name:" >&2
    tail -n 20 "$cache/log/$name" >&2
    return 1
  fi
  mv "$cache/bin/.$name.new" "$cache/bin/$name"
  echo "$made" >"$cache/bin/$name.made"
  echo "tools: $name is built ($((SECONDS - started)) s)"
}

# moto is Python: a server on PATH, or one in an environment of its own.
moto() {
  if command -v moto_server >/dev/null || [[ -x $cache/moto/bin/moto_server ]]; then
    return
  fi
  if ! command -v python3 >/dev/null; then
    echo "tools: moto needs python3 with venv: install it with your package manager (Debian: apt-get install python3-venv)" >&2
    return 1
  fi
  echo "tools: installing moto 5.2.1 (less than a minute, once)"
  if ! { python3 -m venv "$cache/moto" && "$cache/moto/bin/pip" install --quiet 'moto[server]==5.2.1'; } >"$cache/log/moto" 2>&1; then
    rm -rf "$cache/moto"
    echo "tools: installing moto failed; put moto_server on PATH: pip install 'moto[server]==5.2.1'. The end of .cache/log/moto:" >&2
    tail -n 20 "$cache/log/moto" >&2
    return 1
  fi
}

pids=()
for name in "$@"; do
  if [[ $name == moto ]]; then
    moto &
  elif command -v "$name" >/dev/null; then
    continue
  else
    build "$name" &
  fi
  pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do
  wait "$pid" || failed=1
done
exit "$failed"
