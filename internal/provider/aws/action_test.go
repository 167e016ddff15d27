package aws

import (
	"strings"
	"testing"
)

// A name that is like no action has a remedy all the same.
func TestFindActionUnlikeAny(t *testing.T) {
	for _, name := range []string{"s3:Wut", "zzzzzzzzzz:Wut", "x"} {
		if _, err := FindAction(name); err == nil || strings.Contains(err.Error(), "nothing") || !strings.Contains(err.Error(), "catalog/") && !strings.Contains(err.Error(), "name ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
