#!/usr/bin/env bash
# Runs every fuzz test for the given time; go test takes one at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . | while IFS=: read -r file _ name; do
  go test -run '^$' -fuzz "^${name#func }\$" -fuzztime "$1" "$(dirname "$file")"
done
