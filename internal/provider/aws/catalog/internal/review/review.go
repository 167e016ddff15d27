// Package review finds actions that should have a verdict on escalation and have
// none. AWS adds actions each week, and a reviewed action rarely stays alone: what
// UpdateJob does, UpdateJobFromSourceControl does too. Four generators look for
// them:
//
//   - Siblings: an action that writes the same thing as a refused one of its service
//   - Twins: an action with the name of a refused one of another service
//   - Guards: an action that writes an alarm, a log, a lock or their like
//   - Answers: an operation that answers with something named like a credential
//
// A hit is a question and no verdict. The verdicts are in the catalogue's tables.
package review

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode"
)

// Action is what the generators know of an action.
type Action struct {
	Name      string // "s3:PutObject"
	Writes    bool   // whether its access levels say more than Read and List
	Grantable bool   // whether a role can name it: AWS narrows it to a resource
}

// asks says whether an action is one that writes and that a role can name.
func (a Action) asks() bool { return a.Writes && a.Grantable }

// Hit is an action that needs a verdict, and why.
type Hit struct {
	Action string
	Reason string
}

// verbs start the names of actions. The first word of a name that is none of them
// belongs to the noun.
var verbs = set(`Abort Accept Access Activate Add Allocate Allow Apply Approve Assign Associate Assume Attach Authorize Build Bypass
	Cancel Change Clone Complete Configure Confirm Connect Continue Convert Copy Create Deactivate Deauthorize Define Delete Deny Deploy
	Deprecate Deregister Detach Disable Disallow Disassociate Disconnect Dispose Distribute Download Enable Evaluate Exchange Execute Export
	Failover Federate Finalize Generate Get Grant Import Increase Decrease Ingest Initialize Initiate Inject Install Instantiate Invite Invoke Issue
	Join Label Launch List Describe Lock Log Manage Mark Merge Migrate Modify Monitor Move Notify Open Override Pass Pause Poll Populate Post
	Prepare Process Promote Provision Publish Purchase Purge Push Put Query Read Rebalance Reboot Rebuild Record Redact Refresh Register Reject
	Release Reload Remove Rename Renew Reorder Replace Replicate Report Request Reset Resize Resolve Resend Respond Restart Restore Resume
	Retain Retire Retrieve Retry Return Reverse Revoke Rollback Rotate Run Save Scan Schedule Search Select Send Set Setup Share Sign Signal Skip
	Split Start Stop Stream Submit Subscribe Suspend Swap Switchover Sync Synchronize Tag Terminate Test Toggle Transfer Transform
	Transition Translate Trigger Unassign Unassociate Undeprecate Unlabel Unlink Unlock Unpublish Unshare Unsubscribe Untag Update Upgrade
	Upload Use Validate Verify View Withdraw Write`)

// prefixes stand before a verb and say how many or by whom.
var prefixes = set("Admin Batch Bulk")

// prepositions start what only qualifies a noun: MergePullRequest|BySquash.
var prepositions = set("By For From In Into Of On To Using Via With")

// qualifiers end a noun without making it another one: EventInvoke|Config.
var qualifiers = set(`Action Alias Async Attribute Batch Config Configuration Content Data Definition Detail Dry Info Item Job Member
	Metadata Option Parameter Property Preference Run Setting Specification State Status Task V2 V3 Version`)

// removers are verbs that take something away. They are no siblings of what makes
// or changes it; what they take away may be a guard.
var removers = set(`Abort Cancel Deactivate Delete Deprecate Deregister Detach Disable Disassociate Disconnect Dispose Pause Purge Reject
	Release Remove Reset Retire Revoke Stop Suspend Terminate Unassign Unlink Unsubscribe Withdraw`)

// guards are the nouns of what watches, keeps or limits.
var guards = set(`Acl Alarm Alert Anomaly Approval Audit Backup Baseline Budget Canary Compliance Detection Detector Dlp
	Encryption Evidence Finding Firewall Guardrail Insight Lock Log Logging Monitor Monitoring Protection Quarantine Quota
	Recorder Retention Safety Suppression Threat Trail Waf Watchlist Watermark`)

// guardPairs are guards whose name takes two words.
var guardPairs = set("IpSet RateLimit LegalHold WebAcl HealthCheck ThreatIntel PatchBaseline RegexPattern")

func set(words string) map[string]bool {
	result := map[string]bool{}
	for word := range strings.FieldsSeq(words) {
		result[word] = true
	}
	return result
}

// Siblings lists the writing actions that are about the same thing as an action of
// their service that is refused, or about a part of it.
func Siblings(actions []Action, refused func(name string) bool) []Hit {
	whole, begins := map[string]string{}, map[string]string{} // a noun of a service, or two of its words or more: an action
	for _, action := range actions {
		service, name, _ := strings.Cut(action.Name, ":")
		noun := Noun(name)
		if noun == "" || !refused(action.Name) {
			continue
		}
		whole[service+":"+noun] = action.Name
		for beginning := range beginnings(noun) {
			begins[service+":"+beginning] = action.Name
		}
	}
	var hits []Hit
	for _, action := range actions {
		service, name, _ := strings.Cut(action.Name, ":")
		noun := Noun(name)
		if !action.asks() || noun == "" || tags(name) || removes(name) {
			continue
		}
		other := whole[service+":"+noun]
		if other == "" && strings.Contains(noun, " ") {
			other = begins[service+":"+noun]
		}
		for beginning := range beginnings(noun) {
			if other == "" {
				other = whole[service+":"+beginning]
			}
		}
		if other != "" && other != action.Name {
			hits = append(hits, Hit{action.Name, "it is about the same as " + other})
		}
	}
	return hits
}

// beginnings yields what begins a noun, of two words or more: a single word begins
// too much, such as Job, Image or Domain.
func beginnings(noun string) iter.Seq[string] {
	return func(yield func(string) bool) {
		words := strings.Fields(noun)
		for count := len(words) - 1; count >= 2; count-- {
			if !yield(strings.Join(words[:count], " ")) {
				return
			}
		}
	}
}

// Twins lists the writing actions that have the name of a refused action of
// another service.
func Twins(actions []Action, refused func(name string) bool) []Hit {
	first := map[string]string{}
	for _, action := range actions {
		_, name, _ := strings.Cut(action.Name, ":")
		if refused(action.Name) && first[name] == "" {
			first[name] = action.Name
		}
	}
	var hits []Hit
	for _, action := range actions {
		_, name, _ := strings.Cut(action.Name, ":")
		if other := first[name]; action.asks() && other != "" && other != action.Name && !tags(name) && !removes(name) {
			hits = append(hits, Hit{action.Name, "it has the name of " + other})
		}
	}
	return hits
}

// Guards lists the writing actions on what watches, keeps or limits.
func Guards(actions []Action) []Hit {
	var hits []Hit
	for _, action := range actions {
		_, name, _ := strings.Cut(action.Name, ":")
		if !action.asks() || tags(name) {
			continue
		}
		if guard := guardIn(Words(name)); guard != "" {
			hits = append(hits, Hit{action.Name, fmt.Sprintf("it is about a guard (%s)", guard)})
		}
	}
	return hits
}

func guardIn(words []string) string {
	for i, word := range words[1:] {
		if single := singular(word); guards[single] {
			return single
		}
		if pair := words[i] + singular(word); guardPairs[pair] {
			return pair
		}
	}
	return ""
}

// Named lists the actions whose own name speaks of a credential. It is for those
// that are no operation of an API, of which no model says what they answer.
func Named(actions []Action) []Hit {
	var hits []Hit
	for _, action := range actions {
		_, name, _ := strings.Cut(action.Name, ":")
		first := Words(name)[0]
		if gives := !slices.Contains([]string{"List", "Describe", "Delete", "Revoke", "Tag", "Untag"}, first); gives && action.Grantable && !tags(name) && Secret(name) {
			hits = append(hits, Hit{action.Name, "its name speaks of a credential"})
		}
	}
	return hits
}

// Noun is what an action is about: its name in single words without verb, number
// and what only qualifies it. Empty for a name that is a verb.
func Noun(name string) string {
	words := Words(name)
	for len(words) > 1 && prefixes[words[0]] {
		words = words[1:]
	}
	if verbs[words[0]] {
		words = words[1:]
	}
	if at := slices.IndexFunc(words, func(word string) bool { return prepositions[word] }); at > 0 {
		words = words[:at]
	}
	for len(words) > 1 && qualifiers[singular(words[len(words)-1])] {
		words = words[:len(words)-1]
	}
	singles := make([]string, len(words))
	for i, word := range words {
		singles[i] = singular(word)
	}
	return strings.Join(singles, " ")
}

// Words splits a name into its words: "UpdateIPSet" into Update, Ip, Set.
func Words(name string) []string {
	letters := []rune(name)
	var words []string
	start := 0
	for i := 1; i <= len(letters); i++ {
		if i < len(letters) && !starts(letters, i) {
			continue
		}
		word := strings.ToLower(string(letters[start:i]))
		words = append(words, strings.ToUpper(word[:1])+word[1:])
		start = i
	}
	if len(words) == 0 {
		return []string{name}
	}
	return words
}

// starts says whether a word starts at letter i: a capital after a small letter or
// a digit, or one before a small letter that ends an abbreviation.
func starts(letters []rune, i int) bool {
	if !unicode.IsUpper(letters[i]) {
		return false
	}
	return !unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1]) && letters[i+1] != 's'
}

// removes says whether an action takes something away.
func removes(name string) bool {
	words := Words(name)
	for len(words) > 1 && prefixes[words[0]] {
		words = words[1:]
	}
	return removers[words[0]]
}

// singular is a word without its plural's s.
func singular(word string) string {
	switch {
	case strings.HasSuffix(word, "ies") && len(word) > 4:
		return strings.TrimSuffix(word, "ies") + "y"
	case strings.HasSuffix(word, "sses"):
		return strings.TrimSuffix(word, "es")
	case strings.HasSuffix(word, "s") && !strings.HasSuffix(word, "ss") && !strings.HasSuffix(word, "us") && !strings.HasSuffix(word, "is"):
		return strings.TrimSuffix(word, "s")
	default:
		return word
	}
}

// tags says whether an action writes tags alone: those are for ABAC's table.
func tags(name string) bool {
	words := Words(name)
	return slices.Contains([]string{"Tag", "Untag"}, words[0]) || slices.ContainsFunc(words, func(word string) bool {
		return word == "Tag" || word == "Tags" || word == "Tagging"
	})
}

// Unreviewed lists the hits without a verdict, each action once.
func Unreviewed(hits []Hit, reviewed func(name string) bool) []Hit {
	var left []Hit
	seen := map[string]bool{}
	for _, hit := range hits {
		if !seen[hit.Action] && !reviewed(hit.Action) {
			seen[hit.Action] = true
			left = append(left, hit)
		}
	}
	return left
}
