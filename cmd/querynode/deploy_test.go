package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/querynode/querynode/internal/config"
)

const deployed = "../../deploy"

// manifest is what the test reads of one Kubernetes object.
type manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
	Data map[string]string
	Spec json.RawMessage
}

// statefulSet is what the test reads of a StatefulSet.
type statefulSet struct {
	Replicas            int
	PodManagementPolicy string
	UpdateStrategy      struct{ Type string }
	ServiceName         string
	Selector            struct{ MatchLabels map[string]string }
	Template            struct {
		Metadata struct{ Labels map[string]string }
		Spec     struct {
			TerminationGracePeriodSeconds int
			SecurityContext               struct{ FSGroup, RunAsUser int }
			Containers                    []container
			Volumes                       []struct {
				Name      string
				ConfigMap *struct{ Name string }
			}
		}
	}
	VolumeClaimTemplates []struct{ Metadata struct{ Name string } }
}

type container struct {
	Args  []string
	Ports []struct {
		Name          string
		ContainerPort int
	}
	ReadinessProbe, LivenessProbe struct{ HTTPGet struct{ Path, Port string } }
	VolumeMounts                  []struct{ Name, MountPath string }
}

// manifests reads the objects of a file.
func manifests(t *testing.T, path string) (all []manifest) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var doc map[string]any
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil || m.APIVersion == "" || m.Kind == "" || m.Metadata.Name == "" {
			t.Fatalf("%s: no object: %v\n%s", path, err, text)
		}
		all = append(all, m)
	}
}

// byKind returns the only object of a kind.
func byKind(t *testing.T, all []manifest, kind string) manifest {
	t.Helper()
	i := slices.IndexFunc(all, func(m manifest) bool { return m.Kind == kind })
	if i < 0 {
		t.Fatalf("no %s", kind)
	}
	return all[i]
}

// imageVariables are those that the Dockerfile sets.
func imageVariables(t *testing.T) (environ []string) {
	t.Helper()
	raw, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "ENV "); ok {
			environ = append(environ, strings.Fields(rest)...)
		}
	}
	if len(environ) == 0 {
		t.Fatal("the Dockerfile sets no variables")
	}
	return environ
}

// mounted is the configuration that the container has.
func mounted(t *testing.T, all []manifest) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(byKind(t, all, "ConfigMap").Data["node.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(config.Sources{File: file, Environ: imageVariables(t)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// inKubernetes runs a test for each manifest.
func inKubernetes(t *testing.T, test func(t *testing.T, all []manifest)) {
	for _, name := range []string{"querynode.yaml", "querynode-pulsar.yaml"} {
		t.Run(name, func(t *testing.T) { test(t, manifests(t, filepath.Join(deployed, "kubernetes", name))) })
	}
}

func TestTheStatefulSetFitsTheNode(t *testing.T) { inKubernetes(t, setFitsNode) }

func setFitsNode(t *testing.T, all []manifest) {
	cfg := mounted(t, all)
	set := byKind(t, all, "StatefulSet")
	var s statefulSet
	if err := json.Unmarshal(set.Spec, &s); err != nil {
		t.Fatal(err)
	}
	pod := s.Template.Spec
	if several := s.Replicas > 1; several != (cfg.Queue.Kind == "pulsar") || several == cfg.Node.Standalone || several && cfg.Storage.URL == "" {
		t.Errorf("%d replicas with queue.kind %s, node.standalone %t and storage.url %q", s.Replicas, cfg.Queue.Kind, cfg.Node.Standalone, cfg.Storage.URL)
	}
	if s.PodManagementPolicy != "Parallel" {
		t.Errorf("with podManagementPolicy %q a pod that is not ready keeps its image and configuration, whatever is applied", s.PodManagementPolicy)
	}
	if pod.SecurityContext.FSGroup != 65532 || pod.SecurityContext.RunAsUser != 65532 {
		t.Errorf("the volume is written to by the image's user, 65532: %+v", pod.SecurityContext)
	}
	if grace := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; grace <= cfg.Shutdown.Drain+cfg.Shutdown.Total {
		t.Errorf("the pod is killed after %s, the node may take %s and %s", grace, cfg.Shutdown.Drain, cfg.Shutdown.Total)
	}
	for k, v := range s.Selector.MatchLabels {
		if s.Template.Metadata.Labels[k] != v {
			t.Errorf("the selector wants %s=%s, the pods have %q", k, v, s.Template.Metadata.Labels[k])
		}
	}
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	c := pod.Containers[0]
	ports := map[string]int{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for name, listen := range map[string]string{"grpc": cfg.GRPC.Listen, "admin": cfg.Admin.Listen} {
		if want := "0.0.0.0:" + jsonNumber(float64(ports[name])); listen != want {
			t.Errorf("the node listens on %s, the port %q is %d", listen, name, ports[name])
		}
	}
	if r, l := c.ReadinessProbe.HTTPGet, c.LivenessProbe.HTTPGet; r.Path != "/readyz" || l.Path != "/healthz" || r.Port != "admin" || l.Port != "admin" {
		t.Errorf("the probes ask %+v and %+v", r, l)
	}
	var volumes, mounts []string
	for _, v := range pod.Volumes {
		volumes = append(volumes, v.Name)
		if v.ConfigMap != nil && v.ConfigMap.Name != byKind(t, all, "ConfigMap").Metadata.Name {
			t.Errorf("there is no ConfigMap %q", v.ConfigMap.Name)
		}
	}
	for _, v := range s.VolumeClaimTemplates {
		volumes = append(volumes, v.Metadata.Name)
	}
	for _, m := range c.VolumeMounts {
		if !slices.Contains(volumes, m.Name) {
			t.Errorf("nothing is called %q that could be mounted at %s", m.Name, m.MountPath)
		}
		if m.Name == "data" {
			mounts = append(mounts, m.MountPath)
		}
	}
	if len(mounts) != 1 || !strings.HasPrefix(cfg.Node.DataDir, mounts[0]+"/") || !strings.HasPrefix(cfg.Queue.Dir, mounts[0]+"/") {
		t.Errorf("the volume is at %q, the node's files in %s, the queue in %s", mounts, cfg.Node.DataDir, cfg.Queue.Dir)
	}
	if !slices.ContainsFunc(all, func(m manifest) bool { return m.Kind == "Service" && m.Metadata.Name == s.ServiceName }) {
		t.Errorf("there is no Service %q", s.ServiceName)
	}
}

// TestThePodMayRunWhereRestrictedIsEnforced: what the Pod Security Standard of this name wants.
func TestThePodMayRunWhereRestrictedIsEnforced(t *testing.T) { inKubernetes(t, podIsRestricted) }

func podIsRestricted(t *testing.T, all []manifest) {
	type seccomp struct{ Type string }
	var s struct {
		Template struct {
			Spec struct {
				HostNetwork, HostPID, HostIPC bool
				SecurityContext               struct {
					RunAsNonRoot   bool
					SeccompProfile seccomp
				}
				Containers []struct {
					SecurityContext struct {
						AllowPrivilegeEscalation *bool
						Capabilities             struct{ Add, Drop []string }
						ReadOnlyRootFilesystem   bool
					}
				}
				Volumes []map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(byKind(t, all, "StatefulSet").Spec, &s); err != nil {
		t.Fatal(err)
	}
	pod := s.Template.Spec
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || !pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("the pod: %+v", pod)
	}
	for _, c := range pod.Containers {
		sc := c.SecurityContext
		if sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation || !sc.ReadOnlyRootFilesystem || len(sc.Capabilities.Add) > 0 || !slices.Equal(sc.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("a container: %+v", sc)
		}
	}
	for _, v := range pod.Volumes {
		for kind := range v {
			if !slices.Contains([]string{"name", "configMap", "emptyDir", "persistentVolumeClaim", "secret"}, kind) {
				t.Errorf("a volume of the kind %s", kind)
			}
		}
	}
}

// TestTheNetworkPolicyNamesPortsOfThePod; with their protocol, or each apply changes the policy.
func TestTheNetworkPolicyNamesPortsOfThePod(t *testing.T) { inKubernetes(t, policyFitsPod) }

func policyFitsPod(t *testing.T, all []manifest) {
	var s statefulSet
	var p struct {
		PodSelector struct{ MatchLabels map[string]string }
		Ingress     []struct {
			Ports []struct{ Protocol, Port string }
		}
	}
	for kind, into := range map[string]any{"StatefulSet": &s, "NetworkPolicy": &p} {
		if err := json.Unmarshal(byKind(t, all, kind).Spec, into); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(p.PodSelector.MatchLabels, s.Selector.MatchLabels) {
		t.Errorf("the policy is for %v, the pods have %v", p.PodSelector.MatchLabels, s.Selector.MatchLabels)
	}
	var named []string
	for _, in := range p.Ingress {
		for _, port := range in.Ports {
			if port.Protocol != "TCP" {
				t.Errorf("port %s has the protocol %q", port.Port, port.Protocol)
			}
			named = append(named, port.Port)
		}
	}
	var has []string
	for _, port := range s.Template.Spec.Containers[0].Ports {
		has = append(has, port.Name)
	}
	slices.Sort(named)
	if slices.Sort(has); !slices.Equal(named, has) {
		t.Errorf("the policy names %q, the pod has %q", named, has)
	}
}

// TestSeveralNodesGoOneAtATime, and have the time that their brokers may take.
func TestSeveralNodesGoOneAtATime(t *testing.T) {
	all := manifests(t, filepath.Join(deployed, "kubernetes/querynode-pulsar.yaml"))
	var set statefulSet
	var budget struct {
		MaxUnavailable int
		Selector       struct{ MatchLabels map[string]string }
	}
	for kind, into := range map[string]any{"StatefulSet": &set, "PodDisruptionBudget": &budget} {
		if err := json.Unmarshal(byKind(t, all, kind).Spec, into); err != nil {
			t.Fatal(err)
		}
	}
	if budget.MaxUnavailable != 1 || !maps.Equal(budget.Selector.MatchLabels, set.Selector.MatchLabels) {
		t.Errorf("%d of the pods with %v may be away, there are %d with %v", budget.MaxUnavailable, budget.Selector.MatchLabels, set.Replicas, set.Selector.MatchLabels)
	}
	if set.UpdateStrategy.Type != "OnDelete" { // each new pod is ready at once, with nothing to serve
		t.Errorf("a change of the pods is rolled out by %q", set.UpdateStrategy.Type)
	}
	if cfg := mounted(t, all); cfg.Shutdown.Total <= 2*cfg.Pulsar.OperationTimeout {
		t.Errorf("shutdown.total is %s, a call of the broker may take %s", cfg.Shutdown.Total, cfg.Pulsar.OperationTimeout)
	}
	// A budget of one pod would hold up its machine for ever, or mean nothing.
	for _, m := range manifests(t, filepath.Join(deployed, "kubernetes/querynode.yaml")) {
		if m.Kind == "PodDisruptionBudget" || m.Kind == "HorizontalPodAutoscaler" {
			t.Errorf("a %s for one node", m.Kind)
		}
	}
}

// Whoever mounts a file that says "on the loopback" has the API there.
func TestAFileBeatsWhatTheImageSays(t *testing.T) {
	cfg, _, err := config.Load(config.Sources{Environ: imageVariables(t)})
	if err != nil || cfg.GRPC.Listen != "0.0.0.0:19530" || cfg.Admin.Listen != "0.0.0.0:9091" {
		t.Fatalf("a container without a file: %v, %+v", err, cfg.GRPC)
	}
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte("grpc: {listen: \"127.0.0.1:19530\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err = config.Load(config.Sources{File: file, Environ: imageVariables(t)})
	if err != nil || cfg.GRPC.Listen != "127.0.0.1:19530" {
		t.Fatalf("with a file: %v, grpc.listen %s", err, cfg.GRPC.Listen)
	}
}

// metricNames are the names of all metrics of a node, with those of histograms' parts.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	r := startNode(t, testConfig(t))
	waitServing(t, r)
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		r.registry.Describe(descriptions)
	}()
	names := map[string]bool{}
	quoted := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descriptions {
		if m := quoted.FindStringSubmatch(d.String()); m != nil {
			names[m[1]] = true
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				if strings.HasSuffix(m[1], "_seconds") {
					names[m[1]+part] = true
				}
			}
		}
	}
	return names
}

// expressions are the values of "expr" in a document, wherever they stand.
func expressions(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for key, x := range v {
			if text, ok := x.(string); ok && key == "expr" {
				all = append(all, text)
			}
			all = append(all, expressions(x)...)
		}
	case []any:
		for _, x := range v {
			all = append(all, expressions(x)...)
		}
	}
	return all
}

func TestAlertsAndDashboardsUseMetricsThatThereAre(t *testing.T) {
	names := metricNames(t)
	ours := regexp.MustCompile(`querynode_[a-z0-9_]+`)
	for file, atLeast := range map[string]int{"prometheus/querynode.rules.yaml": 15, "grafana/querynode.json": 30} {
		raw, err := os.ReadFile(filepath.Join(deployed, file))
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Unmarshal(raw, &doc); err != nil { // JSON is YAML
			t.Fatalf("%s: %v", file, err)
		}
		all := expressions(doc)
		if len(all) < atLeast {
			t.Errorf("%s has %d expressions, want %d at least", file, len(all), atLeast)
		}
		for _, e := range all {
			for _, name := range ours.FindAllString(e, -1) {
				if !names[name] {
					t.Errorf("%s: there is no metric %s, in: %s", file, name, e)
				}
			}
			if strings.Count(e, "(") != strings.Count(e, ")") || strings.Count(e, "{") != strings.Count(e, "}") {
				t.Errorf("%s: brackets do not match in: %s", file, e)
			}
		}
	}
	// What the documentation tells to watch is there, too.
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	told := ours.FindAllString(string(raw), -1)
	for _, name := range told {
		if !names[name] {
			t.Errorf("docs/operations.md: there is no metric %s", name)
		}
	}
	rules, err := os.ReadFile(filepath.Join(deployed, "prometheus/querynode.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range ours.FindAllString(string(rules), -1) {
		if !slices.Contains(told, name) {
			t.Errorf("docs/operations.md does not say what to do when %s has an alert", name)
		}
	}
}

// TestPanelsOfTheDashboardDoNotHideOneAnother: nor have two the same number, by which they are linked.
func TestPanelsOfTheDashboardDoNotHideOneAnother(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(deployed, "grafana/querynode.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	ids, at := map[int]string{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if other := ids[p.ID]; other != "" || p.Title == "" {
			t.Errorf("panel %d is %q and %q", p.ID, other, p.Title)
		}
		ids[p.ID] = p.Title
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				place := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := at[place]; other != "" || place[0] >= 24 {
					t.Fatalf("%q is where %q is, or beyond the right", p.Title, other)
				}
				at[place] = p.Title
			}
		}
	}
}

// Each help is a sentence of its own: nobody reads them in our order.
func TestHelpOfMetricsIsWholeSentences(t *testing.T) {
	r := startNode(t, testConfig(t))
	waitServing(t, r)
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		help := f.GetHelp()
		if !strings.HasPrefix(f.GetName(), "querynode_") {
			continue
		}
		if !strings.HasSuffix(help, ".") || strings.Contains(help, "of those.") || strings.HasPrefix(help, "Their ") || strings.HasPrefix(help, "What that ") {
			t.Errorf("%s: %q", f.GetName(), help)
		}
	}
}
