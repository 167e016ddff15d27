package ledger

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// One record that can't be read keeps none of the others from being known.
func TestADamagedInstallation(t *testing.T) {
	storage := &logical.InmemStorage{}
	sound := NewInstallation("db", "", provider.Handle{"role": "x"}, time.Now())
	if err := PutInstallation(t.Context(), storage, sound); err != nil {
		t.Fatal(err)
	}
	for _, entry := range []logical.StorageEntry{{Key: InstallPrefix + "torn", Value: []byte(`{"key":`)}, {Key: InstallPrefix + "other", Value: []byte(`{"key":"x"}`)}} {
		if err := storage.Put(t.Context(), &entry); err != nil {
			t.Fatal(err)
		}
	}
	all, damaged, err := Installations(t.Context(), storage)
	if err != nil || len(all) != 1 || all[0].Key != sound.Key || len(damaged) != 2 {
		t.Errorf("%v, damaged %q, %v", all, damaged, err)
	}
}
