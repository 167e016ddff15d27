package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// resetStory is of somebody on call at night who has to reset one secret.
var resetStory = story{
	title:   "Reset one secret, once, on the record",
	servers: lab.Options{NoStore: true, OtherVault: true},
	scenes: func(d *demo) []func() error {
		return []func() error{d.admitEngine, d.defineReset, d.resetOnce, d.wasteAUse, d.readRecord}
	},
	moral: "Both Vaults are stopped and their files removed.",
}

const payments = "secret/data/payments/db"

func (d *demo) admitEngine() error {
	d.title("1. The payments team's own Vault lets the engine in, with the least policy that it needs")
	if _, err := d.atPayments(d.Other.Root, "", "kv", "put", "-mount=secret", "payments/db", "password=leaked-last-night"); err != nil {
		return err
	}
	d.say("The engine's own token there may write policies and token roles of its own, and can read no secret:")
	token, err := lab.EngineToken(d.ctx, d.Other.Client, "1h")
	if err != nil {
		return err
	}
	if err := d.refusedByPayments(token, "the engine's own token", "kv", "get", "-mount=secret", "payments/db"); err != nil {
		return err
	}
	if _, err := d.vault("secrets", "enable", "-path=precision", lab.PluginName); err != nil {
		return err
	}
	_, err = d.vault("write", "precision/config/payments", "type=vault", "address="+d.Other.Address, "token="+token)
	return err
}

func (d *demo) defineReset() error {
	d.title("2. An operator says what may be done: overwrite this one secret, once")
	d.say("What is not one path of that Vault is refused, with what would be right:")
	for _, path := range []string{"secret/payments/db", "secret/data/+/db", "sys/policies/acl/admin"} {
		if err := d.refusedByVault("write", "precision/roles/reset-db", "target=payments", "action=update", "resource="+path); err != nil {
			return err
		}
	}
	if _, err := d.vault("write", "precision/roles/reset-db", "target=payments", "action=update", "resource="+payments, "uses=1", "ttl=15m"); err != nil {
		return err
	}
	d.say("Who is on call may read a credential of it, and is one of Vault's users: here, alice.")
	return d.admitAlice()
}

// admitAlice makes a user whose only right is to read credentials of the role.
func (d *demo) admitAlice() error {
	client := d.Vault.Client
	if err := client.Sys().PutPolicyWithContext(d.ctx, "on-call", `path "precision/creds/reset-db/*" { capabilities = ["read"] }`); err != nil {
		return err
	}
	if err := client.Sys().EnableAuthWithOptionsWithContext(d.ctx, "userpass", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		return err
	}
	login := map[string]any{"password": "alice's own", "token_policies": "on-call"}
	if _, err := client.Logical().WriteWithContext(d.ctx, "auth/userpass/users/alice", login); err != nil {
		return err
	}
	answer, err := client.Logical().WriteWithContext(d.ctx, "auth/userpass/login/alice", map[string]any{"password": login["password"]})
	if err != nil {
		return err
	}
	d.alice = answer.Auth.ClientToken
	return nil
}

func (d *demo) resetOnce() error {
	d.title("3. Incident INC-7: alice resets the password")
	d.token = d.alice
	minted, err := d.readAll("precision/creds/reset-db/INC-7")
	if err != nil {
		return err
	}
	d.say("The token is for the other Vault, and good for one request:")
	if _, err := d.atPayments(minted["token"], "the token", "kv", "put", "-mount=secret", "payments/db", "password=new-one"); err != nil {
		return err
	}
	return d.refusedByPayments(minted["token"], "the token once more", "kv", "put", "-mount=secret", "payments/db", "password=another-one")
}

func (d *demo) wasteAUse() error {
	d.title("4. It can do nothing else, and not even try twice")
	d.say("A second token of the same task is used for looking around. That is refused, and its one use is gone:")
	minted, err := d.readAll("precision/creds/reset-db/INC-7")
	if err != nil {
		return err
	}
	if err := d.refusedByPayments(minted["token"], "a second token, reading", "read", payments); err != nil {
		return err
	}
	if err := d.refusedByPayments(minted["token"], "the second token, writing", "kv", "put", "-mount=secret", "payments/db", "password=x"); err != nil {
		return err
	}
	d.say("A third one is never used. The incident is closed: all of the task ends.")
	if _, err := d.readAll("precision/creds/reset-db/INC-7"); err != nil {
		return err
	}
	d.token = "" // the operator
	_, err = d.vault("lease", "revoke", "-sync", "-prefix", "precision/creds/reset-db/INC-7")
	return err
}

func (d *demo) readRecord() error {
	d.title("5. The review: who has reset what, when, and how did it end?")
	output, err := d.vault("list", "precision/grants/by-task/INC-7")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	const header = 2
	if len(lines) != header+3 {
		return fmt.Errorf("the record has %d grants, want 3", len(lines)-header)
	}
	unused := 0
	for _, id := range lines[header:] {
		output, err := d.vault("read", "precision/grants/"+strings.TrimSpace(id))
		if err != nil {
			return err
		}
		if !strings.Contains(output, "userpass-alice") {
			return errors.New("the record does not say who has read the credential")
		}
		if strings.Contains(output, "token:live uses:1 uses_left:1") {
			unused++
		}
	}
	d.say("\"at_end\" is what the other Vault knew of each token right before it was ended: one was")
	d.say("never used; the others it knew no more, as it is when their uses are used up. Its own audit")
	d.say("log has each request, with the grant's id.")
	if unused != 1 {
		return fmt.Errorf("%d tokens were never used by the record, want 1", unused)
	}
	return nil
}

// atPayments runs a command of Vault's tool at the other Vault, and shows it.
func (d *demo) atPayments(token, whose string, arguments ...string) (string, error) {
	output, err := d.payments(token, whose, arguments)
	if err != nil {
		d.show(output)
		return "", fmt.Errorf("vault %s at the other Vault: %w", arguments[0], err)
	}
	fmt.Println("  " + d.green("ALLOWED"))
	fmt.Println()
	return output, nil
}

// refusedByPayments runs one that the other Vault is to refuse.
func (d *demo) refusedByPayments(token, whose string, arguments ...string) error {
	output, err := d.payments(token, whose, arguments)
	if err == nil {
		return fmt.Errorf("vault %s was to be refused", strings.Join(arguments, " "))
	}
	if exit := new(exec.ExitError); !errors.As(err, &exit) || !strings.Contains(output, "Code: 403") {
		d.show(output)
		return err
	}
	_, reason, _ := strings.Cut(output, "* ")
	fmt.Println("  " + d.red("REFUSED") + "  " + strings.Join(strings.Fields(reason), " "))
	fmt.Println()
	return nil
}

func (d *demo) payments(token, whose string, arguments []string) (string, error) {
	with := ""
	if whose != "" {
		with = "   # with " + whose
	}
	fmt.Println("  " + d.bold("payments$ vault "+strings.Join(arguments, " ")) + with)
	command := exec.CommandContext(d.ctx, d.Other.Binary, arguments...)
	command.Env = append(os.Environ(), "VAULT_ADDR="+d.Other.Address, "VAULT_TOKEN="+token, "VAULT_CLI_NO_COLOR=1")
	output, err := command.CombinedOutput()
	return string(output), err
}
