//go:build tools

// Package assets pins the oldest API server that the product supports.
package assets

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
