package aws

import (
	"errors"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// identity is how the engine itself gets credentials: with a key or from the
// machine's chain, and from there perhaps by a role that it assumes; or with a
// web identity token.
type identity struct {
	accessKey, secretKey string // both empty: the machine's chain
	role, externalID     string // empty: none is assumed
	tokenFile            string // empty: no web identity
}

const (
	fieldAssumeRole       = "assume_role_arn"
	fieldAssumeExternalID = "assume_role_external_id"
	fieldTokenFile        = "web_identity_token_file"
)

var (
	// roleShape is a role's ARN, its path and name included.
	roleShape = regexp.MustCompile(`\Aarn:(?:aws|aws-cn|aws-us-gov):iam::[0-9]{12}:role/(?:[!-~]{1,510}/)?[\w+=,.@-]{1,64}\z`)
	// tokenShape is a signed token of three parts, RFC 7515.
	tokenShape = regexp.MustCompile(`\A[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\z`)
)

// maxToken is the longest web identity token that STS takes, in bytes.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
const maxToken = 20000

func newIdentity(settings provider.Settings) (identity, error) {
	known := identity{
		accessKey: settings.Text("access_key"), secretKey: settings.Text("secret_key"),
		role: settings.Text(fieldAssumeRole), externalID: settings.Text(fieldAssumeExternalID), tokenFile: settings.Text(fieldTokenFile),
	}
	const both = "give both, or neither to use the machine's AWS credential chain"
	switch {
	case known.accessKey == "" && known.secretKey != "":
		return identity{}, invalid.Field("access_key", known.accessKey, "missing beside secret_key", both)
	case known.accessKey != "" && known.secretKey == "":
		return identity{}, invalid.Hidden("secret_key", "missing beside access_key", both)
	case known.role != "" && !roleShape.MatchString(known.role):
		return identity{}, invalid.Field(fieldAssumeRole, known.role, "not the ARN of a role", "write it as arn:aws:iam::123456789012:role/name")
	case known.externalID != "" && !isExternalID(known.externalID):
		return identity{}, invalid.Field(fieldAssumeExternalID, known.externalID, "not an external id", "use 2 to 1224 letters, digits and _+=,.@:/-")
	case known.externalID != "" && known.role == "":
		return identity{}, invalid.Field(fieldAssumeRole, known.role, "missing beside "+fieldAssumeExternalID, "name the role that it is for")
	case known.tokenFile == "":
		return known, nil
	case known.role == "":
		return identity{}, invalid.Field(fieldAssumeRole, known.role, "missing beside "+fieldTokenFile, "name the role that the token may assume")
	case known.accessKey != "":
		return identity{}, invalid.Hidden("access_key", "with "+fieldTokenFile+" no key is used", "leave the key or the file out")
	case known.externalID != "":
		return identity{}, invalid.Field(fieldAssumeExternalID, known.externalID, "a web identity assumes its role without one", "leave it out")
	case !filepath.IsAbs(known.tokenFile):
		return identity{}, invalid.Field(fieldTokenFile, known.tokenFile, "not an absolute path", "write it from / on")
	}
	return known, checkTokenReader(settings.Text("sts_endpoint"))
}

// stsHost is a host of STS, private endpoints among them. Below the same domains
// AWS answers for its customers, too, such as at execute-api.
// https://docs.aws.amazon.com/general/latest/gr/sts.html
var stsHost = regexp.MustCompile(`\A(?:vpce-[a-z0-9-]+\.)?sts(?:-fips)?(?:\.[a-z]+(?:-[a-z]+)+-[0-9]+)?(?:\.vpce)?\.(?:amazonaws\.com|amazonaws\.com\.cn|api\.aws)\z`)

// checkTokenReader refuses to send a web identity token to anybody but AWS, or a
// stand-in on the same machine: who gets it can act as the machine.
func checkTokenReader(text string) error {
	if text == "" {
		return nil
	}
	endpoint, err := url.Parse(text)
	if err != nil {
		return invalid.Hidden("sts_endpoint", "not a URL", "write it as https://host:port")
	}
	address, err := netip.ParseAddr(endpoint.Hostname())
	if (err == nil && address.Unmap().IsLoopback()) || (endpoint.Scheme == "https" && stsHost.MatchString(endpoint.Hostname())) {
		return nil
	}
	return invalid.Field("sts_endpoint", text, "a web identity token is sent to AWS only", "leave it out, or name an https endpoint of STS, as https://sts.eu-west-1.amazonaws.com")
}

// provide returns where the engine's credentials come from: cached, and fetched
// anew before they expire. base is for the machine's chain; ask makes a client
// of STS that signs with given credentials.
func (known identity) provide(base awssdk.CredentialsProvider, ask func(awssdk.CredentialsProvider) *sts.Client) awssdk.CredentialsProvider {
	const early = time.Minute // before they expire
	cached := func(source awssdk.CredentialsProvider) awssdk.CredentialsProvider {
		return awssdk.NewCredentialsCache(source, func(o *awssdk.CredentialsCacheOptions) { o.ExpiryWindow = early })
	}
	if known.tokenFile != "" {
		return cached(stscreds.NewWebIdentityRoleProvider(ask(awssdk.AnonymousCredentials{}), known.role, tokenFile(known.tokenFile),
			func(o *stscreds.WebIdentityRoleOptions) { o.RoleSessionName = ownSession }))
	}
	if known.accessKey != "" {
		base = credentials.NewStaticCredentialsProvider(known.accessKey, known.secretKey, "")
	}
	if known.role == "" {
		return base
	}
	return cached(stscreds.NewAssumeRoleProvider(ask(base), known.role, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = ownSession
		if known.externalID != "" {
			o.ExternalID = awssdk.String(known.externalID)
		}
	}))
}

// ownSession is the name that the engine's own sessions have in CloudTrail.
const ownSession = "vault-precision"

// tokenFile reads a web identity token. The file is somewhere on Vault's own
// machine, named by who may write config/: what is no token is not sent off.
type tokenFile string

// GetIdentityToken implements stscreds.IdentityTokenRetriever. The error is an
// *invalid.Error.
func (path tokenFile) GetIdentityToken() ([]byte, error) {
	wrong := func(problem string) error {
		return invalid.Field(fieldTokenFile, string(path), problem, "name the file that the platform writes the token to")
	}
	if known, err := os.Stat(string(path)); err == nil && !known.Mode().IsRegular() {
		return nil, wrong("it is no file") // reading a pipe might never end
	}
	file, err := os.Open(string(path))
	if err != nil {
		return nil, wrong("it can't be read: " + reason(err))
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	if err != nil {
		return nil, wrong("it can't be read: " + reason(err))
	}
	token := strings.TrimSpace(string(text))
	if len(token) > maxToken || !tokenShape.MatchString(token) {
		return nil, wrong("it holds no web identity token")
	}
	return []byte(token), nil
}

func reason(err error) string {
	var fromPath *os.PathError
	if errors.As(err, &fromPath) {
		return fromPath.Err.Error()
	}
	return err.Error()
}

// explain turns a failure to get the engine's own credentials into what the
// operator can mend. It is nil for what is none of theirs.
// Codes: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html#API_AssumeRole_Errors
func (known identity) explain(err error) error {
	var mendable *invalid.Error
	if errors.As(err, &mendable) {
		return mendable
	}
	code := errorCode(err)
	switch code {
	case "InvalidIdentityToken", "InvalidIdentityTokenException", "ExpiredTokenException", "IDPRejectedClaim", "IDPRejectedClaimException":
		return invalid.Field(fieldTokenFile, known.tokenFile, "AWS does not take the token: "+code, "check the token's audience and age, and the identity provider in the account")
	case "AccessDenied", "ValidationError", "NoSuchEntity":
		if known.role == "" {
			return nil
		}
		remedy := "let its trust policy name who the engine is"
		if known.tokenFile == "" {
			remedy += ", with the external id if it asks for one, and allow that identity sts:AssumeRole on it"
		}
		return invalid.Field(fieldAssumeRole, known.role, "AWS does not let the engine assume it: "+code, remedy)
	}
	if code == "" && known.accessKey == "" && known.tokenFile == "" && (known.role == "" || !unreachable(err)) {
		return invalid.Hidden("access_key", "missing, and the machine's AWS credential chain has none: "+invalid.Clip(err.Error()), "give access_key and secret_key, or set up the chain")
	}
	return nil
}
