//go:build tools

// Package assets pins the Kubernetes programs that the cluster tests run.
// The kubelet, the controller manager and the scheduler are pinned here too, so
// that go.sum covers them; only the programs in ../programs.py are built.
package assets

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
