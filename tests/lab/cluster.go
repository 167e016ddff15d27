package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

const raftStorage = `storage "raft" {
  path                   = %q
  node_id                = %q
  performance_multiplier = 1
%s}
`

const raftPeer = `  retry_join {
    leader_api_addr = "http://127.0.0.1:%d"
  }
`

// startCluster starts a Vault of several nodes that share their storage through
// Raft. The first is initialised, and the others join it.
func (l *Lab) startCluster(ctx context.Context, nodes int) error {
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return err
	}
	for i := range nodes {
		name := fmt.Sprintf("vault-%d", i)
		folder := filepath.Join(l.Folder, name)
		if err := makeFolder(folder); err != nil {
			return err
		}
		var peers strings.Builder
		for other := range nodes {
			if other != i {
				fmt.Fprintf(&peers, raftPeer, ports[2*other])
			}
		}
		node, err := l.newVault(name, ports[2*i:2*i+2], fmt.Sprintf(raftStorage, folder, name, peers.String()))
		if err != nil {
			return err
		}
		if err := node.up(ctx); err != nil {
			return err
		}
		l.Nodes = append(l.Nodes, node)
	}
	l.Vault = l.Nodes[0]
	if err := l.Vault.setUp(ctx, l.Plugin); err != nil {
		return err
	}
	for _, node := range l.Nodes[1:] {
		node.unseal, node.Root = l.Vault.unseal, l.Vault.Root
		node.Client.SetToken(node.Root)
		if err := node.open(ctx); err != nil {
			return err
		}
	}
	return l.Vault.voters(ctx, nodes)
}

// voters waits until so many nodes have a vote: one that has joined gets it
// once the leader has seen that it is stable, and can't lead before.
func (v *Vault) voters(ctx context.Context, nodes int) error {
	if _, err := v.Client.Logical().WriteWithContext(ctx, "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"}); err != nil {
		return fmt.Errorf("configuring Raft: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		state, err := v.Client.Sys().RaftAutopilotStateWithContext(ctx)
		if err == nil && state != nil && len(state.Voters) == nodes {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster's nodes do not all have a vote: %w", errors.Join(ctx.Err(), err))
		case <-time.After(pollInterval):
		}
	}
}

// Leader is the node that serves requests, once there is one of those that are
// given.
func Leader(ctx context.Context, nodes ...*Vault) (*Vault, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	for {
		for _, node := range nodes {
			if node.leads(ctx) {
				return node, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("the cluster has no leader")
		case <-time.After(pollInterval):
		}
	}
}

// leads says whether the node is active: it has set up all of its mounts.
func (v *Vault) leads(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.Address+"/v1/sys/health", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false // it does not run
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// StepDown makes the leader leave its place to another node. It returns when the
// leader has.
func (v *Vault) StepDown(ctx context.Context) error {
	if err := v.Client.Sys().StepDownWithContext(ctx); err != nil {
		return fmt.Errorf("stepping down: %w", err)
	}
	return nil
}
