package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// PluginPIDs are the plugin's processes that run from the server's plugin folder.
func (v *Vault) PluginPIDs(ctx context.Context) ([]int, error) {
	output, err := exec.CommandContext(ctx, "ps", "-A", "-o", "pid=,args=").Output()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], v.Plugins+"/") {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", line, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
