package minio

import (
	"errors"

	"github.com/aws/smithy-go"
)

// throttled are the codes of MinIO's answers to who asks too much.
// https://github.com/minio/minio, cmd/api-errors.go
var throttled = map[string]bool{"SlowDownRead": true, "SlowDownWrite": true, "TooManyRequests": true}

// Throttled implements provider.Throttler.
func (m *minio) Throttled(err error) bool {
	var fromSTS smithy.APIError
	var fromAdmin *apiError
	switch {
	case errors.As(err, &fromSTS):
		return throttled[fromSTS.ErrorCode()]
	case errors.As(err, &fromAdmin):
		return throttled[fromAdmin.code]
	default:
		return false
	}
}
