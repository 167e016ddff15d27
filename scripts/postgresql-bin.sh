#!/usr/bin/env bash
# Prints the folder that the PostgreSQL server's programs are in: on PATH, or where
# Debian and macOS's package managers put the newest version.
set -euo pipefail
if command -v postgres >/dev/null && command -v initdb >/dev/null; then
  dirname "$(command -v postgres)"
  exit
fi
for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin | sort -rV); do
  if [[ -x $folder/postgres && -x $folder/initdb ]]; then
    echo "$folder"
    exit
  fi
done
echo "no PostgreSQL server is installed" >&2
exit 1
