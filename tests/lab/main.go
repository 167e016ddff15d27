package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Main runs a package's tests on a lab that they share, and returns the code to exit
// with. That the race detector in the plugin has found something fails them, too.
func Main(tests interface{ Run() int }, options Options, shared **Lab) int {
	started, err := Start(context.Background(), options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer started.Close()
	*shared = started
	code := tests.Run()

	started.Stop() // the plugin's last words are in the log then
	log, err := os.ReadFile(started.Vault.Log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if at := strings.Index(string(log), "DATA RACE"); at >= 0 {
		fmt.Fprintf(os.Stderr, "the race detector found this in the plugin:\n%s\n", log[at:min(len(log), at+8000)])
		return 1
	}
	return code
}
