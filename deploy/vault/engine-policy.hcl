# What the precision engine is allowed at a Vault that it mints tokens on. Give this
# policy to its token or AppRole, under a name that does not start with "precision-".
# Who may write policies can reach everything that a policy can allow: see
# docs/vault.md.

# One policy for each path and capability that a role names.
path "sys/policies/acl/precision-*" {
  capabilities = ["read", "update", "delete"]
}

# One token role for each token that lives.
path "auth/token/roles/precision-*" {
  capabilities = ["create", "read", "delete"]
}

path "auth/token/create/precision-*" {
  capabilities = ["update"]
}

# Ends the tokens of these token roles, and no others.
path "sys/leases/revoke-prefix/auth/token/create/precision-*" {
  capabilities = ["update", "sudo"]
}

# What is left of a token's uses when it is ended. It shows no token.
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

# Finds token roles that the engine has lost.
path "auth/token/roles" {
  capabilities = ["list"]
}

# Which mounts there are, and of which type. It shows no secret.
path "sys/mounts" {
  capabilities = ["read"]
}

# The engine's own token.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "sys/capabilities-self" {
  capabilities = ["update"]
}
