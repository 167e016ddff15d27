// Package chaos holds proofs that nothing outlives its lease: the plugin in a
// real Vault while processes are killed, leaders step down, callers hang up and
// calls to targets are lost.
package chaos
