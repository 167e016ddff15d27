package kubernetes

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

type fields = map[string]any

// workload is a kind of object that pods come from.
type workload struct {
	schema.GroupVersionResource
	kind string
	wrap func(pod fields) fields // the object's fields, from its pods'
}

// workloads are all of a server's kinds that pods come from.
func workloads() []workload {
	labels := fields{"app": "tried"}
	template := func(pod fields) fields { return fields{"metadata": fields{"labels": labels}, "spec": pod} }
	selected := func(pod fields) fields {
		return fields{"spec": fields{"selector": fields{"matchLabels": labels}, "serviceName": "tried", "template": template(pod)}}
	}
	controlled := func(pod fields) fields {
		spec := selected(pod)["spec"].(fields)
		delete(spec, "serviceName")
		return fields{"spec": spec}
	}
	job := func(pod fields) fields {
		pod = with(pod, fields{"restartPolicy": "Never"})
		return fields{"spec": fields{"template": fields{"spec": pod}}}
	}
	resource := func(group, name string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: "v1", Resource: name}
	}
	return []workload{
		{resource("", "pods"), "Pod", func(pod fields) fields { return fields{"spec": pod} }},
		{resource("", "podtemplates"), "PodTemplate", func(pod fields) fields { return fields{"template": template(pod)} }},
		{resource("", "replicationcontrollers"), "ReplicationController", func(pod fields) fields {
			return fields{"spec": fields{"selector": labels, "template": template(pod)}}
		}},
		{resource("apps", "daemonsets"), "DaemonSet", controlled},
		{resource("apps", "deployments"), "Deployment", controlled},
		{resource("apps", "replicasets"), "ReplicaSet", controlled},
		{resource("apps", "statefulsets"), "StatefulSet", selected},
		{resource("batch", "cronjobs"), "CronJob", func(pod fields) fields {
			return fields{"spec": fields{"schedule": "0 0 * * *", "jobTemplate": job(pod)}}
		}},
		{resource("batch", "jobs"), "Job", job},
	}
}

func (w workload) object(name string, pod fields) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: w.wrap(pod)}
	object.SetAPIVersion(w.GroupVersion().String())
	object.SetKind(w.kind)
	object.SetName(name)
	return plain(object)
}

// plain gives an object a copy of everything in it, as it is on the way to a server.
func plain(object *unstructured.Unstructured) *unstructured.Unstructured {
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	copied := &unstructured.Unstructured{}
	if err := copied.UnmarshalJSON(text); err != nil {
		panic(err)
	}
	return copied
}

func with(of fields, changes fields) fields {
	changed := maps.Clone(of)
	maps.Copy(changed, changes)
	return changed
}

// tiedPod is a pod as the policy wants it.
func tiedPod() fields {
	return fields{
		"serviceAccountName": "precision-workload", "automountServiceAccountToken": false,
		"containers": []any{fields{"name": "main", "image": "registry.test/app:1",
			"env":     []any{fields{"name": "A", "value": "1"}, fields{"name": "B", "valueFrom": fields{"configMapKeyRef": fields{"name": "c", "key": "k"}}}},
			"envFrom": []any{fields{"configMapRef": fields{"name": "c"}}},
			"ports":   []any{fields{"containerPort": 8080}}}},
		"initContainers":  []any{fields{"name": "first", "image": "registry.test/app:1"}},
		"tolerations":     []any{fields{"key": "example.com/spot", "operator": "Exists"}},
		"nodeSelector":    fields{"kubernetes.io/os": "linux"},
		"affinity":        nodeAffinity("matchExpressions", "node-role.kubernetes.io/control-plane", "DoesNotExist"),
		"securityContext": fields{"seccompProfile": fields{"type": "RuntimeDefault"}},
		"volumes": []any{
			fields{"name": "a", "configMap": fields{"name": "c"}}, fields{"name": "b", "emptyDir": fields{}},
			fields{"name": "c", "downwardAPI": fields{}}, fields{"name": "d", "persistentVolumeClaim": fields{"claimName": "c"}},
		},
	}
}

// waysAround are the changes to a pod that would give its author more than the
// grant.
func waysAround() map[string]fields {
	ways := map[string]fields{
		"another account":             {"serviceAccountName": "default"},
		"another account, old name":   {"serviceAccountName": nil, "serviceAccount": "default"},
		"no account":                  {"serviceAccountName": nil, "serviceAccount": nil},
		"the account's token":         {"automountServiceAccountToken": true},
		"the account's token, unsaid": {"automountServiceAccountToken": nil},
		"imagePullSecrets":            {"imagePullSecrets": []any{fields{"name": "s"}}},
		"hostNetwork":                 {"hostNetwork": true},
		"hostPID":                     {"hostPID": true},
		"hostIPC":                     {"hostIPC": true},
		"nodeName":                    {"nodeName": "node"},
		"priority over the system's":  {"priorityClassName": "system-node-critical"},
		"control-plane taint":         {"tolerations": []any{fields{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}}},
		"all taints":                  {"tolerations": []any{fields{"key": "app", "operator": "Exists"}, fields{"operator": "Exists"}}},
		"control-plane selector":      {"nodeSelector": fields{"node-role.kubernetes.io/control-plane": ""}},
		"control-plane affinity":      {"affinity": nodeAffinity("matchExpressions", "node-role.kubernetes.io/master", "Exists")},
		"affinity to a node's name":   {"affinity": nodeAffinity("matchFields", "metadata.name", "In", "node")},
		"a node by its label":         {"nodeSelector": fields{"kubernetes.io/hostname": "control-plane-1"}},
		"affinity to one node":        {"affinity": nodeAffinity("matchExpressions", "kubernetes.io/hostname", "In", "one")},
		"the system's taint":          {"tolerations": []any{fields{"key": "CriticalAddonsOnly", "operator": "Exists"}}},
		"beside the system's pods":    {"affinity": podAffinity(fields{"namespaces": []any{"kube-system"}})},
		"beside pods of all":          {"affinity": podAffinity(fields{"namespaceSelector": fields{}})},
		"another SELinux type":        {"securityContext": fields{"seLinuxOptions": fields{"type": "spc_t"}}},
		"preferred control plane": {"affinity": fields{"nodeAffinity": fields{"preferredDuringSchedulingIgnoredDuringExecution": []any{fields{"weight": 1, "preference": fields{
			"matchExpressions": []any{fields{"key": "node-role.kubernetes.io/control-plane", "operator": "In", "values": []any{""}}}}}}}}},
		"unconfined seccomp":  {"securityContext": fields{"seccompProfile": fields{"type": "Unconfined"}}},
		"unconfined AppArmor": {"securityContext": fields{"appArmorProfile": fields{"type": "Unconfined"}}},
		"a sysctl":            {"securityContext": fields{"sysctls": []any{fields{"name": "kernel.shm_rmid_forced", "value": "1"}}}},
		"a device claim":      {"resourceClaims": []any{fields{"name": "gpu", "resourceClaimName": "gpu"}}},
		"hostProcess": {"hostNetwork": true, "os": fields{"name": "windows"}, "volumes": nil, "securityContext": fields{
			"seccompProfile": nil, "windowsOptions": fields{"hostProcess": true, "runAsUserName": "system"}}},
	}
	for name, source := range map[string]fields{
		"secret":           {"secret": fields{"secretName": "s"}},
		"hostPath":         {"hostPath": fields{"path": "/"}},
		"ephemeral":        {"ephemeral": fields{"volumeClaimTemplate": fields{"spec": fields{"accessModes": []any{"ReadWriteOnce"}, "resources": fields{"requests": fields{"storage": "1Gi"}}}}}},
		"nfs":              {"nfs": fields{"server": "nfs.test", "path": "/"}},
		"iscsi":            {"iscsi": fields{"targetPortal": "10.0.0.1", "iqn": "iqn.2026-01.test:a", "lun": 0}},
		"csi":              {"csi": fields{"driver": "secrets-store.csi.k8s.io"}},
		"projected token":  {"projected": fields{"sources": []any{fields{"serviceAccountToken": fields{"path": "token"}}}}},
		"projected secret": {"projected": fields{"sources": []any{fields{"secret": fields{"name": "s"}}}}},
	} {
		ways["volume: "+name] = fields{"volumes": append(tiedPod()["volumes"].([]any), with(source, fields{"name": "more"}))}
	}
	for name, change := range containerWays() {
		for _, list := range []string{"containers", "initContainers"} {
			container := with(tiedPod()[list].([]any)[0].(fields), change)
			ways[list+": "+name] = fields{list: []any{fields{"name": "other", "image": "registry.test/app:1"}, container}}
		}
		sidecar := with(fields{"name": "side", "image": "registry.test/app:1", "restartPolicy": "Always"}, change)
		ways["sidecar: "+name] = fields{"initContainers": []any{sidecar}}
	}
	return ways
}

// nodeAffinity requires a node by one expression.
func nodeAffinity(by, key, operator string, values ...any) fields {
	expression := fields{"key": key, "operator": operator}
	if len(values) > 0 {
		expression["values"] = values
	}
	term := fields{by: []any{expression}}
	return fields{"nodeAffinity": fields{"requiredDuringSchedulingIgnoredDuringExecution": fields{"nodeSelectorTerms": []any{term}}}}
}

// podAffinity requires a node by the pods that run on it.
func podAffinity(of fields) fields {
	labels := fields{"matchLabels": fields{"component": "kube-apiserver"}}
	term := with(of, fields{"topologyKey": "kubernetes.io/hostname", "labelSelector": labels})
	return fields{"podAffinity": fields{"requiredDuringSchedulingIgnoredDuringExecution": []any{term}}}
}

// containerWays are those of a container.
func containerWays() map[string]fields {
	return map[string]fields{
		"secretKeyRef":    {"env": []any{fields{"name": "A", "value": "1"}, fields{"name": "S", "valueFrom": fields{"secretKeyRef": fields{"name": "s", "key": "k"}}}}},
		"envFrom":         {"envFrom": []any{fields{"configMapRef": fields{"name": "c"}}, fields{"secretRef": fields{"name": "s"}}}},
		"optional secret": {"envFrom": []any{fields{"secretRef": fields{"name": "s", "optional": true}}}},
		"privileged":      {"securityContext": fields{"privileged": true}},
		"capabilities":    {"securityContext": fields{"capabilities": fields{"add": []any{"SYS_ADMIN"}}}},
		"unconfined":      {"securityContext": fields{"seccompProfile": fields{"type": "Unconfined"}}},
		"SELinux":         {"securityContext": fields{"seLinuxOptions": fields{"user": "system_u"}}},
		"no AppArmor":     {"securityContext": fields{"appArmorProfile": fields{"type": "Unconfined"}}},
		"hostPort":        {"ports": []any{fields{"containerPort": 8080, "hostPort": 8080}}},
	}
}

// guarded makes a namespace that the policies are at work in, and two accounts that
// may do all in it: one of the namespace that the engine's accounts are in, and one of
// its own.
func guarded(t *testing.T, namespace string) (minted, own dynamic.Interface) {
	t.Helper()
	ctx, cluster := t.Context(), servers.Kubernetes
	needEngine(t)
	if err := cluster.MakeNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	makeAccount(t, namespace, "precision-workload")
	makeAccount(t, namespace, "own")
	makeAccount(t, lab.AccountsNamespace, namespace)
	makeAccount(t, lab.AccountsNamespace, restartPrefix+namespace)
	bind(t, namespace, "ClusterRole", "cluster-admin",
		account(lab.AccountsNamespace, namespace), account(lab.AccountsNamespace, restartPrefix+namespace), account(namespace, "own"))
	minted, own = dynamicAs(t, token(t, lab.AccountsNamespace, namespace)), dynamicAs(t, token(t, namespace, "own"))
	restart := dynamicAs(t, token(t, lab.AccountsNamespace, restartPrefix+namespace))
	if err := cluster.Apply(ctx, "admission-policy.yaml", ""); err != nil {
		t.Fatal(err)
	}
	inForce := func() int { return policiesInForce(namespace, minted, restart) }
	t.Cleanup(func() {
		removePolicies(t)
		eventually(t, "the admission policies are not in force", 30*time.Second, func() bool { return inForce() == 0 })
	})
	eventually(t, "the admission policies are in force", 30*time.Second, func() bool { return inForce() == 3 })
	return minted, own
}

// restartPrefix starts the names of accounts that may restart.
const restartPrefix = "precision-restart-"

// policiesInForce counts the policies that refuse what they are to refuse.
func policiesInForce(namespace string, minted, restart dynamic.Interface) (count int) {
	ctx, dry := context.Background(), []string{meta.DryRunAll}
	pods := workloads()[0]
	authority := &unstructured.Unstructured{Object: fields{"apiVersion": "v1", "kind": "ConfigMap", "metadata": fields{"name": "kube-root-ca.crt"}}}
	_, objects := minted.Resource(configMaps).Namespace(namespace).Create(ctx, authority, meta.CreateOptions{DryRun: dry})
	_, workloads := minted.Resource(pods.GroupVersionResource).Namespace(namespace).Create(ctx, pods.object("probe", with(tiedPod(), waysAround()["hostPID"])), meta.CreateOptions{DryRun: dry})
	other := authority.DeepCopy()
	other.SetName("probe")
	_, restarts := restart.Resource(configMaps).Namespace(namespace).Create(ctx, other, meta.CreateOptions{DryRun: dry})
	for policy, err := range map[string]error{"precision-objects": objects, "precision-workloads": workloads, "precision-restart": restarts} {
		if deniedBy(err, policy) {
			count++
		}
	}
	return count
}

func removePolicies(t *testing.T) {
	t.Helper()
	ctx, api := context.Background(), servers.Kubernetes.AdmissionregistrationV1()
	for _, name := range []string{"precision-objects", "precision-restart", "precision-revoked", "precision-workloads"} {
		for _, err := range []error{
			api.ValidatingAdmissionPolicyBindings().Delete(ctx, name, meta.DeleteOptions{}),
			api.ValidatingAdmissionPolicies().Delete(ctx, name, meta.DeleteOptions{}),
		} {
			if err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	}
}

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// deniedBy says whether an error is the refusal of a policy that has judged.
func deniedBy(err error, policy string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy+"'") && !strings.Contains(err.Error(), "resulted in error")
}

func TestAdmissionPolicyClosesWaysAround(t *testing.T) {
	ctx := t.Context()
	minted, own := guarded(t, "guarded")
	dry := meta.CreateOptions{DryRun: []string{meta.DryRunAll}}
	denied, allowed, ways := 0, 0, waysAround()
	for _, kind := range workloads() {
		as := func(client dynamic.Interface) dynamic.ResourceInterface {
			return client.Resource(kind.GroupVersionResource).Namespace("guarded")
		}
		if _, err := as(minted).Create(ctx, kind.object("tried", tiedPod()), meta.CreateOptions{}); err != nil {
			t.Errorf("%s as the policy wants it: %v", kind.kind, err)
			continue
		}
		for _, way := range slices.Sorted(maps.Keys(ways)) {
			pod := with(tiedPod(), ways[way])
			if _, err := as(own).Create(ctx, kind.object("new", pod), dry); err != nil {
				t.Errorf("%s with %s is refused to others too, and so proves nothing: %v", kind.kind, way, err)
				continue
			}
			allowed++
			if _, err := as(minted).Create(ctx, kind.object("new", pod), dry); !deniedBy(err, "precision-workloads") {
				t.Errorf("%s with %s: %v", kind.kind, way, err)
			} else {
				denied++
			}
			if kind.kind == "Pod" || kind.kind == "Job" {
				continue // their pods can't be changed
			}
			// What was as the policy wants it is changed into what is not.
			text, err := json.Marshal(kind.object("tried", pod))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := as(minted).Patch(ctx, "tried", types.MergePatchType, text, meta.PatchOptions{DryRun: []string{meta.DryRunAll}}); !deniedBy(err, "precision-workloads") {
				t.Errorf("%s changed to have %s: %v", kind.kind, way, err)
			} else {
				denied++
			}
		}
	}
	figures.Log(t, "%d ways around the admission policy x %d kinds, created and changed: %d refused, %d of them allowed to others", len(ways), len(workloads()), denied, allowed)
}

// A pod that runs already gets no container with more.
func TestAdmissionPolicyHoldsEphemeralContainers(t *testing.T) {
	ctx := t.Context()
	minted, own := guarded(t, "guarded-running")
	pods := workloads()[0]
	as := func(client dynamic.Interface) dynamic.ResourceInterface {
		return client.Resource(pods.GroupVersionResource).Namespace("guarded-running")
	}
	others := with(tiedPod(), fields{"serviceAccountName": "default", "automountServiceAccountToken": true})
	if _, err := as(own).Create(ctx, pods.object("others", others), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := as(minted).Create(ctx, pods.object("tied", tiedPod()), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	add := func(client dynamic.Interface, pod string, change fields) error {
		container := with(fields{"name": "debugger", "image": "registry.test/debug:1"}, change)
		patch, err := json.Marshal(fields{"spec": fields{"ephemeralContainers": []any{container}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = as(client).Patch(ctx, pod, types.StrategicMergePatchType, patch, meta.PatchOptions{DryRun: []string{meta.DryRunAll}}, "ephemeralcontainers")
		return err
	}
	denied := 0
	tried := containerWays()
	delete(tried, "hostPort") // an ephemeral container has no ports
	for way, change := range tried {
		if err := add(own, "tied", change); err != nil {
			t.Errorf("an ephemeral container with %s is refused to others too, and so proves nothing: %v", way, err)
		}
		if err := add(minted, "tied", change); !deniedBy(err, "precision-workloads") {
			t.Errorf("an ephemeral container with %s: %v", way, err)
		} else {
			denied++
		}
	}
	if err := add(own, "others", nil); err != nil {
		t.Error(err)
	}
	if err := add(minted, "others", nil); !deniedBy(err, "precision-workloads") {
		t.Errorf("an ephemeral container in a pod with another account's token: %v", err)
	} else {
		denied++
	}
	if err := add(minted, "tied", nil); err != nil {
		t.Errorf("an ephemeral container as the policy wants it: %v", err)
	}
	figures.Log(t, "%d ephemeral containers refused", denied)
}
