package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// AWSCLI is the AWS command line with one credential, for one endpoint.
type AWSCLI struct {
	path, endpoint, folder string
	key                    Key
}

// NewAWSCLI finds the AWS command line: the system's package, or the one on PATH. It
// works in the folder, and reads no settings of whoever runs it.
func NewAWSCLI(endpoint, folder string, key Key) (*AWSCLI, error) {
	for _, path := range []string{"/usr/bin/aws", "aws"} {
		if exec.Command(path, "--version").Run() == nil {
			return &AWSCLI{path, endpoint, folder, key}, nil
		}
	}
	return nil, errors.New(`the AWS CLI is not installed: run "scripts/tools.sh awscli"`)
}

// Run runs a command of the AWS command line, and returns what it prints. The error has
// what it says of its failure.
func (c *AWSCLI) Run(ctx context.Context, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, c.path, append(arguments, "--endpoint-url", c.endpoint)...)
	command.Dir = c.folder
	command.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.folder, "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
		"AWS_DEFAULT_REGION=" + Region, "AWS_ACCESS_KEY_ID=" + c.key.Access, "AWS_SECRET_ACCESS_KEY=" + c.key.Secret,
	}
	if c.key.Token != "" {
		command.Env = append(command.Env, "AWS_SESSION_TOKEN="+c.key.Token)
	}
	var refusal strings.Builder
	command.Stderr = &refusal
	output, err := command.Output()
	if err != nil {
		return string(output), fmt.Errorf("aws %s: %w: %s", strings.Join(arguments, " "), err,
			strings.TrimSpace(refusal.String()))
	}
	return string(output), nil
}
