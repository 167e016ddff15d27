#!/usr/bin/env bash
# Checks what a compiler does not.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l .)
if [[ -n $unformatted ]]; then
  printf 'check: run gofmt on\n%s\n' "$unformatted" >&2
  exit 1
fi
echo "check: go mod tidy"
go mod tidy -diff
echo "check: go vet"
go vet ./...
echo "check: staticcheck"
staticcheck ./...
echo "check: servers are not linked into the plugin"
linked=$(go list -deps ./cmd/vault-plugin-secrets-precision)
if grep -E '^github.com/(hashicorp/vault|minio/[^/]+)(/|$)' <<<"$linked" | grep -vE '^github.com/hashicorp/vault/(api|sdk)(/|$)'; then
  echo "check: the plugin links a server" >&2
  exit 1
fi
echo "check: govulncheck"
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if govulncheck ./... >"$report" 2>&1; then
  tail -n 1 "$report"
elif grep -q 'vuln.go.dev' "$report" && ! grep -q '^Vulnerability #' "$report"; then
  echo "check: govulncheck was left out: its data can't be reached from here"
else
  cat "$report" >&2
  exit 1
fi
echo "check: all is well"
