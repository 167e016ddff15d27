package precision

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/telemetry"
)

func (b *backend) pathMetrics() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "metrics/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "metrics"},
		Fields: map[string]*framework.FieldSchema{
			"format": {
				Type:         framework.TypeString,
				Query:        true,
				Description:  "json, or prometheus for the text that Prometheus scrapes. Default: json.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Format"},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:                  b.readMetrics,
				Summary:                   "Read what the engine has done, and how its targets are.",
				ForwardPerformanceStandby: true,
			},
		},
		HelpSynopsis:    "Read what the engine has done, and how its targets are.",
		HelpDescription: strings.TrimSpace(metricsHelp),
	}}
}

func (b *backend) readMetrics(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	b.grants.Start(req.Storage, b.writes) // so that there is something to say of the ledger, some time
	format := data.Get("format").(string)
	switch format {
	case "", "json":
		answer, err := asData(b.metrics(ctx, req.Storage))
		if err != nil {
			return nil, err
		}
		return &logical.Response{Data: answer}, nil
	case "prometheus":
		return &logical.Response{Data: map[string]any{
			logical.HTTPContentType: telemetry.ContentType,
			logical.HTTPRawBody:     b.metrics(ctx, req.Storage).Text(),
			logical.HTTPStatusCode:  http.StatusOK,
		}}, nil
	default:
		return refuse(invalid.Field("format", format, "not a format", "write "+invalid.OneOf([]string{"json", "prometheus"})))
	}
}

// metrics is what has been counted, with what can be seen now.
func (b *backend) metrics(ctx context.Context, storage logical.Storage) telemetry.Snapshot {
	shown, index, now := b.grants.Metrics.Snapshot(), b.grants.Index, b.grants.Now()
	shown.Ledger.InMemory, shown.Ledger.Damaged = b.grants.Ready(), index.Damaged()
	shown.Ledger.Restored = b.grants.KnownOlder() != nil
	unended, untidy := map[string]int{}, map[string]int{}
	if shown.Ledger.InMemory {
		for _, grant := range index.Unended() {
			unended[grant.Target]++
		}
		untidy = b.untidy()
	}
	for name, target := range shown.Targets {
		state := b.grants.State(name)
		target.Present = telemetry.Present{
			Answers:  !state.Down,
			UnderWay: telemetry.UnderWay{Mints: state.Mints, Revokes: state.Revokes, Waiting: state.Waiting},
		}
		if state.Down {
			target.Present.Since = &state.Since
		}
		if shown.Ledger.InMemory {
			target.Present.Live, target.Present.Unended = new(index.Count(ledger.Query{Target: name}, now)), new(unended[name])
			target.Present.Untidy = new(untidy[name])
		}
		if ahead, known := b.clockSkew(ctx, storage, name); known {
			target.Present.ClockSkew = &ahead
		}
		shown.Targets[name] = target
	}
	return shown
}

// asData is a value in the form that an answer's data has.
func asData(value any) (map[string]any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	var data map[string]any
	if err := json.Unmarshal(text, &data); err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return data, nil
}

const metricsHelp = `
What the engine has done since its process started on this node: for each target
that it has used how many credentials were minted and ended, how that came out
and how long the target took; whether the target answers; how many grants live
on it; and what the sweeper and the ledger do.

"format=prometheus" answers with the text that Prometheus scrapes: let it read
/v1/<mount>/metrics?format=prometheus with a Vault token whose policy lets it
read "<mount>/metrics". Nothing in it is secret.
`
